"""Networks in one file that find cells without Detectron2, and without torch where the file is ONNX."""

from __future__ import annotations

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bccd_d2.data.preprocessing import ColorNormalizer
from bccd_d2.errors import InputError
from bccd_d2.inference.finder import DEFAULT_OPTIONS, CellFinder, PredictionOptions, detections_in
from bccd_d2.structures.detections import Detections

INPUT_NAME = "image"
OUTPUT_NAMES = ("boxes", "scores", "classes", "masks")
CARD_NAME = "bccd_d2"
"""Under this name a file carries its :class:`NetworkCard` as JSON."""
SIZE_NAME = "size"
SUFFIXES = (".onnx", ".ts")
"""Of ONNX and of TorchScript files."""
_CARD_VERSION = 2  # 1: the network padded its image itself


class NetworkOutput(NamedTuple):
    """What a network finds in one image, in network pixels, best score first.

    Attributes:
        boxes: (N, 4) float32 xyxy.
        scores: (N,) float32 in [0, 1].
        classes: (N,) int64 class indices.
        masks: (N, 1, M, M) float32: probability of being cell, on a grid over the box.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    masks: NDArray[np.float32]


@dataclass(frozen=True)
class NetworkCard:
    """What a user of an exported network must know beside its weights.

    Attributes:
        class_names: by class index.
        scale: network pixels per native pixel.
        image_format: "BGR" or "RGB", the colour order of the network's input.
        most_detections: that the network returns of an image.
        stride: height and width of the network's input are multiples of it, see :func:`pad_image`.
        cell_diameter: of the median cell of the training images, pixels; 0 if not known.
        microns_per_pixel: of the training images; 0 if not known.
        stain: arguments of :class:`bccd_d2.data.stain.ReinhardNormalizer`; ``None`` where images are not normalized.
        white_balance: see :class:`bccd_d2.data.preprocessing.ColorNormalizer`.
    """

    class_names: tuple[str, ...]
    scale: float
    image_format: str
    most_detections: int
    stride: int
    cell_diameter: float = 0.0
    microns_per_pixel: float = 0.0
    stain: dict[str, Any] | None = None
    white_balance: bool = False

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps({"version": _CARD_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | bytes, path: Path) -> NetworkCard:
        """From what :meth:`to_json` wrote.

        Raises:
            InputError: the text is something else; ``path`` is where it was found.
        """
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


class ExportedNetwork(ABC):
    """A network that was loaded from one file; it takes one image at a time.

    Attributes:
        card: what the file says about itself.
    """

    card: NetworkCard
    batch_size = 1

    def run(self, image: NDArray[np.uint8]) -> NetworkOutput:
        """Run the network.

        Args:
            image: (3, height, width) uint8 in ``card.image_format``, network pixels, of any size.
        """
        return self._run(pad_image(image, self.card.stride), np.array(image.shape[1:], np.int64))

    @abstractmethod
    def _run(self, image: NDArray[np.uint8], size: NDArray[np.int64]) -> NetworkOutput:
        """Run the network on a padded image, ``size`` being its height and width without the padding."""

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of prepared images (h, w, 3) uint8, see :class:`bccd_d2.inference.predictor.Network`."""
        return [self._detections(image) for image in images]

    def _detections(self, image: NDArray[np.uint8]) -> Detections:
        height, width = image.shape[:2]
        boxes, scores, classes, masks = self.run(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return detections_in(height, width, boxes, classes, scores, masks[:, 0])


class OnnxNetwork(ExportedNetwork):
    """An ONNX file, run by onnxruntime (extra ``onnx``).

    Args:
        path: that ``tools/export_model.py`` wrote.
        threads: that one image uses; 0 for one a core.
        providers: of onnxruntime, first choice first.

    Raises:
        InputError: onnxruntime is not installed, or the file is not such a network.
    """

    def __init__(
        self, path: Path, *, threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(f"{path}: needs onnxruntime; pip install 'bccd_d2[onnx]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Warnings about the graph are for who exported it; errors are raised anyway.
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # onnxruntime has a kind of its own for each thing that can be wrong
            raise InputError(f"{path}: not an ONNX model that onnxruntime can run ({error})") from error
        entries = self._session.get_modelmeta().custom_metadata_map
        self.card = NetworkCard.from_json(entries.get(CARD_NAME, ""), path)

    def _run(self, image: NDArray[np.uint8], size: NDArray[np.int64]) -> NetworkOutput:
        return NetworkOutput(*self._session.run(list(OUTPUT_NAMES), {INPUT_NAME: image, SIZE_NAME: size}))


class OpenVinoNetwork(ExportedNetwork):
    """An ONNX file, run by OpenVINO on the CPU (extra ``openvino``).

    Args:
        path: that ``tools/export_model.py`` wrote.
        threads: that one image uses; 0 for one a core.

    Raises:
        InputError: OpenVINO is not installed, or the file is not such a network.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        try:
            import openvino
        except ImportError as error:
            raise InputError(f"{path}: needs OpenVINO; pip install 'bccd_d2[openvino]'") from error
        # Where a CPU has bfloat16 it would be the default.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        core = openvino.Core()
        try:
            model = core.read_model(str(path))
            entries = model.get_rt_info()["framework"]
            card = entries[CARD_NAME].astype(str) if CARD_NAME in entries else ""
            self._network = core.compile_model(model, "CPU", settings)
        except (RuntimeError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{path}: not an ONNX model that OpenVINO can run ({reason})") from error
        self.card = NetworkCard.from_json(card, path)

    def _run(self, image: NDArray[np.uint8], size: NDArray[np.int64]) -> NetworkOutput:
        found = self._network({INPUT_NAME: image, SIZE_NAME: size})
        return NetworkOutput(*(np.array(found[name]) for name in OUTPUT_NAMES))


class TorchScriptNetwork(ExportedNetwork):
    """A TorchScript file, run by torch.

    Args:
        path: that ``tools/export_model.py`` wrote.

    Raises:
        InputError: torch is not installed, or the file is not such a network.
    """

    def __init__(self, path: Path) -> None:
        try:
            import torch
            import torchvision  # noqa: F401  brings the operators that the file names
        except ImportError as error:
            raise InputError(f"{path}: needs torch and torchvision; pip install 'bccd_d2[train]'") from error
        self._torch = torch
        entries = {CARD_NAME: b""}
        try:
            with warnings.catch_warnings():
                # torch would rather see torch.export, which cannot export these networks.
                warnings.filterwarnings("ignore", category=FutureWarning)
                self._network = torch.jit.load(str(path), map_location="cpu", _extra_files=entries)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{path}: not a TorchScript file ({reason})") from error
        self.card = NetworkCard.from_json(entries[CARD_NAME], path)

    def _run(self, image: NDArray[np.uint8], size: NDArray[np.int64]) -> NetworkOutput:
        with self._torch.no_grad():
            outputs = self._network(self._torch.from_numpy(image), self._torch.from_numpy(size))
        return NetworkOutput(*(tensor.numpy() for tensor in outputs))


class ExportedPredictor(CellFinder):
    """Finds the cells of images of any size with an exported network, as
    :class:`bccd_d2.inference.predictor.BCCDPredictor` does.

    Example:

        predictor = ExportedPredictor("cells.onnx")
        cells = predictor.predict_cells(cv2.imread("smear.png"))
        print(len(cells), cells.scores, cells.areas)

    Args:
        path: that ``tools/export_model.py`` wrote.
        options: used where a call is given none.
        engine: see :func:`open_network`.
        threads: see :func:`open_network`.

    Raises:
        InputError: the file is not such a network, or what runs it is not installed.
        OSError: the file is not there.
    """

    def __init__(
        self,
        path: str | Path,
        options: PredictionOptions = DEFAULT_OPTIONS,
        *,
        engine: str = "onnx",
        threads: int = 0,
    ) -> None:
        network = open_network(path, engine=engine, threads=threads)
        card = network.card
        stain = None
        if card.stain is not None:
            # Its module needs Detectron2, which a network without this step does not.
            from bccd_d2.data.stain import ReinhardNormalizer, StainTarget

            stain = ReinhardNormalizer(
                StainTarget(**card.stain["target"]), image_format=card.stain["image_format"]
            )
        super().__init__(
            network,
            card.class_names,
            scale=card.scale,
            image_format=card.image_format,
            colors=ColorNormalizer(card.white_balance, stain),
            most_detections=card.most_detections,
            training_diameter=card.cell_diameter,
            training_microns=card.microns_per_pixel,
            options=options,
        )


def open_network(path: str | Path, *, engine: str = "onnx", threads: int = 0) -> ExportedNetwork:
    """Load a network by its file's suffix: ``.onnx`` or ``.ts``.

    Args:
        path: that ``tools/export_model.py`` wrote.
        engine: what runs an ONNX file: "onnx" (onnxruntime) or "openvino".
        threads: see :class:`OnnxNetwork`; TorchScript goes by torch's own setting.

    Raises:
        InputError: the suffix is another, or the file is not such a network.
        OSError: the file is not there.
    """
    path = Path(path)
    check_suffix(path)
    path.open("rb").close()  # onnxruntime's words for a missing file are not as clear as the system's
    if path.suffix == ".ts":
        return TorchScriptNetwork(path)
    return (OpenVinoNetwork if engine == "openvino" else OnnxNetwork)(path, threads=threads)


def check_suffix(path: Path) -> None:
    """Refuse what is neither ONNX nor TorchScript by its name.

    Raises:
        InputError: the suffix is another.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: expected a file that ends with {' or '.join(SUFFIXES)}")
