"""A network small enough for tests, whose random weights make scores, boxes and masks that differ."""

from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

import bccd_d2.modeling  # noqa: F401  registers this project's heads
from bccd_d2.config import load_config

LITE = Path(__file__).resolve().parents[2] / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"
CLASS_NAMES = ["WBC", "RBC", "Platelets"]
OPTIONS = [
    *("MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "MODEL.RPN.PRE_NMS_TOPK_TEST", "100"),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", "50", "TEST.DETECTIONS_PER_IMAGE", "20"),
    *("MODEL.ROI_HEADS.NUM_CLASSES", "3", "DATASETS.CLASS_NAMES", str(CLASS_NAMES)),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.3"),
]
# Freshly drawn heads say the same of every box.
_MAGNIFIED = {
    "roi_heads.box_predictor.cls_score": 160,
    "roi_heads.box_predictor.bbox_pred": 100,
    "roi_heads.mask_head.predictor": 1000,
}


def write_tiny_run(folder: Path, *options: str) -> CfgNode:
    """Write ``config.yaml`` and ``model_final.pth`` into ``folder``, as a training run does; the configuration."""
    cfg = load_config(LITE, [*OPTIONS, *options])
    torch.manual_seed(9)
    model = build_model(cfg)
    for name, factor in _MAGNIFIED.items():
        model.get_submodule(name).weight.data *= factor
    torch.save({"model": model.state_dict()}, folder / "model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return cfg
