"""A data set of drawn cells as tools/convert_bccd.py would write it, and a model that trains on it in milliseconds."""

import json
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from pycocotools import mask as coco_mask

import bccd_d2.modeling  # noqa: F401  registers the models
from bccd_d2.engine.setup import setup_config
from tests.data.shapes import disc, smear

LITE = Path(__file__).resolve().parents[2] / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"
HEIGHT, WIDTH = 96, 128
CENTRES = ((24, 30), (64, 60), (100, 28))
# A ResNet-50 of 8 to 64 channels. With group norm a batch is the mean of its images; "" is no norm at all.
_OPTIONS = """
    MODEL.RESNETS.DEPTH 50 MODEL.RESNETS.STEM_OUT_CHANNELS 8 MODEL.RESNETS.NORM BN
    MODEL.RESNETS.RES2_OUT_CHANNELS 16 MODEL.RESNETS.WIDTH_PER_GROUP 8 MODEL.FPN.OUT_CHANNELS 16
    MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 16
    MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 MODEL.RPN.POST_NMS_TOPK_TEST 20
    TEST.DETECTIONS_PER_IMAGE 10 INPUT.CROP.SIZE [64,64] INPUT.SCALE 1.0
    SOLVER.IMS_PER_BATCH 2 SOLVER.WARMUP_ITERS 2 SOLVER.CHECKPOINT_PERIOD 100
    TEST.EVAL_PERIOD 0 TEST.VALIDATION_LOSS_PERIOD 0
"""
TINY = _OPTIONS.split()


def write_data(root: Path, images: int = 5) -> Path:
    """Images of three discs each, moved a little from one to the next; the last two are for validation."""
    (root / "annotations").mkdir(parents=True)
    parts: dict[str, list[int]] = {"train": [*range(images - 2)], "val": [images - 2, images - 1]}
    for part, numbers in parts.items():
        records, annotations = [], []
        for number in numbers:
            masks = [disc(HEIGHT, WIDTH, x + number, y + number, 11) for x, y in CENTRES]
            cv2.imwrite(str(root / f"{number}.png"), smear(HEIGHT, WIDTH, masks))
            records.append({"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH})
            for mask in masks:
                encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
                annotations.append(
                    {
                        "id": len(annotations) + 1 + 100 * number,
                        "image_id": number,
                        "category_id": 1,
                        "iscrowd": 0,
                        "bbox": coco_mask.toBbox(encoded).tolist(),
                        "area": int(mask.sum()),
                        "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()},
                    }
                )
        content = {
            "info": {"image_root": "."},
            "images": records,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "cell"}],
        }
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return root


def tiny_config(root: Path, out: Path, *options: object) -> CfgNode:
    """Of the tiny model on the data in ``root``."""
    return setup_config(LITE, [*TINY, "OUTPUT_DIR", str(out), *map(str, options)], str(root))
