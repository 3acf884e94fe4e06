"""Writes a trained network as one file: ONNX, or TorchScript.

Both are traced from the network on one image, so Python's own branches are frozen as that image took them. A file is
therefore moved into place only after it has been run against the network it came from, on images of other sizes and
on one without a cell.

Detectron2's ``detectron2.export`` cannot be imported beside a torch without caffe2, hence the adapter here.
``torch.export``, and with it torch's newer ONNX exporter, stops at the branches that Detectron2 takes on the numbers
of boxes.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import ImageList
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import nn

from bccd_d2.errors import InputError
from bccd_d2.files import replacing
from bccd_d2.inference.exporting.exported import (
    CARD_NAME,
    INPUT_NAME,
    OUTPUT_NAMES,
    SIZE_NAME,
    NetworkCard,
    NetworkOutput,
    check_suffix,
    open_network,
    pad_image,
)
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.synthetic import draw_smear

OPSET = 17
"""Of the ONNX files. 16 is the first whose RoiAlign has Detectron2's half-pixel shift."""
# What two correct runs of one network differ by at most. NMS is computed on other offsets and sums are added up in
# another order, which moves float32 coordinates of a few thousand pixels in their fourth decimal.
BOX_TOLERANCE = 0.05
SCORE_TOLERANCE = 1e-3
MASK_TOLERANCE = 5e-3
# Modules in which Detectron2 and this project write ``len(instances)``.
_TRACED_PACKAGES = ("detectron2.modeling.", "detectron2.projects.", "bccd_d2.modeling.")


class TraceableNetwork(nn.Module):
    """A ``GeneralizedRCNN`` with a mask head, in evaluation mode, with tensors in and tensors out, for one image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        backbone: Any = model.backbone
        self.stride: int = max(1, backbone.size_divisibility)
        self.eval()

    def forward(self, image: torch.Tensor, size: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Boxes, scores, classes and masks as in :class:`NetworkOutput` of ``image`` (3, H, W) uint8, network pixels,
        padded by :func:`pad_image`; ``size`` (2,) int64: its height and width before that.
        """
        model: Any = self.model
        inside = (torch.arange(image.shape[1]) < size[0])[:, None] & (torch.arange(image.shape[2]) < size[1])
        # As Detectron2 pads: with zeros, after the normalization.
        pixels = (image - model.pixel_mean) / model.pixel_std * inside
        images = ImageList(pixels[None], [size])
        features = model.backbone(images.tensor)
        proposals, _ = model.proposal_generator(images, features, None)
        (found,), _ = model.roi_heads(images, features, proposals, None)
        return found.pred_boxes.tensor, found.scores, found.pred_classes, found.pred_masks

    @torch.no_grad()
    def detect(self, image: NDArray[np.uint8]) -> NetworkOutput:
        """Run Detectron2's model as it is, as :class:`bccd_d2.inference.exporting.exported.ExportedNetwork` does."""
        model: Any = self.model
        (found,) = model.inference([{"image": torch.from_numpy(image)}], do_postprocess=False)
        found = found.pred_boxes.tensor, found.scores, found.pred_classes, found.pred_masks
        return NetworkOutput(*(tensor.numpy() for tensor in found))


@dataclass(frozen=True)
class Difference:
    """How far two runs of one network on one image are apart."""

    expected: int  # detections of the first
    unmatched: int  # detections of either that have no partner of their class within ``BOX_TOLERANCE``
    box: float  # largest difference of a coordinate of two partners, network pixels
    score: float  # largest difference of their scores
    mask: float  # largest difference of their probabilities

    @property
    def tolerable(self) -> bool:
        """Whether both found the same."""
        return self.unmatched == 0 and self.score <= SCORE_TOLERANCE and self.mask <= MASK_TOLERANCE


def compare(first: NetworkOutput, second: NetworkOutput) -> Difference:
    """Pair the detections of two runs, whatever their order, and measure how far partners are apart."""
    distances = np.abs(first.boxes[:, None] - second.boxes[None]).max(axis=2, initial=0)
    possible = (distances <= BOX_TOLERANCE) & (first.classes[:, None] == second.classes[None])
    rows, columns = linear_sum_assignment(np.where(possible, distances, 2 * BOX_TOLERANCE * len(distances)))
    paired = possible[rows, columns]
    rows, columns = rows[paired], columns[paired]
    return Difference(
        expected=len(first.scores),
        unmatched=len(first.scores) + len(second.scores) - 2 * len(rows),
        box=float(distances[rows, columns].max(initial=0)),
        score=float(np.abs(first.scores[rows] - second.scores[columns]).max(initial=0)),
        mask=float(np.abs(first.masks[rows] - second.masks[columns]).max(initial=0)),
    )


def export_model(
    cfg: CfgNode, weights: str, path: Path, images: Sequence[NDArray[np.uint8]] = ()
) -> list[Difference]:
    """Write a trained network as ONNX or TorchScript, by the suffix of ``path``, and check what was written.

    The height and width of the image and the number of detections stay free; it takes one image at a time.

    Args:
        cfg: of the training run.
        weights: its checkpoint.
        path: ends with ``.onnx`` or ``.ts``; replaced if it exists.
        images: (height, width, 3) uint8 BGR, native, each of another size, on which the file is checked. Empty: two
            synthetic smears and an empty background.

    Returns:
        How far the file is from the network on each image.

    Raises:
        InputError: the suffix is another, the network cannot be traced, or what was traced does not find the same
            cells, or there were none to be found.
        OSError: the file cannot be written.
    """
    check_suffix(path)
    predictor = BCCDPredictor(cfg, weights, device="cpu", cpu_mode="plain")
    network = TraceableNetwork(predictor.model)
    check_suppression(predictor.model, path)
    stain = predictor.preprocessor.colors.stain
    card = NetworkCard(
        class_names=tuple(predictor.class_names),
        scale=float(cfg.INPUT.SCALE),
        image_format=cfg.INPUT.FORMAT,
        most_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
        stride=network.stride,
        cell_diameter=float(cfg.INPUT.CELL_DIAMETER),
        microns_per_pixel=float(cfg.INPUT.MICRONS_PER_PIXEL),
        stain=None if stain is None else {"target": stain.target, "image_format": stain.image_format},
        white_balance=cfg.INPUT.WHITE_BALANCE,
        cell_density=tuple(cfg.INPUT.CELL_DENSITY),
    )
    prepared = [
        np.ascontiguousarray(predictor.prepare(image, 1.0).transpose(2, 0, 1))
        for image in images or example_images()
    ]
    with replacing(path) as temporary:
        with naming_untraceable(path):
            _write(network, card, prepared[0], temporary)
        written = open_network(temporary)
        differences = [compare(network.detect(image), written.run(image)) for image in prepared]
        _check(differences, path)
    return differences


def check_suppression(model: Any, path: Path) -> None:
    """Refuse a model whose suppression cannot be traced.

    Raises:
        InputError: which option makes it so; ``path`` is what would be written.
    """
    if getattr(model.roi_heads, "mask_suppression", None) is not None:
        raise InputError(f"{path}: MODEL.ROI_HEADS.MASK_NMS cannot be exported: expected ENABLED False")


def example_images() -> list[NDArray[np.uint8]]:
    """What a file is checked on by default, (height, width, 3) uint8 BGR each."""
    smears = [draw_smear(seed, width, height).image for seed, width, height in ((1, 640, 480), (2, 500, 700))]
    return [*smears, np.full((300, 200, 3), 235, np.uint8)]


def _check(differences: Sequence[Difference], path: Path) -> None:
    for difference in differences:
        if not difference.tolerable:
            raise InputError(
                f"{path}: not written, because the exported network does not find what the network finds "
                f"({difference}): one of its parts cannot be traced"
            )
    if not any(difference.expected for difference in differences):
        raise InputError(
            f"{path}: not written, because the network finds no cell in any of the {len(differences)} images that "
            "it is checked on: give images with cells"
        )


def _write(network: TraceableNetwork, card: NetworkCard, image: NDArray[np.uint8], path: Path) -> None:
    example = torch.from_numpy(pad_image(image, card.stride)), torch.tensor(image.shape[1:])
    trace(
        network,
        example,
        path,
        {INPUT_NAME: {1: "height", 2: "width"}, SIZE_NAME: {}},
        {name: {0: "detections"} for name in OUTPUT_NAMES},
        notes={CARD_NAME: card.to_json()},
    )
    if path.suffix == ".onnx":
        _add_card(card, path)


def trace(
    network: nn.Module,
    example: tuple[torch.Tensor, ...],
    path: Path,
    inputs: dict[str, dict[int, str]] | None = None,
    outputs: dict[str, dict[int, str]] | None = None,
    *,
    opset: int = OPSET,
    notes: dict[str, str] | None = None,
) -> None:
    """Run a network on an example and write what it does, as ONNX or by any other suffix as TorchScript.

    Args:
        network: a Detectron2 network with tensors in and tensors out.
        example: its arguments.
        path: of the file.
        inputs: of ONNX: the axes of each argument that stay free, by name.
        outputs: of ONNX: those of each result.
        opset: of ONNX.
        notes: of TorchScript: texts that the file carries.
    """
    with torch.no_grad(), _lengths_that_can_be_traced(), warnings.catch_warnings():
        # Tracing warns of each branch it freezes; whether that matters is what the check finds out.
        warnings.simplefilter("ignore")
        if path.suffix != ".onnx":
            torch.jit.trace(network, example, check_trace=False).save(str(path), _extra_files=notes or {})
            return
        torch.onnx.export(
            network,
            example,
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=list(inputs or {}),
            output_names=list(outputs or {}),
            dynamic_axes={**(inputs or {}), **(outputs or {})},
        )


@contextmanager
def naming_untraceable(path: Path) -> Iterator[None]:
    """Let an error of tracing name the file that was to be written.

    Raises:
        InputError: the network cannot be traced.
    """
    try:
        yield
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: this network cannot be traced ({reason})") from error


def _add_card(card: NetworkCard, path: Path) -> None:
    try:
        import onnx
    except ImportError as error:
        raise InputError(f"{path}: needs onnx; pip install 'bccd_d2[onnx]'") from error
    content = onnx.load(str(path))
    content.producer_name = "bccd_d2"
    content.metadata_props.add(key=CARD_NAME, value=card.to_json())
    onnx.checker.check_model(content)
    onnx.save(content, str(path))


@contextmanager
def _lengths_that_can_be_traced() -> Iterator[None]:
    """Let ``len`` keep its value a tensor inside Detectron2, where the built-in makes it a number and so a constant."""
    modules = [module for name, module in sys.modules.items() if name.startswith(_TRACED_PACKAGES)]
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(mock.patch.object(module, "len", lambda sized: sized.__len__(), create=True))
        yield
