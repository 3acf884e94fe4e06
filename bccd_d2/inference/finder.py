"""From one image to its cells, whatever runs the network. Needs neither torch nor Detectron2."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.data.preprocessing import ColorStatistics, ImagePreprocessor, resize_image, scaled_size
from bccd_d2.errors import InputError
from bccd_d2.inference.magnification import DiameterEstimate, DiameterEstimator, Magnification
from bccd_d2.inference.options import AUTO, DEFAULT_OPTIONS, PredictionOptions
from bccd_d2.inference.postprocessing import split_merged, without_overlaps
from bccd_d2.inference.tiling import Tile, candidates, is_empty, merge_tiles, plan_tiles
from bccd_d2.inference.tta import TestTimeAugmentation, predict_images
from bccd_d2.io.sources import ArraySource, ImageSource, sample_image
from bccd_d2.structures.cell_kinds import red_cell_classes
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.detections import Detections

Progress = Callable[[int, int], None]
"""Called with the number of tiles done and of all tiles."""

# Features of the coarsest level of the pyramid, P6, are as many network pixels apart.
_COARSEST_STRIDE = 64
_OVERLAP_DIAMETERS = 2
_UNKNOWN_OVERLAP = 256


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

    Args:
        network: what runs the network.
        class_names: by class index.
        preprocessor: prepares images at the magnification of the training images for the network.
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
        preprocessor: ImagePreprocessor,
        *,
        most_detections: int,
        training_diameter: float,
        training_microns: float,
        augmentation: TestTimeAugmentation | None = None,
        options: PredictionOptions = DEFAULT_OPTIONS,
    ) -> None:
        self.network = network
        self.class_names = list(class_names)
        self.preprocessor = preprocessor
        self.options = options
        self._most_detections = most_detections
        self.training_diameter = training_diameter
        self._training_microns = training_microns
        self._augmentation = augmentation

    def predict_cells(
        self,
        image: NDArray[np.uint8],
        options: PredictionOptions | None = None,
        *,
        progress: Progress | None = None,
    ) -> Cells:
        """Predict one image (height, width, 3) uint8, BGR as OpenCV reads it, see :meth:`predict_source`."""
        return self.predict_source(ArraySource(image), options, progress=progress)

    def predict_source(
        self,
        source: ImageSource,
        options: PredictionOptions | None = None,
        *,
        progress: Progress | None = None,
    ) -> Cells:
        """Predict an image that is read tile by tile, see :func:`bccd_d2.io.images.open_source`.

        ``options`` take the place of the own ones. Returns cells in native pixels, of a pixel at least, the best score
        first. Raises :class:`InputError` if the source cannot be decoded, or as :meth:`magnification_of`.
        """
        options = options or self.options
        scale = self.magnification_of(source, options).scale
        overlap: float | None = options.overlap
        if overlap is None:
            typical = round(_OVERLAP_DIAMETERS * self.training_diameter) or _UNKNOWN_OVERLAP
            overlap = min(typical, options.tile_size // 2)
        overlap /= scale
        stride = _COARSEST_STRIDE / (scale * self.preprocessor.scale)
        whole = stride >= 1 and abs(stride - round(stride)) < 1e-6
        tiles = plan_tiles(
            source.height,
            source.width,
            round(options.tile_size / scale),
            round(overlap),
            round(stride) if whole else 1,
        )
        statistics = self._statistics(source)
        augmentation = options.augmentation or self._augmentation
        found = [Cells.from_masks(source.height, source.width, [])] * len(tiles)
        full = done = 0

        def read(tile: Tile) -> NDArray[np.uint8]:
            return self.prepare(source.read(tile.x, tile.y, tile.width, tile.height), scale, statistics)

        batch_size = options.batch_size or self.network.batch_size
        for batch in _read_ahead(read, tiles, batch_size):
            sizes = [(tiles[number].height, tiles[number].width) for number, _ in batch]
            images = [image for _, image in batch]
            predicted = predict_images(self.network, images, sizes, augmentation, self._most_detections)
            for (number, _), cells in zip(batch, predicted):
                full += len(cells) >= self._most_detections
                cells = cells[(cells.scores >= options.score_threshold) & (cells.areas > 0)]
                if options.split_touching:
                    cells = split_merged(cells)
                found[number] = candidates(cells, tiles[number], source.height, source.width, overlap)
            done = batch[-1][0] + 1
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

        ``options`` take the place of the predictor's own; ``estimate`` is that of the diameter, for
        ``diameter="auto"``, ``None`` to make it of this image where it is needed. Raises :class:`InputError` if
        ``microns_per_pixel`` or ``diameter`` is given and the configuration does not know that of the training data.
        """
        options = options or self.options
        if options.scale is not None:
            return Magnification(options.scale, "scale")
        if options.diameter is not None and options.diameter != AUTO:
            if not self.training_diameter:
                raise InputError(
                    "diameter is given, but INPUT.CELL_DIAMETER of the configuration is 0: set it to the median cell "
                    "diameter of the training images in pixels"
                )
            return Magnification(self.training_diameter / options.diameter, "diameter", options.diameter)
        if options.microns_per_pixel is not None and not self._training_microns:
            raise InputError(
                "microns_per_pixel is given, but INPUT.MICRONS_PER_PIXEL of the configuration is 0: set it to that of "
                "the training images"
            )
        microns = options.microns_per_pixel or source.microns_per_pixel
        if microns and self._training_microns:
            return Magnification(microns / self._training_microns, "microns")
        if options.diameter is None or not self.training_diameter:
            return Magnification(1.0)
        estimate = estimate or self.estimate_diameter(source)
        if estimate.diameter is None:
            return Magnification(1.0, f"not estimated: {estimate.doubt}")
        origin = f"estimated, unsure: {estimate.doubt}" if estimate.doubt else "estimated"
        return Magnification(self.training_diameter / estimate.diameter, origin, estimate.diameter)

    def knows_microns_of(self, source: ImageSource) -> bool:
        """Whether a source can be resized by its microns per pixel and those of the training images."""
        return bool((self.options.microns_per_pixel or source.microns_per_pixel) and self._training_microns)

    def estimate_diameter(self, source: ImageSource) -> DiameterEstimate:
        """Estimate the diameter of a source's red cells in native pixels, see :class:`DiameterEstimator`; an
        :class:`InputError` if it cannot be decoded.
        """
        statistics = self._statistics(source)

        def detect(image: NDArray[np.uint8]) -> Detections:
            return self._detect_few(self.prepare(image, 1.0, statistics)).resized(*image.shape[:2])

        red = red_cell_classes(self.class_names)
        return DiameterEstimator(detect, self.training_diameter, red).estimate(source)

    def prepare(
        self, image: NDArray[np.uint8], scale: float, statistics: ColorStatistics | None = None
    ) -> NDArray[np.uint8]:
        """An image (height, width, 3) uint8 BGR as the network takes it: (h, w, 3) uint8 in network pixels and the
        network's colour order.

        ``scale`` is pixels at the magnification of the training images per native pixel; ``statistics`` are those of
        the whole image that this is a part of, ``None`` where this is a whole one.
        """
        if statistics is None:
            statistics = self._statistics(ArraySource(image))
        size = scaled_size(image.shape[0], image.shape[1], scale * self.preprocessor.scale)
        return self.preprocessor.colors.apply(resize_image(self._ordered(image), *size), statistics)

    def _detect_few(self, image: NDArray[np.uint8]) -> Detections:
        """Detections of one prepared image that shows a few dozen cells at most."""
        return self.network([image])[0]

    def _statistics(self, source: ImageSource) -> ColorStatistics:
        colors = self.preprocessor.colors
        return colors.measure(self._ordered(sample_image(source))) if colors.active else ColorStatistics()

    def _ordered(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A BGR image in the network's colour order."""
        if self.preprocessor.image_format == "BGR":
            return image
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _read_ahead(
    read: Callable[[Tile], NDArray[np.uint8]], tiles: Sequence[Tile], batch_size: int
) -> Iterator[list[tuple[int, NDArray[np.uint8]]]]:
    """Batches of the tiles that may show cells, as numbers and images; the only tile of an image is never left out.

    One batch is read while the one before it is worked on.
    """
    images = ((number, read(tile)) for number, tile in enumerate(tiles))
    shown = ((number, image) for number, image in images if len(tiles) == 1 or not is_empty(image))

    def read_batch() -> list[tuple[int, NDArray[np.uint8]]]:
        return list(islice(shown, batch_size))

    with ThreadPoolExecutor(max_workers=1) as reader:
        batch = reader.submit(read_batch).result()
        while batch:
            following = reader.submit(read_batch)
            yield batch
            batch = following.result()
