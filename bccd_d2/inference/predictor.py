"""From one image to its cells."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray

from bccd_d2.cells import Cells
from bccd_d2.config import load_config
from bccd_d2.data.preprocessing import ImagePreprocessor, resize_image, scaled_size
from bccd_d2.data.stain import StainStatistics
from bccd_d2.errors import InputError
from bccd_d2.inference.network import Network
from bccd_d2.inference.options import DEFAULT_OPTIONS, PredictionOptions, TestTimeAugmentation
from bccd_d2.inference.refinement import split_merged, without_overlaps
from bccd_d2.inference.seams import candidates, merge_tiles
from bccd_d2.inference.source import ArraySource, ImageSource, sample_image
from bccd_d2.inference.test_time_augmentation import predict_views, views_of
from bccd_d2.inference.tiles import Tile, plan_tiles
from bccd_d2.modeling.weights import load_weights

# Features of the coarsest level of the pyramid, P6, are as many network pixels apart.
_COARSEST_STRIDE = 64


class BCCDPredictor:
    """Finds the cells of images of any size with a trained model.

    Example::

        predictor = BCCDPredictor("output/config.yaml", "output/model_final.pth")
        cells = predictor(cv2.imread("smear.png"))
        print(len(cells), cells.scores, cells.pred_masks.shape)
    """

    def __init__(
        self,
        config: CfgNode | str | Path,
        weights: str | Path | None = None,
        options: PredictionOptions = DEFAULT_OPTIONS,
        *,
        device: str | None = None,
        cpu_mode: str | None = None,
    ) -> None:
        """
        Args:
            config: a configuration or its YAML file; that of the training run, which lies beside its checkpoints.
            weights: checkpoint; ``None`` for the configuration's ``MODEL.WEIGHTS``.
            options: used where a call is given none.
            device: such as "cpu" or "cuda:1", in place of ``MODEL.DEVICE``.
            cpu_mode: in place of ``MODEL.CPU_MODE``, see :class:`bccd_d2.inference.network.Network`.

        Raises:
            InputError: the configuration or the checkpoint cannot be read.
        """
        cfg = config.clone() if isinstance(config, CfgNode) else load_config(config)
        cfg.defrost()
        if device is not None:
            cfg.MODEL.DEVICE = device
        self.class_names: list[str] = list(cfg.DATASETS.CLASS_NAMES) or [
            f"class {index}" for index in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        ]
        self.options = options
        self.model = build_model(cfg)
        load_weights(self.model, str(weights or cfg.MODEL.WEIGHTS))
        self.model.eval()
        self.network = Network(
            self.model, half=cfg.SOLVER.AMP.ENABLED, cpu_mode=cpu_mode or cfg.MODEL.CPU_MODE
        )
        self._augmentation = augmentation_from_config(cfg)
        self._most_detections = cfg.TEST.DETECTIONS_PER_IMAGE
        self._training_diameter = cfg.INPUT.CELL_DIAMETER
        self._training_microns = cfg.INPUT.MICRONS_PER_PIXEL
        self._preprocessor = ImagePreprocessor(cfg)

    def __call__(self, image: NDArray[np.uint8], options: PredictionOptions | None = None) -> Instances:
        """Predict one image, with masks of the image's size.

        Args:
            image: (height, width, 3) uint8, BGR as OpenCV reads it.
            options: in place of the predictor's own.

        Returns:
            On the CPU, in native pixels, best score first: ``pred_boxes`` (N, 4) xyxy, ``scores`` (N,),
            ``pred_classes`` (N,) and ``pred_masks`` (N, height, width) bool.
        """
        return cells_to_instances(self.predict_cells(image, options))

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
        """Predict an image that is read tile by tile, see :func:`bccd_d2.inference.sources.open_source`.

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
            _whole_number(_COARSEST_STRIDE / (scale * self._preprocessor.scale)),
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
        if self._preprocessor.stain is None:
            return None
        return self._preprocessor.statistics(self._in_network_order(sample_image(source)))

    def _in_network_order(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._preprocessor.image_format == "BGR":
            return image
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

    def _prepared(
        self, source: ImageSource, tile: Tile, scale: float, statistics: StainStatistics | None
    ) -> NDArray[np.uint8]:
        image = self._in_network_order(source.read(tile.x, tile.y, tile.width, tile.height))
        size = scaled_size(tile.height, tile.width, scale * self._preprocessor.scale)
        return self._preprocessor.normalize(resize_image(image, *size), statistics)

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


def augmentation_from_config(cfg: CfgNode) -> TestTimeAugmentation | None:
    """What ``TEST.TTA`` says; ``None`` where it is not enabled."""
    node = cfg.TEST.TTA
    return TestTimeAugmentation(node.FLIP, node.ROT90, tuple(node.SCALES)) if node.ENABLED else None


def cells_to_instances(cells: Cells) -> Instances:
    """Detectron2's form of the cells of an image, with masks of the image's size.

    Returns:
        ``pred_boxes`` (N, 4) float32 xyxy, ``scores`` (N,) float32, ``pred_classes`` (N,) int64 and ``pred_masks``
        (N, height, width) bool.
    """
    masks = np.zeros((len(cells), cells.height, cells.width), bool)
    for whole, mask, (x0, y0, x1, y1) in zip(masks, cells.masks, cells.windows):
        whole[y0:y1, x0:x1] = mask
    return Instances(
        (cells.height, cells.width),
        pred_boxes=Boxes(torch.from_numpy(cells.boxes).float()),
        scores=torch.from_numpy(cells.scores).float(),
        pred_classes=torch.from_numpy(cells.classes),
        pred_masks=torch.from_numpy(masks),
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
