"""Writes a trained model as a package of the BioImage Model Zoo, which QuPath, ilastik, deepImageJ and Fiji read.

A package is a zip: a description in ``rdf.yaml``, the weights as TorchScript and ONNX, an image with the answer that
is expected, and documentation. The answer is a label image (:mod:`bccd_d2.inference.exporting.label_network`).
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import yaml
from detectron2.config import CfgNode
from numpy.typing import NDArray
from tabulate import tabulate

from bccd_d2.errors import InputError
from bccd_d2.files import read_yaml, replacing
from bccd_d2.inference.exporting.export import check_suppression, example_images, naming_untraceable, trace
from bccd_d2.inference.exporting.label_network import LabelNetwork
from bccd_d2.inference.exporting.plain_ops import without_torchvision
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.predictor import BCCDPredictor

LEAST_AGREEMENT = 0.999
"""Share of the pixels whose label must be that of the predictor."""
SMALLEST_SIDE = 64
"""Of an image, pixels."""
_OPSET = 18  # the first whose ScatterElements has a maximum
_FORMAT = "0.5.4"  # later ones, which readers of today convert it to, are unknown to older readers
_TORCHSCRIPT, _ONNX = "labels.pt", "labels.onnx"
_LARGEST_TILE = 1 << 15  # images are never cut


@dataclass(frozen=True)
class PackageTexts:
    """What a package says of a model.

    Attributes:
        license: SPDX identifier.
        authors: their names.
        cite: pairs of a text and a DOI or address.
        card: the model card, Markdown.
    """

    license: str
    authors: Sequence[str]
    cite: Sequence[tuple[str, str]]
    card: str = ""


@dataclass(frozen=True)
class Agreement:
    """How a file of weights labels one image.

    Attributes:
        cells: that the predictor finds.
        equal: shares of the pixels with the predictor's label, by file of weights.
    """

    cells: int
    equal: dict[str, float]


def read_citation(path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Authors of a CITATION.cff, and its references that have a DOI or an address, as :class:`PackageTexts` has them.

    Raises:
        InputError: the file is not there or no such file.
    """
    if not path.is_file():
        raise InputError(
            f"{path} is not there; --citation names a CITATION.cff with the authors of the model"
        )
    content = read_yaml(path)
    try:
        authors = [_name(author) for author in content["authors"]]
        references = content.get("references", [])
        cite = [
            (_reference(one), one.get("doi") or one["url"]) for one in references if {"doi", "url"} & {*one}
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: expected authors and references as in a CITATION.cff") from error
    return authors, cite


def _name(author: dict[str, str]) -> str:
    return author["name"] if "name" in author else f"{author['given-names']} {author['family-names']}"


def _reference(entry: dict[str, Any]) -> str:
    where = entry.get("journal") or entry.get("collection-title")
    authors = ", ".join(_name(author) for author in entry["authors"])
    return f"{authors}: {entry['title']}{f', {where}' if where else ''} ({entry['year']})"


def export_package(
    cfg: CfgNode,
    weights: str,
    path: Path,
    texts: PackageTexts,
    images: Sequence[NDArray[np.uint8]] = (),
    *,
    score_threshold: float,
) -> list[Agreement]:
    """Write a trained model as a package of the BioImage Model Zoo, and check what was written.

    Args:
        cfg: of the training run.
        weights: its checkpoint.
        path: of the zip; replaced if it exists.
        texts: what the package says of the model.
        images: (height, width, 3) uint8 BGR at the magnification of the training images, of different sizes, on which
            the files are checked; the first becomes the package's test and sample. Empty: two synthetic smears and an
            empty background.
        score_threshold: cells below this score are left out.

    Returns:
        How far the files agree with :class:`BCCDPredictor` on each image.

    Raises:
        InputError: a package that this needs is not installed, the network cannot be traced or does not give the
            labels of the predictor, no cell is found, or bioimageio.core finds a fault.
        OSError: the file cannot be written.
    """
    run_test = _bioimageio_test(path)
    if cfg.INPUT.STAIN.ENABLED:
        raise InputError(f"{path}: INPUT.STAIN cannot be part of a package: expected ENABLED False")
    images = images or example_images()
    options = PredictionOptions(score_threshold=score_threshold, tile_size=_LARGEST_TILE)
    predictor = BCCDPredictor(cfg, weights, options, device="cpu", cpu_mode="plain")
    check_suppression(predictor.model, path)
    network = LabelNetwork.from_config(cfg, predictor.model, score_threshold)
    tensors = [_tensor(image) for image in images]
    with tempfile.TemporaryDirectory() as name, replacing(path) as temporary:
        folder = Path(name)
        with naming_untraceable(path):
            with without_torchvision():
                trace(network, (tensors[0],), folder / _TORCHSCRIPT)
            free = {2: "height", 3: "width"}
            trace(network, (tensors[0],), folder / _ONNX, {"image": free}, {"labels": free}, opset=_OPSET)
        expected = [predictor.predict_cells(image).label_image() for image in images]
        found = {file: [run(tensor) for tensor in tensors] for file, run in _runners(folder).items()}
        agreements = [
            Agreement(int(labels.max()), {file: float((found[file][i] == labels).mean()) for file in found})
            for i, labels in enumerate(expected)
        ]
        _check(agreements, path)
        _write_examples(folder, tensors[0], found[_TORCHSCRIPT][0])
        readme = _readme(cfg, predictor.class_names, score_threshold, agreements, texts.card)
        (folder / "README.md").write_text(readme, encoding="utf-8")
        description = yaml.safe_dump(_description(cfg, folder, texts), sort_keys=False, allow_unicode=True)
        (folder / "rdf.yaml").write_text(description, encoding="utf-8")
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as package:
            for file in sorted(folder.iterdir()):
                package.write(file, file.name)
        run_test(temporary)
    return agreements


def _bioimageio_test(path: Path) -> Callable[[Path], None]:
    """What tests a package; an InputError if it is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        from bioimageio.core import test_model
    except ImportError as error:
        raise InputError(f"{path}: needs {error.name}; pip install 'bccd_d2[bioimageio]'") from error

    def run(package: Path) -> None:
        with _torchscript_allowed():
            summary = test_model(package, devices=["cpu"])
        if summary.status != "passed":
            reasons = [f"{detail.name}: {fault.msg}" for detail in summary.details for fault in detail.errors]
            raise InputError(
                f"{path}: not written, because bioimageio.core refuses it ({'; '.join(reasons)})"
            )

    return run


@contextmanager
def _torchscript_allowed() -> Iterator[None]:
    """Hide that torch would rather see torch.export, which cannot export these networks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


def _runners(folder: Path) -> dict[str, Callable[[torch.Tensor], NDArray[np.float32]]]:
    """What runs each file of weights: from (1, 3, H, W) float32 to (H, W) labels."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / _ONNX), providers=["CPUExecutionProvider"])
    with _torchscript_allowed():
        script = torch.jit.load(str(folder / _TORCHSCRIPT))

    def run_script(tensor: torch.Tensor) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(script(tensor)[0, 0].numpy())

    def run_onnx(tensor: torch.Tensor) -> NDArray[np.float32]:
        return np.asarray(session.run(None, {"image": tensor.numpy()})[0][0, 0])

    return {_TORCHSCRIPT: run_script, _ONNX: run_onnx}


def _tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    """(1, 3, H, W) float32 RGB of (H, W, 3) uint8 BGR."""
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))[None]).float()


def _check(agreements: Sequence[Agreement], path: Path) -> None:
    for number, agreement in enumerate(agreements, start=1):
        for file, equal in agreement.equal.items():
            if equal < LEAST_AGREEMENT:
                raise InputError(
                    f"{path}: not written, because {file} gives {equal:.2%} of the pixels of image {number} the label "
                    f"that the predictor gives them, expected {LEAST_AGREEMENT:.1%}: a part of the "
                    "network cannot be traced"
                )
    if not any(agreement.cells for agreement in agreements):
        raise InputError(
            f"{path}: not written, because the network finds no cell in any of the {len(agreements)} images that it "
            "is checked on: give images with cells"
        )


def _write_examples(folder: Path, tensor: torch.Tensor, labels: NDArray[np.float32]) -> None:
    """The package's test, and the same as images for people."""
    np.save(folder / "test_input.npy", tensor.numpy())
    np.save(folder / "test_output.npy", labels[None, None])
    rgb = tensor[0].byte().numpy().transpose(1, 2, 0)
    tifffile.imwrite(folder / "sample_input.tif", rgb, photometric="rgb", compression="zlib")
    tifffile.imwrite(folder / "sample_output.tif", labels.astype(np.uint16), compression="zlib")


def _readme(
    cfg: CfgNode, class_names: Sequence[str], threshold: float, agreements: Sequence[Agreement], card: str
) -> str:
    diameter, microns = cfg.INPUT.CELL_DIAMETER, cfg.INPUT.MICRONS_PER_PIXEL
    size = f"resize it so that a typical red cell is {diameter:g} px wide" if diameter else "do not resize it"
    pixel = f" (about {microns:g} µm per pixel)" if microns else ""
    rows = [
        [number, one.cells, f"{one.equal[_TORCHSCRIPT]:.4%}", f"{one.equal[_ONNX]:.4%}"]
        for number, one in enumerate(agreements, start=1)
    ]
    # Links to other files of the repository lead nowhere here.
    card = re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", re.sub(r"^#", "##", card, flags=re.MULTILINE))
    return f"""# Blood cells in stained smears: label image

Finds {", ".join(class_names)} in photographs of stained blood smears.

- **Input**: one RGB photograph, values 0 to 255, of any size from {SMALLEST_SIDE} px on. Its magnification must be that
  of the training images: {size}{pixel}. Colours need no preparation.
- **Output**: a label image of the same size: 0 is the background, 1 the cell with the best score, 2 the next one,
  and so on. Where cells overlap, the better one is on top. Cells with a score below {threshold:g} are left out.
- Give the whole photograph at once: tiles would number their cells separately and cut those at their borders.
- The TorchScript file runs on the CPU, and needs nothing but torch.

## Validation

Share of the pixels that have the same label as with the PyTorch model, on the images that the package was checked on:

{tabulate(rows, ["image", "cells", "TorchScript", "ONNX"], tablefmt="pipe")}

To validate on images of your own, resize them as above and compare the label image with outlines drawn by hand: at
an intersection over union of 0.5, count the cells that are found, missed and added.

{card}"""


def _description(cfg: CfgNode, folder: Path, texts: PackageTexts) -> dict[str, Any]:
    """The content of rdf.yaml.

    It does not say the size of a pixel: readers multiply and divide the number of rows by it, and lose one to rounding.
    """

    def source(name: str) -> dict[str, str]:
        return {"source": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}

    def axes(channels: list[str], size: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
        plane = [{"type": "space", "id": axis, "size": size(axis)} for axis in "yx"]
        return [{"type": "batch", "size": 1}, {"type": "channel", "channel_names": channels}, *plane]

    def tensor(name: str, file: str, largest: float, axes: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": name,
            "axes": axes,
            "data": {"type": "float32", "range": [0.0, largest]},
            "test_tensor": source(f"test_{file}.npy"),
            "sample_tensor": source(f"sample_{file}.tif"),
        }

    rgb = axes(["red", "green", "blue"], lambda axis: {"min": SMALLEST_SIDE, "step": 1})
    label = axes(["label"], lambda axis: {"tensor_id": "image", "axis_id": axis})
    return {
        "format_version": _FORMAT,
        "type": "model",
        "name": "Blood cells in stained smears",
        "description": "Mask R-CNN that finds every cell of a stained blood smear: from a photograph to a label image.",
        "authors": [{"name": name} for name in texts.authors],
        "cite": [{"text": text, "url" if "://" in link else "doi": link} for text, link in texts.cite],
        "license": texts.license,
        "documentation": "README.md",
        "tags": [
            *("2d", "transmission-light-microscopy", "cells", "pytorch", "resnet", "instance-segmentation"),
            *("fiji", "deepimagej", "ilastik", "blood", "mask-rcnn"),
        ],
        "inputs": [tensor("image", "input", 255.0, rgb)],
        "outputs": [tensor("labels", "output", float(cfg.TEST.DETECTIONS_PER_IMAGE), label)],
        "weights": {
            "torchscript": {**source(_TORCHSCRIPT), "pytorch_version": torch.__version__.partition("+")[0]},
            "onnx": {**source(_ONNX), "opset_version": _OPSET, "parent": "torchscript"},
        },
        "config": {"bioimageio": {"reproducibility_tolerance": [{"mismatched_elements_per_million": 1000}]}},
    }
