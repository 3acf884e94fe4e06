"""What each option of a prediction costs and gains on annotated images: modes of the CPU, tiles, views, last steps.

Average precision of masks is COCO's, with as many detections an image as the model may output. Time is the processor
time of one thread, all ways interleaved image by image, so that other processes disturb all alike.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

# isort: split
import numpy as np
import torch
from bccd_d2.evaluation.coco_evaluation import average_precision
from pycocotools.coco import COCO
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.data.preprocessing import read_image
from bccd_d2.errors import run_command
from bccd_d2.inference.options import PredictionOptions, TestTimeAugmentation
from bccd_d2.inference.predictor import BCCDPredictor

MODES = ("plain", "channels_last", "bfloat16")
OPTIONS = {
    "tiles of 768, overlap 256": PredictionOptions(tile_size=768),
    "2 views: mirrored": PredictionOptions(augmentation=TestTimeAugmentation(rot90=False)),
    "4 views: turned": PredictionOptions(augmentation=TestTimeAugmentation(flip=False)),
    "8 views: mirrored, turned": PredictionOptions(augmentation=TestTimeAugmentation()),
    "3 views: sizes 0.8, 1, 1.25": PredictionOptions(
        augmentation=TestTimeAugmentation(flip=False, rot90=False, scales=(1.0, 0.8, 1.25))
    ),
    "merged cells cut": PredictionOptions(refine=True),
    "each pixel one cell": PredictionOptions(exclusive=True),
    "both": PredictionOptions(refine=True, exclusive=True),
}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="OUTPUT_DIR of a training run")
    parser.add_argument(
        "--data-root", type=Path, required=True, metavar="DIR", help="what tools/convert_bccd.py wrote"
    )
    parser.add_argument("--part", default="val", help="train, val or test (default val)")
    parser.add_argument("--max-images", type=int, help="the first so many (default all)")
    options = parser.parse_args(arguments)
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    predictors = {
        mode: BCCDPredictor(options.run / "config.yaml", options.run / "model_final.pth", cpu_mode=mode)
        for mode in MODES
    }
    ways = {f"as it is, {mode}": (mode, PredictionOptions()) for mode in MODES}
    ways.update({f"{name}, {MODES[-1]}": (MODES[-1], value) for name, value in OPTIONS.items()})
    annotation_file = options.data_root / "annotations" / f"instances_{options.part}.json"
    truth = json.loads(annotation_file.read_text(encoding="utf-8"))
    image_root = annotation_file.parent.parent / truth["info"]["image_root"]
    images = truth["images"][: options.max_images]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for entry in tqdm(images, unit="image"):
        image = read_image(str(image_root / entry["file_name"]))
        for name, (mode, way) in ways.items():
            start = time.process_time()
            cells = predictors[mode].predict_cells(image, way)
            seconds[name].append(time.process_time() - start)
            for index, rle in enumerate(cells.rles()):
                x0, y0, x1, y1 = cells.boxes[index].tolist()
                results[name].append(
                    {
                        "image_id": entry["id"],
                        "category_id": truth["categories"][cells.classes[index]]["id"],
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "score": float(cells.scores[index]),
                        "segmentation": rle,
                    }
                )
    ground_truth = COCO(annotation_file)
    rows = []
    for name, found in results.items():
        by_task = {
            task: average_precision(ground_truth, found, task, 10_000, [entry["id"] for entry in images])
            for task in ("segm", "bbox")
        }
        segm = by_task["segm"]
        rows.append(
            [name, segm["AP"], segm["AP50"], segm["AP75"], by_task["bbox"]["AP"]]
            + [sum(r["score"] >= 0.5 for r in found), float(np.median(seconds[name]))]
        )
    headers = ["way", "mask AP", "AP50", "AP75", "box AP", "cells >= 0.5", "s an image"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=("", ".1f", ".1f", ".1f", ".1f", ".0f", ".2f")))


if __name__ == "__main__":
    run_command(main)
