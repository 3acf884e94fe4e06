"""What each option of a prediction costs and gains on annotated images: tiles, views, refinement.

Average precision of masks is COCO's, with as many detections an image as the model may output. Time is the processor
time of one thread, all ways interleaved image by image, so that other processes disturb all alike.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

# isort: split
import numpy as np
import torch
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.commands import run_command
from bccd_d2.evaluation.dataset import read_evaluation_set
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.inference.tta import TestTimeAugmentation
from bccd_d2.io.images import read_image
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.dataset_files import dataset_file

OPTIONS = {
    "as it is": PredictionOptions(),
    "tiles of 768, overlap 256": PredictionOptions(tile_size=768),
    "2 views: mirrored": PredictionOptions(augmentation=TestTimeAugmentation(rot90=False)),
    "4 views: turned": PredictionOptions(augmentation=TestTimeAugmentation(flip=False)),
    "8 views: mirrored, turned": PredictionOptions(augmentation=TestTimeAugmentation()),
    "3 views: sizes 0.8, 1, 1.25": PredictionOptions(
        augmentation=TestTimeAugmentation(flip=False, rot90=False, scales=(1.0, 0.8, 1.25))
    ),
    "merged cells cut": PredictionOptions(split_touching=True),
    "each pixel one cell": PredictionOptions(no_overlap=True),
    "both": PredictionOptions(split_touching=True, no_overlap=True),
}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="OUTPUT_DIR of a training run")
    parser.add_argument(
        "--data-root", type=Path, required=True, metavar="DIR", help="what tools/convert_bccd.py wrote"
    )
    parser.add_argument("--part", default="val", help="train, val or test (default val)")
    parser.add_argument("--max-images", type=int, help="number of leading images (default all)")
    options = parser.parse_args(arguments)
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    predictor = BCCDPredictor(options.run / "config.yaml", options.run / "model_final.pth")
    truth = read_evaluation_set(dataset_file(options.data_root, options.part))
    truth = replace(truth, images=truth.images[: options.max_images])
    found: dict[str, dict[int, Cells]] = {name: {} for name in OPTIONS}
    seconds: dict[str, list[float]] = {name: [] for name in OPTIONS}
    for entry in tqdm(truth.images, unit="image"):
        image = read_image(str(entry.path))
        for name, way in OPTIONS.items():
            start = time.process_time()
            found[name][entry.image_id] = predictor.predict_cells(image, way)
            seconds[name].append(time.process_time() - start)
    rows = []
    for name, cells in found.items():
        evaluated = evaluate(
            truth.with_predictions(cells), EvaluationOptions(max_detections=10_000, bootstrap_samples=0)
        ).detectron2_results()
        rows.append(
            [name, *(evaluated["segm"][key] for key in ("AP", "AP50", "AP75")), evaluated["bbox"]["AP"]]
            + [sum(int((c.scores >= 0.5).sum()) for c in cells.values()), float(np.median(seconds[name]))]
        )
    headers = ["way", "mask AP", "AP50", "AP75", "box AP", "cells >= 0.5", "s per image"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=("", ".1f", ".1f", ".1f", ".1f", ".0f", ".2f")))


if __name__ == "__main__":
    run_command(main)
