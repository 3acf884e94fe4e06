"""Reads back what an evaluation wrote."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from bccd_d2.config import load_config
from bccd_d2.conversion.coco import decode_segmentation
from bccd_d2.data.preprocessing import read_image
from bccd_d2.data.registration import annotation_file, default_root
from bccd_d2.errors import InputError


def load_predictions(run: Path, dataset: str, score_threshold: float) -> dict[str, Any]:
    """Truth and predictions of one image of an evaluated data set: the one whose number of true cells is the median.

    Args:
        run: ``OUTPUT_DIR`` of the run.
        dataset: a name such as ``"bccd_val"``.
        score_threshold: leaves out predictions below it.

    Returns:
        ``image`` (height, width, 3) uint8 BGR, ``true_masks`` and ``predicted_masks`` (lists of (height, width)
        uint8), ``true_classes`` and ``predicted_classes`` (lists of class indices), ``class_names``.

    Raises:
        InputError: the run holds no predictions for the data set, or its data are gone.
    """
    cfg = load_config(run / "config.yaml")
    root = Path(cfg.DATASETS.ROOT) if cfg.DATASETS.ROOT else default_root()
    truth_file = annotation_file(root, dataset.rpartition("_")[2])
    prediction_file = run / "inference" / dataset / "coco_instances_results.json"
    for path in (truth_file, prediction_file):
        if not path.is_file():
            raise InputError(f"{path} is not there: expected what the run {run} was evaluated on")
    truth = json.loads(truth_file.read_text(encoding="utf-8"))
    counts = Counter(a["image_id"] for a in truth["annotations"])
    image = sorted(truth["images"], key=lambda i: (counts[i["id"]], i["id"]))[len(truth["images"]) // 2]
    categories = sorted(truth["categories"], key=lambda c: c["id"])
    class_index = {category["id"]: index for index, category in enumerate(categories)}
    true = [a for a in truth["annotations"] if a["image_id"] == image["id"] and not a.get("iscrowd")]
    predicted = [
        p
        for p in json.loads(prediction_file.read_text(encoding="utf-8"))
        if p["image_id"] == image["id"] and p["score"] >= score_threshold
    ]
    size = (image["height"], image["width"])
    return {
        "image": read_image(str(root / truth["info"].get("image_root", ".") / image["file_name"])),
        "true_masks": [decode_segmentation(a["segmentation"], *size) for a in true],
        "true_classes": [class_index[a["category_id"]] for a in true],
        "predicted_masks": [decode_segmentation(p["segmentation"], *size) for p in predicted],
        "predicted_classes": [class_index[p["category_id"]] for p in predicted],
        "class_names": [category["name"] for category in categories],
    }
