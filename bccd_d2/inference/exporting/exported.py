"""Networks in one file that find cells without Detectron2, and without torch where the file is ONNX."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bccd_d2.data.preprocessing import ColorNormalizer, ImagePreprocessor
from bccd_d2.data.stain import ReinhardNormalizer, StainTarget
from bccd_d2.errors import InputError
from bccd_d2.inference.finder import CellFinder, detections_in
from bccd_d2.inference.options import DEFAULT_OPTIONS, PredictionOptions
from bccd_d2.structures.detections import Detections

Precision = Literal["float32", "bfloat16"]
"""Of the weights and features of a network; coordinates are always float32."""
INPUT_NAME = "image"
OUTPUT_NAMES = ("boxes", "scores", "classes", "masks")
CARD_NAME = "bccd_d2"
"""Under this name a file carries its :class:`NetworkCard` as JSON."""
SIZE_NAME = "size"
SUFFIXES = (".onnx", ".ts")
"""Of ONNX and of TorchScript files."""
_CARD_VERSION = 2  # 1: the network padded its image itself


class NetworkOutput(NamedTuple):
    """What a network finds in one image, in network pixels, best score first."""

    boxes: NDArray[np.float32]  # (N, 4) float32 xyxy
    scores: NDArray[np.float32]  # (N,) float32 in [0, 1]
    classes: NDArray[np.int64]  # (N,) int64 class indices
    masks: NDArray[np.float32]  # (N, 1, M, M) float32: probability of being cell, on a grid over the box


@dataclass(frozen=True)
class NetworkCard:
    """What a user of an exported network must know beside its weights."""

    class_names: tuple[str, ...]  # by class index
    scale: float  # network pixels per native pixel
    image_format: str  # "BGR" or "RGB", the colour order of the network's input
    most_detections: int  # that the network returns of an image
    stride: int  # height and width of the network's input are multiples of it, see :func:`pad_image`
    cell_diameter: float = 0.0  # of the median cell of the training images, pixels; 0 if not known
    microns_per_pixel: float = 0.0  # of the training images; 0 if not known
    stain: dict[str, Any] | None = None  # arguments of ``ReinhardNormalizer``; ``None`` without normalization
    white_balance: bool = False
    cell_density: tuple[float, ...] = ()  # see ``ColorNormalizer``

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps({"version": _CARD_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | bytes, path: Path) -> NetworkCard:
        """From what :meth:`to_json` wrote; an :class:`InputError` for another text, found in ``path``."""
        try:
            content = json.loads(text)
            version = content.pop("version")
            card = cls(**content | {"class_names": tuple(content["class_names"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{path}: not a network that tools/export_model.py wrote (its {CARD_NAME!r} entry cannot be read)"
            ) from error
        if version != _CARD_VERSION:
            raise InputError(f"{path}: export format {version}, expected {_CARD_VERSION}: export it again")
        return card


def pad_image(image: NDArray[np.uint8], stride: int) -> NDArray[np.uint8]:
    """Pad (3, height, width) at the right and below to multiples of ``stride``.

    This lies outside the exported graph, which only tells the padding by the image's size: OpenVINO runs no graph that
    pads by a size it does not know beforehand.
    """
    height, width = image.shape[1:]
    return np.pad(image, ((0, 0), (0, -height % stride), (0, -width % stride)))


class ExportedNetwork:
    """A network that was loaded from one file, which takes one image at a time; see :func:`open_network`.

    ``run_padded`` runs it on the padded image (3, H, W) and its size (2,) without the padding, and gives the arrays of
    :class:`NetworkOutput`.
    """

    batch_size = 1

    def __init__(
        self,
        card: NetworkCard,
        run_padded: Callable[[NDArray[np.uint8], NDArray[np.int64]], Iterable[NDArray]],
    ) -> None:
        self.card, self._run_padded = card, run_padded

    def run(self, image: NDArray[np.uint8]) -> NetworkOutput:
        """Run the network on (3, height, width) uint8 in ``card.image_format``, network pixels, of any size."""
        size = np.array(image.shape[1:], np.int64)
        return NetworkOutput(*self._run_padded(pad_image(image, self.card.stride), size))

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of prepared images (h, w, 3) uint8, see :class:`bccd_d2.inference.predictor.Network`."""
        found = []
        for image in images:
            boxes, scores, classes, masks = self.run(np.ascontiguousarray(image.transpose(2, 0, 1)))
            found.append(detections_in(image.shape[0], image.shape[1], boxes, classes, scores, masks[:, 0]))
        return found


def open_network(
    path: str | Path, *, engine: str = "onnx", threads: int = 0, precision: Precision = "float32"
) -> ExportedNetwork:
    """Load a network that ``tools/export_model.py`` wrote, by its file's suffix: ``.onnx`` or ``.ts``.

    An ONNX file is run by ``engine``, "onnx" (onnxruntime, extra ``onnx``) or "openvino" (extra ``openvino``), an image
    by ``threads``, 0 for one per core; TorchScript by torch and its own setting. ``precision`` is that of OpenVINO;
    the others always use float32. Raises :class:`InputError` if the suffix is another, the file is not such a network,
    or what runs it is not installed; :class:`OSError` if the file is not there.
    """
    path = Path(path)
    check_suffix(path)
    path.open("rb").close()  # onnxruntime's words for a missing file are not as clear as the system's
    if path.suffix == ".ts":
        return _open_torchscript(path)
    if engine == "openvino":
        return _open_openvino(path, threads, precision)
    return _open_onnx(path, threads)


def _open_onnx(path: Path, threads: int) -> ExportedNetwork:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{path}: needs onnxruntime; pip install 'bccd_d2[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Warnings about the graph are for who exported it; errors are raised anyway.
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a kind of its own for each thing that can be wrong
        raise InputError(f"{path}: not an ONNX model that onnxruntime can run ({error})") from error
    card = NetworkCard.from_json(session.get_modelmeta().custom_metadata_map.get(CARD_NAME, ""), path)
    return ExportedNetwork(
        card, lambda image, size: session.run(list(OUTPUT_NAMES), {INPUT_NAME: image, SIZE_NAME: size})
    )


def _open_openvino(path: Path, threads: int, precision: Precision) -> ExportedNetwork:
    try:
        import openvino
    except ImportError as error:
        raise InputError(f"{path}: needs OpenVINO; pip install 'bccd_d2[openvino]'") from error
    # Where a CPU has bfloat16 it would be the default.
    hint = "bf16" if precision == "bfloat16" else "f32"
    settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    core = openvino.Core()
    try:
        model = core.read_model(str(path))
        entries = model.get_rt_info()["framework"]
        card = entries[CARD_NAME].astype(str) if CARD_NAME in entries else ""
        if precision == "bfloat16":
            _keep_regions_exact(model)
        network = core.compile_model(model, "CPU", settings)
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: not an ONNX model that OpenVINO can run ({reason})") from error

    def run(image: NDArray[np.uint8], size: NDArray[np.int64]) -> list[NDArray]:
        found = network({INPUT_NAME: image, SIZE_NAME: size})
        return [np.array(found[name]) for name in OUTPUT_NAMES]

    return ExportedNetwork(NetworkCard.from_json(card, path), run)


def _keep_regions_exact(model: Any) -> None:
    """Let OpenVINO compute the boxes that features are pooled from in float32, whatever the precision of the rest.

    It keeps what lies between the last heavy layers and the outputs in float32, so the boxes become outputs. With
    bfloat16 a box at 500 px is off by up to 2 px.
    """
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "ROIAlign":
            model.add_outputs([operation.input_value(1)])


def _open_torchscript(path: Path) -> ExportedNetwork:
    try:
        import torch
        import torchvision  # noqa: F401  brings the operators that the file names
    except ImportError as error:
        raise InputError(f"{path}: needs torch and torchvision; pip install 'bccd_d2[train]'") from error
    entries = {CARD_NAME: b""}
    try:
        with warnings.catch_warnings():
            # torch would rather see torch.export, which cannot export these networks.
            warnings.filterwarnings("ignore", category=FutureWarning)
            network = torch.jit.load(str(path), map_location="cpu", _extra_files=entries)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: not a TorchScript file ({reason})") from error

    @torch.no_grad()
    def run(image: NDArray[np.uint8], size: NDArray[np.int64]) -> list[NDArray]:
        return [tensor.numpy() for tensor in network(torch.from_numpy(image), torch.from_numpy(size))]

    return ExportedNetwork(NetworkCard.from_json(entries[CARD_NAME], path), run)


class ExportedPredictor(CellFinder):
    """Finds the cells of images of any size with an exported network, as
    :class:`bccd_d2.inference.predictor.BCCDPredictor` does.

        predictor = ExportedPredictor("cells.onnx")
        cells = predictor.predict_cells(cv2.imread("smear.png"))
        print(len(cells), cells.scores, cells.areas)

    ``options`` are used where a call is given none; the rest, and what is raised, as :func:`open_network`.
    """

    def __init__(
        self,
        path: str | Path,
        options: PredictionOptions = DEFAULT_OPTIONS,
        *,
        engine: str = "onnx",
        threads: int = 0,
        precision: Precision = "float32",
    ) -> None:
        network = open_network(path, engine=engine, threads=threads, precision=precision)
        card = network.card
        stain = None
        if card.stain is not None:
            target = StainTarget(**card.stain["target"])
            stain = ReinhardNormalizer(target, image_format=card.stain["image_format"])
        super().__init__(
            network,
            card.class_names,
            ImagePreprocessor(
                card.scale, ColorNormalizer(card.white_balance, card.cell_density, stain), card.image_format
            ),
            most_detections=card.most_detections,
            training_diameter=card.cell_diameter,
            training_microns=card.microns_per_pixel,
            options=options,
        )


def check_suffix(path: Path) -> None:
    """Raise :class:`InputError` for what is neither ONNX nor TorchScript by its name."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: expected a file that ends with {' or '.join(SUFFIXES)}")
