"""From one image to its cells."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Instances

from bccd_d2.config import load_config
from bccd_d2.data.preprocessing import ImagePreprocessor
from bccd_d2.modeling.weights import load_weights


class BCCDPredictor:
    """Finds the cells of an image with a trained model.

    Example::

        predictor = BCCDPredictor("output/config.yaml", "output/model_final.pth")
        cells = predictor(cv2.imread("smear.png"))
        print(len(cells), cells.scores, cells.pred_masks.shape)
    """

    def __init__(self, config: CfgNode | str | Path, weights: str | Path | None = None) -> None:
        """
        Args:
            config: a configuration or its YAML file; that of the training run, which lies beside its checkpoints.
            weights: checkpoint; ``None`` for the configuration's ``MODEL.WEIGHTS``.

        Raises:
            InputError: the configuration or the checkpoint cannot be read.
        """
        cfg = config.clone() if isinstance(config, CfgNode) else load_config(config)
        self.class_names: list[str] = list(cfg.DATASETS.CLASS_NAMES) or [
            f"class {index}" for index in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        ]
        self.model = build_model(cfg)
        load_weights(self.model, str(weights or cfg.MODEL.WEIGHTS), cfg)
        self.model.eval()
        self._preprocessor = ImagePreprocessor(cfg)

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> Instances:
        """Predict one image.

        Args:
            image: (height, width, 3) uint8, BGR as OpenCV reads it.

        Returns:
            On the CPU, in native pixels, best score first: ``pred_boxes`` (N, 4) xyxy, ``scores`` (N,),
            ``pred_classes`` (N,) and ``pred_masks`` (N, height, width) bool.
        """
        height, width = image.shape[:2]
        if self._preprocessor.image_format == "RGB":
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        prepared = self._preprocessor(image, self._preprocessor.statistics(image))
        tensor = torch.from_numpy(np.ascontiguousarray(prepared.transpose(2, 0, 1)))
        sample = {"image": tensor, "height": height, "width": width}
        return self.model([sample])[0]["instances"].to("cpu")
