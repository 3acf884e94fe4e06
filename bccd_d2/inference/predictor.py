"""From one image to its cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray

from bccd_d2.config import load_config
from bccd_d2.data.preprocessing import ImagePreprocessor
from bccd_d2.inference.finder import CellFinder
from bccd_d2.inference.network import Network
from bccd_d2.inference.options import DEFAULT_OPTIONS, PredictionOptions, TestTimeAugmentation
from bccd_d2.modeling.weights import load_weights
from bccd_d2.structures.cells import Cells


class BCCDPredictor(CellFinder):
    """Finds the cells of images of any size with a trained model.

    Example:

        predictor = BCCDPredictor("output/config.yaml", "output/model_final.pth")
        cells = predictor(cv2.imread("smear.png"))
        print(len(cells), cells.scores, cells.pred_masks.shape)

    Attributes:
        model: Detectron2's.
        network: what runs it.
    """

    network: Network

    def __init__(
        self,
        config: CfgNode | str | Path,
        weights: str | Path | None = None,
        options: PredictionOptions = DEFAULT_OPTIONS,
        *,
        device: str | None = None,
        cpu_mode: str = "auto",
    ) -> None:
        """
        Args:
            config: a configuration or its YAML file; that of the training run, which lies beside its checkpoints.
            weights: checkpoint; ``None`` for the configuration's ``MODEL.WEIGHTS``.
            options: used where a call is given none.
            device: such as "cpu" or "cuda:1", in place of ``MODEL.DEVICE``.
            cpu_mode: see :class:`bccd_d2.inference.network.Network`.

        Raises:
            InputError: the configuration or the checkpoint cannot be read.
        """
        cfg = config.clone() if isinstance(config, CfgNode) else load_config(config)
        cfg.defrost()
        if device is not None:
            cfg.MODEL.DEVICE = device
        names = list(cfg.DATASETS.CLASS_NAMES) or [
            f"class {index}" for index in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        ]
        self.model = build_model(cfg)
        load_weights(self.model, str(weights or cfg.MODEL.WEIGHTS), cfg)
        self.model.eval()
        preprocessor = ImagePreprocessor(cfg)
        super().__init__(
            Network(self.model, half=cfg.SOLVER.AMP.ENABLED, cpu_mode=cpu_mode),
            names,
            scale=preprocessor.scale,
            image_format=preprocessor.image_format,
            stain=preprocessor.stain,
            most_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
            training_diameter=cfg.INPUT.CELL_DIAMETER,
            training_microns=cfg.INPUT.MICRONS_PER_PIXEL,
            augmentation=augmentation_from_config(cfg),
            options=options,
        )

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
