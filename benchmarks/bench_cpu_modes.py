"""Time of the network in the CPU modes and under torch.compile, on one core, and how far they agree.

All modes take turns on the same images, so that other processes disturb all alike; reported is processor time. A mode
agrees with "plain" as far as it finds the same cells: mask IoU of the pairs, scores, and how many of the cells with a
score of at least 0.5 have a partner with a mask IoU of at least 0.9. Without --run the weights are random, which is
enough for the times.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

# isort: split
import numpy as np
import torch
from detectron2.modeling import build_model
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.config import load_config
from bccd_d2.data.preprocessing import ImagePreprocessor
from bccd_d2.errors import run_command
from bccd_d2.inference.predictor import Network
from bccd_d2.io.find_images import find_images
from bccd_d2.io.images import read_image
from bccd_d2.modeling.weights import load_weights
from bccd_d2.structures.cells import Cells

SURE = 0.5


def agreement(plain: list[Cells], other: list[Cells]) -> list[float]:
    """Percent of sure cells with a partner, mean mask IoU, mean and largest difference of the scores of partners."""
    found, ious, differences = 0, [], []
    for a, b in zip(plain, other):
        a = a[a.scores >= SURE]
        overlap = a.ious(b)
        if len(a) == 0 or len(b) == 0:
            continue
        best = overlap.argmax(axis=1)
        ious += overlap.max(axis=1).tolist()
        differences += np.abs(a.scores - b.scores[best]).tolist()
        found += int((overlap.max(axis=1) >= 0.9).sum())
    if not ious:
        return [float("nan")] * 4
    return [100 * found / len(ious), float(np.mean(ious)), float(np.mean(differences)), max(differences)]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", type=Path, metavar="DIR", help="OUTPUT_DIR of a training run")
    model.add_argument(
        "--config-file", type=Path, metavar="FILE", help="YAML of configs/, with random weights"
    )
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="PATH", help="images, or folders of them"
    )
    parser.add_argument("--max-images", type=int, default=3, help="the first so many (default 3)")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the backbone too: minutes at first"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    config_file = options.config_file or options.run / "config.yaml"
    cfg = load_config(config_file, ["MODEL.DEVICE", "cpu"])

    networks: dict[str, Network] = {}
    for name in ("plain", "channels_last", "bfloat16", *(("compiled",) if options.compile else ())):
        torch.manual_seed(0)
        built = build_model(cfg).eval()
        if options.run:
            load_weights(built, str(options.run / "model_final.pth"))
        if name == "compiled":
            built.backbone = torch.compile(built.backbone, dynamic=False)
        networks[name] = Network(built, cpu_mode="channels_last" if name == "compiled" else name)

    preprocessor = ImagePreprocessor(cfg)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    cells: dict[str, list[Cells]] = {name: [] for name in networks}
    paths = [path for path, _ in find_images(options.input)][: options.max_images]
    for number, path in enumerate(tqdm([paths[0], *paths], unit="image")):
        image = read_image(str(path), cfg.INPUT.FORMAT)
        prepared = preprocessor(image, preprocessor.statistics(image))
        for name, network in networks.items():
            start = time.process_time()
            (detections,) = network([prepared])
            took = time.process_time() - start
            if number:  # the first image goes untimed: memory is touched, code compiled
                seconds[name].append(took)
                cells[name].append(detections.resized(*image.shape[:2]).paste())
    plain = np.array(seconds["plain"])
    rows = [
        [name, float(np.median(took)), float(np.median(np.array(took) / plain))]
        + agreement(cells["plain"], cells[name])
        for name, took in seconds.items()
    ]
    headers = [
        "mode",
        "s an image",
        "of plain",
        "% found",
        "mean mask IoU",
        "mean score diff",
        "max score diff",
    ]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=("", ".2f", ".2f", ".1f", ".3f", ".4f", ".3f")))


if __name__ == "__main__":
    run_command(main)
