"""From one image to its cells, whatever runs the network. Needs neither torch nor Detectron2."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.data.scaling import resize_image, scaled_size
from bccd_d2.errors import InputError
from bccd_d2.inference.options import DEFAULT_OPTIONS, PredictionOptions, TestTimeAugmentation
from bccd_d2.inference.refinement import split_merged, without_overlaps
from bccd_d2.inference.seams import candidates, merge_tiles
from bccd_d2.inference.test_time_augmentation import predict_views, views_of
from bccd_d2.inference.tiles import Tile, plan_tiles
from bccd_d2.io.sources import ArraySource, ImageSource, sample_image
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.detections import Detections

if TYPE_CHECKING:
    from bccd_d2.data.stain import ReinhardNormalizer, StainStatistics

# Features of the coarsest level of the pyramid, P6, are as many network pixels apart.
_COARSEST_STRIDE = 64


class Detector(Protocol):
    """What runs the network."""

    @property
    def batch_size(self) -> int:
        """How many images are best given together."""

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of prepared images (h, w, 3) uint8, in network pixels."""


class CellFinder:
    """Finds the cells of images of any size: resizes, cuts into tiles, runs the network, and puts together.

    Attributes:
        class_names: by class index.
        options: used where a call is given none.

    Args:
        network: what runs the network.
        class_names: by class index.
        scale: network pixels per pixel at the magnification the network was trained at.
        image_format: "BGR" or "RGB", what the network expects.
        stain: what is done to colours, or None.
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
        stain: ReinhardNormalizer | None,
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
        self._stain = stain
        self._most_detections = most_detections
        self._training_diameter = training_diameter
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
        """Predict an image that is read tile by tile, see :func:`bccd_d2.io.sources.open_source`.

        Args:
            source: the image.
            options: in place of the predictor's own.
            progress: called with the number of tiles done and of all tiles.

        Returns:
            In native pixels, best score first; every cell has at least one pixel.

        Raises:
            InputError: the source cannot be decoded, or ``microns_per_pixel`` or ``diameter`` is given and the
                configuration does not know that of the training data.
        """
        options = options or self.options
        scale = self.scale_of(source, options)
        tiles = plan_tiles(
            source.height,
            source.width,
            round(options.tile_size / scale),
            round(options.overlap / scale),
            _whole_number(_COARSEST_STRIDE / (scale * self._scale)),
        )
        statistics = self._statistics(source)
        found: list[Cells] = []
        full = 0
        for batch, images in _read_ahead(
            lambda tile: self._prepared(source, tile, scale, statistics),
            tiles,
            options.batch_size or self.network.batch_size,
        ):
            for tile, cells in zip(batch, self._predict_tiles(images, batch, options)):
                full += len(cells) >= self._most_detections
                cells = cells[(cells.scores >= options.score_threshold) & (cells.areas > 0)]
                if options.refine:
                    cells = split_merged(cells)
                found.append(candidates(cells, tile, source.height, source.width, options.overlap / scale))
            if progress is not None:
                progress(len(found), len(tiles))
        if full:
            logging.getLogger(__name__).warning(
                "%s: in %d of %d tiles the model found as many cells as it may (TEST.DETECTIONS_PER_IMAGE %d); "
                "smaller tiles find the rest",
                source.name, full, len(tiles), self._most_detections,
            )  # fmt: skip
        merged = merge_tiles(tiles, found)
        return without_overlaps(merged) if options.exclusive else merged

    def scale_of(self, source: ImageSource, options: PredictionOptions | None = None) -> float:
        """Pixels at the magnification the model was trained at per native pixel of a source.

        Raises:
            InputError: ``microns_per_pixel`` or ``diameter`` is given and the configuration does not know that of the
                training data.
        """
        options = options or self.options
        if options.scale is not None:
            return options.scale
        if options.diameter is not None:
            if not self._training_diameter:
                raise InputError(
                    "diameter is given, but INPUT.CELL_DIAMETER of the configuration is 0: set it to the median cell "
                    "diameter of the training images in pixels"
                )
            return self._training_diameter / options.diameter
        if options.microns_per_pixel is not None and not self._training_microns:
            raise InputError(
                "microns_per_pixel is given, but INPUT.MICRONS_PER_PIXEL of the configuration is 0: set it to that of "
                "the training images"
            )
        microns = options.microns_per_pixel or source.microns_per_pixel
        return microns / self._training_microns if microns and self._training_microns else 1.0

    def _statistics(self, source: ImageSource) -> StainStatistics | None:
        if self._stain is None:
            return None
        return self._stain.statistics(self._in_network_order(sample_image(source)))

    def _in_network_order(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._image_format == "BGR":
            return image
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

    def _prepared(
        self, source: ImageSource, tile: Tile, scale: float, statistics: StainStatistics | None
    ) -> NDArray[np.uint8]:
        image = self._in_network_order(source.read(tile.x, tile.y, tile.width, tile.height))
        size = scaled_size(tile.height, tile.width, scale * self._scale)
        image = resize_image(image, *size)
        return self._stain.apply(image, statistics) if self._stain else image

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
) -> Iterator[tuple[Sequence[Tile], list[NDArray[np.uint8]]]]:
    """Batches of tiles and their images; one batch is read while the one before it is worked on."""
    batches = [tiles[start : start + batch_size] for start in range(0, len(tiles), batch_size)]

    def read_batch(batch: Sequence[Tile]) -> list[NDArray[np.uint8]]:
        return [read(tile) for tile in batch]

    with ThreadPoolExecutor(max_workers=1) as reader:
        following = reader.submit(read_batch, batches[0])
        for index, batch in enumerate(batches):
            images = following.result()
            if index + 1 < len(batches):
                following = reader.submit(read_batch, batches[index + 1])
            yield batch, images
