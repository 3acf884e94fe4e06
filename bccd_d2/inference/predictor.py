"""From one image to its cells."""

from __future__ import annotations

from collections.abc import Callable
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
from bccd_d2.data.preprocessing import ImagePreprocessor
from bccd_d2.inference.options import DEFAULT_OPTIONS, PredictionOptions
from bccd_d2.inference.sources import ArraySource, ImageSource
from bccd_d2.modeling.weights import load_weights


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
            device: "cpu", "cuda", "cuda:1" in place of ``MODEL.DEVICE``.
            cpu_mode: in place of ``MODEL.CPU_MODE``.

        Raises:
            InputError: the configuration or the checkpoint cannot be read.
        """
        cfg = config.clone() if isinstance(config, CfgNode) else load_config(config)
        self.class_names: list[str] = list(cfg.DATASETS.CLASS_NAMES) or [
            f"class {index}" for index in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        ]
        self.options = options
        self.model = build_model(cfg)
        load_weights(self.model, str(weights or cfg.MODEL.WEIGHTS))
        self.model.eval()
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

    @torch.no_grad()
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
            In native pixels, best score first.

        Raises:
            InputError: the source cannot be decoded, or ``microns_per_pixel`` or ``diameter`` is given and the
                configuration does not know that of the training data.
        """
        options = options or self.options
        image = source.read(0, 0, source.width, source.height)
        if self._preprocessor.image_format == "RGB":
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        prepared = self._preprocessor(image, self._preprocessor.statistics(image))
        tensor = torch.from_numpy(np.ascontiguousarray(prepared.transpose(2, 0, 1)))
        sample = {"image": tensor, "height": source.height, "width": source.width}
        found = self.model([sample])[0]["instances"].to("cpu")
        cells = Cells.from_masks(
            source.height,
            source.width,
            found.pred_masks.numpy(),
            boxes=found.pred_boxes.tensor.numpy(),
            classes=found.pred_classes.numpy(),
            scores=found.scores.numpy(),
        )
        if progress is not None:
            progress(1, 1)
        return cells[cells.scores >= options.score_threshold]


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
