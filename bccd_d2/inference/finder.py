"""From one image to its cells, whatever runs the network. Needs neither torch nor Detectron2."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.data.preprocessing import resize_image, scaled_size
from bccd_d2.errors import InputError
from bccd_d2.inference.classical import split_merged, without_overlaps
from bccd_d2.inference.magnification import (
    Detected,
    DiameterEstimate,
    DiameterEstimator,
    Magnification,
    red_cell_classes,
)
from bccd_d2.inference.tiling import Tile, candidates, is_empty, merge_tiles, plan_tiles
from bccd_d2.inference.tta import TestTimeAugmentation, predict_views, views_of
from bccd_d2.io.sources import ArraySource, ImageSource, sample_image
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.detections import Detections

if TYPE_CHECKING:
    from bccd_d2.data.preprocessing import ColorNormalizer, ColorStatistics

AUTO: Literal["auto"] = "auto"
"""As a diameter: estimate it."""

# Features of the coarsest level of the pyramid, P6, are as many network pixels apart.
_COARSEST_STRIDE = 64
_OVERLAP_DIAMETERS = 2
_UNKNOWN_OVERLAP = 256


@dataclass(frozen=True)
class PredictionOptions:
    """How images are predicted.

    Lengths are in pixels of the image at the magnification the model was trained at: native pixels, unless
    ``diameter``, ``microns_per_pixel`` or ``scale`` say that the image is magnified otherwise.

    Attributes:
        score_threshold: leave out cells below this score; the model itself leaves out those below
            ``MODEL.ROI_HEADS.SCORE_THRESH_TEST``.
        tile_size: side of a tile. An image of no more pixels than one tile goes through the network whole.
        overlap: how far neighbouring tiles overlap; more than most cells. Those that are larger are joined from their
            pieces. ``None``: two diameters of a typical cell of the training images, or 256 where that is not known.
        batch_size: tiles that go through the network together; 0 for as many as fit the memory.
        augmentation: views to predict and merge; ``None`` for what ``TEST.TTA`` says.
        diameter: of a typical cell in native pixels of the image, which is resized so that it becomes
            ``INPUT.CELL_DIAMETER``; "auto" estimates that of the red cells where neither ``scale`` nor microns per
            pixel say how the image is magnified, see :mod:`bccd_d2.inference.magnification`.
        microns_per_pixel: of the image, in place of what its file says; it is resized so that it becomes
            ``INPUT.MICRONS_PER_PIXEL``, unless a number is given as ``diameter``.
        scale: the factor itself: pixels at the training magnification per native pixel. Wins over both.
        split_touching: cut masks that look like several touching cells by a watershed, see
            :func:`bccd_d2.inference.classical.split_merged`.
        no_overlap: give each pixel to one cell at most, see :func:`bccd_d2.inference.classical.without_overlaps`.
    """

    score_threshold: float = 0.0
    tile_size: int = 1664
    overlap: int | None = None
    batch_size: int = 0
    augmentation: TestTimeAugmentation | None = None
    diameter: float | Literal["auto"] | None = None
    microns_per_pixel: float | None = None
    scale: float | None = None
    split_touching: bool = False
    no_overlap: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold <= 1:
            raise InputError(f"score_threshold: expected a number from 0 to 1, found {self.score_threshold}")
        if self.overlap is not None and not 0 <= self.overlap <= self.tile_size / 2:
            raise InputError(
                f"overlap: expected 0 to half the tile size ({self.tile_size}), found {self.overlap}"
            )
        if self.tile_size < 64:
            raise InputError(f"tile_size: expected at least 64, found {self.tile_size}")
        if self.batch_size < 0:
            raise InputError(
                f"batch_size: expected 0 (what fits the memory) or more, found {self.batch_size}"
            )
        for name in ("diameter", "microns_per_pixel", "scale"):
            value = getattr(self, name)
            allowed = value is None or (name == "diameter" and value == AUTO)
            if not allowed and not (isinstance(value, int | float) and 0 < value < math.inf):
                raise InputError(f"{name}: expected a number above 0, found {value!r}")


DEFAULT_OPTIONS = PredictionOptions()


def detections_in(
    height: int,
    width: int,
    boxes: NDArray[np.float32],
    classes: NDArray[np.int64],
    scores: NDArray[np.float32],
    masks: NDArray[np.float32],
) -> Detections:
    """What a network found in an image, its boxes cut at the image's border; those outside are left out."""
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    inside = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    return Detections(height, width, boxes, classes, scores, masks)[inside]


class Detector(Protocol):
    """What runs the network."""

    @property
    def batch_size(self) -> int:
        """Number of images that are best given together."""

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of prepared images (h, w, 3) uint8, in network pixels."""


class CellFinder:
    """Finds the cells of images of any size: resizes, cuts into tiles, runs the network, and puts together.

    Attributes:
        class_names: by class index.
        options: used where a call is given none.
        training_diameter: of the median cell of the training images, pixels; 0 if not known.

    Args:
        network: what runs the network.
        class_names: by class index.
        scale: network pixels per pixel at the magnification the network was trained at.
        image_format: "BGR" or "RGB", what the network expects.
        colors: white balance and stain normalization, or None for neither.
        most_detections: that the network returns of an image.
        training_diameter: of the median cell of the training images, pixels; 0 if not known.
        training_microns: microns per pixel of the training images; 0 if not known.
        augmentation: views to predict where the options say nothing.
        options: used where a call is given none.
    """

    def __init__(
        self,
        network: Detector,
        class_names: Sequence[str],
        *,
        scale: float,
        image_format: str,
        colors: ColorNormalizer | None,
        most_detections: int,
        training_diameter: float,
        training_microns: float,
        augmentation: TestTimeAugmentation | None = None,
        options: PredictionOptions = DEFAULT_OPTIONS,
    ) -> None:
        self.network = network
        self.class_names = list(class_names)
        self.options = options
        self._scale = scale
        self._image_format = image_format
        self._colors = colors
        self._most_detections = most_detections
        self.training_diameter = training_diameter
        self._training_microns = training_microns
        self._augmentation = augmentation

    def predict_cells(
        self,
        image: NDArray[np.uint8],
        options: PredictionOptions | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Cells:
        """Predict one image, with masks as large as the cells.

        Args:
            image: (height, width, 3) uint8, BGR as OpenCV reads it.
            options: in place of the predictor's own.
            progress: called with the number of tiles done and of all tiles.

        Returns:
            In native pixels, best score first.
        """
        return self.predict_source(ArraySource(image), options, progress=progress)

    def predict_source(
        self,
        source: ImageSource,
        options: PredictionOptions | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Cells:
        """Predict an image that is read tile by tile, see :func:`bccd_d2.io.images.open_source`.

        Args:
            source: the image.
            options: in place of the predictor's own.
            progress: called with the number of tiles done and of all tiles.

        Returns:
            In native pixels, best score first; every cell has at least one pixel.

        Raises:
            InputError: the source cannot be decoded, or see :meth:`magnification_of`.
        """
        options = options or self.options
        scale = self.magnification_of(source, options).scale
        overlap = self._overlap(options) / scale
        tiles = plan_tiles(
            source.height,
            source.width,
            round(options.tile_size / scale),
            round(overlap),
            _whole_number(_COARSEST_STRIDE / (scale * self._scale)),
        )
        statistics = self._statistics(source)
        found = [Cells.from_masks(source.height, source.width, [])] * len(tiles)
        full = done = 0

        def read(tile: Tile) -> NDArray[np.uint8]:
            image = self._in_network_order(source.read(tile.x, tile.y, tile.width, tile.height))
            return self._prepare(image, scale, statistics)

        batch_size = options.batch_size or self.network.batch_size
        for numbers, images in _read_ahead(read, tiles, batch_size):
            batch = [tiles[number] for number in numbers]
            for number, cells in zip(numbers, self._predict_tiles(images, batch, options)):
                full += len(cells) >= self._most_detections
                cells = cells[(cells.scores >= options.score_threshold) & (cells.areas > 0)]
                if options.split_touching:
                    cells = split_merged(cells)
                found[number] = candidates(cells, tiles[number], source.height, source.width, overlap)
            done = numbers[-1] + 1
            if progress is not None:
                progress(done, len(tiles))
        if progress is not None and done < len(tiles):  # the last ones are empty
            progress(len(tiles), len(tiles))
        if full:
            logging.getLogger(__name__).warning(
                "%s: in %d of %d tiles the model found as many cells as it may (TEST.DETECTIONS_PER_IMAGE %d); "
                "more: --max-detections, or a smaller --tile",
                source.name, full, len(tiles), self._most_detections,
            )  # fmt: skip
        merged = merge_tiles(tiles, found)
        return without_overlaps(merged) if options.no_overlap else merged

    def magnification_of(
        self,
        source: ImageSource,
        options: PredictionOptions | None = None,
        estimate: DiameterEstimate | None = None,
    ) -> Magnification:
        """How a source is magnified: what ``scale``, ``diameter`` or microns per pixel say, in this order.

        Args:
            source: the image.
            options: in place of the predictor's own.
            estimate: of the diameter, for ``diameter="auto"``; ``None`` to make it of this image, where it is needed.

        Raises:
            InputError: ``microns_per_pixel`` or ``diameter`` is given and the configuration does not know that of the
                training data.
        """
        options = options or self.options
        if options.scale is not None:
            return Magnification(options.scale, "scale")
        if options.diameter not in (None, AUTO) and not self.training_diameter:
            raise InputError(
                "diameter is given, but INPUT.CELL_DIAMETER of the configuration is 0: set it to the median cell "
                "diameter of the training images in pixels"
            )
        if options.diameter is not None and options.diameter != AUTO:
            return Magnification(self.training_diameter / options.diameter, "diameter", options.diameter)
        if options.microns_per_pixel is not None and not self._training_microns:
            raise InputError(
                "microns_per_pixel is given, but INPUT.MICRONS_PER_PIXEL of the configuration is 0: set it to that of "
                "the training images"
            )
        if self.knows_microns_of(source, options):
            microns = options.microns_per_pixel or source.microns_per_pixel or 0.0
            return Magnification(microns / self._training_microns, "microns")
        if options.diameter != AUTO or not self.training_diameter:
            return Magnification(1.0)
        estimate = estimate or self.estimate_diameter(source)
        if estimate.diameter is None:
            return Magnification(1.0, f"not estimated: {estimate.doubt}")
        origin = f"estimated, unsure: {estimate.doubt}" if estimate.doubt else "estimated"
        return Magnification(self.training_diameter / estimate.diameter, origin, estimate.diameter)

    def knows_microns_of(self, source: ImageSource, options: PredictionOptions | None = None) -> bool:
        """Whether a source can be resized by its microns per pixel and those of the training images."""
        microns = (options or self.options).microns_per_pixel or source.microns_per_pixel
        return bool(microns and self._training_microns)

    def estimate_diameter(self, source: ImageSource) -> DiameterEstimate:
        """Estimate the diameter of a source's red cells in native pixels, see :class:`DiameterEstimator`.

        Raises:
            InputError: the source cannot be decoded.
        """
        statistics = self._statistics(source)

        def detect(image: NDArray[np.uint8]) -> Detected:
            prepared = self._prepare(self._in_network_order(image), 1.0, statistics)
            found = self._detect_few(prepared).resized(*image.shape[:2])
            return found.boxes, found.scores, found.classes

        return DiameterEstimator(detect, self.training_diameter, red_cell_classes(self.class_names)).estimate(
            source
        )

    def prepare(self, image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
        """A whole image as the network takes it.

        Args:
            image: (height, width, 3) uint8, BGR.
            scale: pixels at the magnification of the training images per native pixel.

        Returns:
            (h, w, 3) uint8 in network pixels and the network's colour order.
        """
        return self._prepare(self._in_network_order(image), scale, self._statistics(ArraySource(image)))

    def _detect_few(self, image: NDArray[np.uint8]) -> Detections:
        """Detections of one prepared image that shows a few dozen cells at most."""
        return self.network([image])[0]

    def _overlap(self, options: PredictionOptions) -> float:
        """Of tiles, in pixels at the magnification of the training images."""
        if options.overlap is not None:
            return options.overlap
        diameters = _OVERLAP_DIAMETERS * self.training_diameter
        return min(round(diameters) or _UNKNOWN_OVERLAP, options.tile_size // 2)

    def _statistics(self, source: ImageSource) -> ColorStatistics | None:
        if self._colors is None or not self._colors.active:
            return None
        return self._colors.statistics(self._in_network_order(sample_image(source)))

    def _in_network_order(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._image_format == "BGR":
            return image
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

    def _prepare(
        self, image: NDArray[np.uint8], scale: float, statistics: ColorStatistics | None
    ) -> NDArray[np.uint8]:
        """An image in the network's colour order as the network takes it; ``scale``: training per native pixel."""
        image = resize_image(image, *scaled_size(image.shape[0], image.shape[1], scale * self._scale))
        return image if self._colors is None or statistics is None else self._colors.apply(image, statistics)

    def _predict_tiles(
        self, images: Sequence[NDArray[np.uint8]], tiles: Sequence[Tile], options: PredictionOptions
    ) -> Iterator[Cells]:
        """Cells of prepared tiles, in native pixels of each tile."""
        augmentation = options.augmentation or self._augmentation
        if augmentation is None:
            for detections, tile in zip(self.network(images), tiles):
                yield detections.resized(tile.height, tile.width).paste()
        else:
            views = views_of(augmentation)
            for image, tile in zip(images, tiles):
                yield predict_views(
                    self.network, image, views, tile.height, tile.width, self._most_detections
                )


def _whole_number(value: float) -> int:
    """``value`` if it is whole, else 1."""
    return round(value) if value >= 1 and abs(value - round(value)) < 1e-6 else 1


def _read_ahead(
    read: Callable[[Tile], NDArray[np.uint8]], tiles: Sequence[Tile], batch_size: int
) -> Iterator[tuple[list[int], list[NDArray[np.uint8]]]]:
    """Batches of the tiles that may show cells, as their numbers and images.

    One batch is read while the one before it is worked on. The only tile of an image is never left out.
    """
    numbers = iter(range(len(tiles)))

    def read_batch() -> tuple[list[int], list[NDArray[np.uint8]]]:
        chosen: list[int] = []
        images: list[NDArray[np.uint8]] = []
        for number in numbers:
            image = read(tiles[number])
            if len(tiles) == 1 or not is_empty(image):
                chosen.append(number)
                images.append(image)
                if len(chosen) == batch_size:
                    break
        return chosen, images

    with ThreadPoolExecutor(max_workers=1) as reader:
        chosen, images = reader.submit(read_batch).result()
        while chosen:
            following = reader.submit(read_batch)
            yield chosen, images
            chosen, images = following.result()
