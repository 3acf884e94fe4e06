"""What each engine costs and finds on real images: torch ("eager"), onnxruntime, OpenVINO, and other exported networks;
eager and OpenVINO in bfloat16 too, where the CPU has it.

    python benchmarks/bench_engines.py --images FOLDER --number 8
    python benchmarks/bench_engines.py --images FOLDER --run output/lite --networks cells_int8.onnx

All engines predict an image one after the other, so that other work on the machine slows all alike, and "time" is the
median over the images of an engine's time as a share of eager's. With one thread it is CPU time. An engine agrees on a
cell of eager's if it has one of the same class whose mask overlaps it by an IoU above 0.95.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

import cv2  # isort: skip
import numpy as np
import torch
from tabulate import tabulate

from bccd_d2.commands import run_command
from bccd_d2.config import cpu_supports_bfloat16
from bccd_d2.inference.exporting.engines import EAGER, ENGINES, load_predictor
from bccd_d2.inference.exporting.exported import ExportedPredictor
from bccd_d2.inference.finder import CellFinder
from bccd_d2.inference.model_files import find_model
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.io.find_images import find_images
from bccd_d2.io.images import read_image
from bccd_d2.structures.cells import Cells

LEAST_IOU = 0.95
SCORE = 0.5


def agreement(expected: Cells, found: Cells) -> int:
    """Cells of the first that the second has, too."""
    if not len(expected) or not len(found):
        return 0
    same = (expected.ious(found) > LEAST_IOU) & (expected.classes[:, None] == found.classes[None])
    return int(same.any(axis=1).sum())


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", nargs="+", required=True, metavar="PATH", help="images, or folders of them"
    )
    parser.add_argument("--number", type=int, default=8, metavar="N", help="of images (default %(default)s)")
    parser.add_argument("--run", type=Path, metavar="DIR", help="of a training (default: the shipped model)")
    parser.add_argument("--engines", nargs="+", choices=ENGINES[1:], default=ENGINES[1:])
    parser.add_argument(
        "--networks", nargs="+", type=Path, default=[], metavar="FILE", help="exported; run by both engines"
    )
    parser.add_argument("--threads", type=int, default=1, help="default %(default)s")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    # Without an estimate of the magnification, which would be another image's for each engine.
    options = PredictionOptions(score_threshold=SCORE)
    model = find_model(given.run)
    predictors: dict[str, CellFinder] = {EAGER: load_predictor(model, options)}
    for engine in given.engines:
        predictors[engine] = load_predictor(model, options, engine=engine)
        for path in given.networks:
            predictors[f"{engine}, {path.name}"] = ExportedPredictor(
                path, options, engine=engine, threads=given.threads
            )
    for engine in (EAGER, *given.engines):
        if engine != "onnx" and cpu_supports_bfloat16():
            bfloat16 = load_predictor(model, options, engine=engine, precision="bfloat16")
            predictors[f"{engine}, bfloat16"] = bfloat16
    clock = time.process_time if given.threads == 1 else time.perf_counter
    paths = [path for path, _ in find_images(given.images)]
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, given.number).round().astype(int))]
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    agreed, cells = dict.fromkeys(predictors, 0), dict.fromkeys(predictors, 0)
    for number, path in enumerate([chosen[0], *chosen]):
        image = read_image(str(path))
        expected: Cells | None = None
        for name, predictor in predictors.items():
            started = clock()
            found = predictor.predict_cells(image)
            if number:  # the first one warms up
                seconds[name].append(clock() - started)
                expected = found if expected is None else expected
                agreed[name] += agreement(expected, found)
                cells[name] += len(found)
    rows = [
        [
            name,
            statistics.median(taken),
            statistics.median(one / eager for one, eager in zip(taken, seconds[EAGER])),
            cells[name],
            100 * agreed[name] / cells[EAGER],
        ]
        for name, taken in seconds.items()
    ]
    headers = ["engine", "s per image", "time", "cells", f"IoU > {LEAST_IOU} (%)"]
    print(f"{len(chosen)} images, {given.threads} threads")
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=("", ".2f", ".2f", ".0f", ".2f")))


if __name__ == "__main__":
    run_command(main)
