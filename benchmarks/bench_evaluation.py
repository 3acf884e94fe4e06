"""How long COCO's average precision takes: this project's way against pycocotools alone.

    python benchmarks/bench_evaluation.py [--images 159] [--cells 70] [--detections 400] [--whole]

Drawn discs on images of 1600x1200 px, as many as the test split of "BCCD Dataset with mask" has; predictions are moved
and resized copies at random scores, and inventions. Both engines get the same annotations and must agree to 1e-6; the
time is that of masks in one region. --whole adds the time of everything that tools/evaluate.py says.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import run_command
from bccd_d2.evaluation.average_precision import COCOMetrics
from bccd_d2.evaluation.dataset import EvaluationImage, EvaluationSet
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.structures.cells import Cells

HEIGHT, WIDTH, RADIUS = 1200, 1600, 45
ENGINES = ("pycocotools", "faster-coco-eval")


def draw(centres: NDArray[np.float64], radii: NDArray[np.float64], scores: NDArray[np.float64]) -> Cells:
    """Discs, cut by the image border."""
    masks, origins = [], []
    for (x, y), radius in zip(centres, radii):
        x0, y0 = max(0, int(x - radius)), max(0, int(y - radius))
        rows, columns = np.ogrid[y0 : min(HEIGHT, int(y + radius) + 1), x0 : min(WIDTH, int(x + radius) + 1)]
        masks.append((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)
        origins.append((x0, y0))
    return Cells.from_masks(HEIGHT, WIDTH, masks, origins=origins, scores=scores)


def draw_image(number: int, cells: int, detections: int) -> EvaluationImage:
    """Truth and predictions, five of six on a cell."""
    generator = np.random.default_rng(number)
    centres = generator.uniform([0, 0], [WIDTH, HEIGHT], (cells, 2))
    truth = draw(centres, generator.uniform(0.9, 1.1, cells) * RADIUS, np.ones(cells))
    invented = detections // 6
    near = centres[np.arange(detections - invented) % cells] + generator.normal(
        0, 8, (detections - invented, 2)
    )
    inside = np.clip(near, 0, [WIDTH - 1, HEIGHT - 1])
    wherever = generator.uniform([0, 0], [WIDTH, HEIGHT], (invented, 2))
    predictions = draw(
        np.concatenate([inside, wherever]),
        generator.uniform(0.8, 1.2, detections) * RADIUS,
        generator.uniform(0.05, 1, detections),
    )
    nothing = Cells.from_masks(HEIGHT, WIDTH, [])
    return EvaluationImage(number, f"{number}.png", None, truth, nothing, predictions)


def seconds(images: Sequence[EvaluationImage], engine: str) -> tuple[float, dict[str, float]]:
    """Time of one table, without that of encoding the masks, which both engines need, and its figures."""
    metrics = COCOMetrics(images, ["cell"], EvaluationOptions(), engine=engine)
    start = time.perf_counter()
    table = metrics.table("segm")
    return time.perf_counter() - start, asdict(table.overall)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=159)
    parser.add_argument("--cells", type=int, default=70, help="true cells an image")
    parser.add_argument("--detections", type=int, default=400, help="predictions an image")
    parser.add_argument("--whole", action="store_true", help="time the whole evaluation, too")
    args = parser.parse_args()
    images = [draw_image(n, args.cells, args.detections) for n in range(1, args.images + 1)]
    times, figures = zip(*(seconds(images, engine) for engine in ENGINES))
    for key, value in figures[0].items():
        if abs(value - figures[1][key]) > 1e-6:
            print(f"error: {key} is {value} by {ENGINES[0]} and {figures[1][key]} by {ENGINES[1]}")
            return 1
    print(f"{args.images} images, {args.cells} cells and {args.detections} detections each, mask AP")
    print("| engine | seconds | times as fast |\n|---|---|---|")
    for engine, taken in zip(ENGINES, times):
        print(f"| {engine} | {taken:.1f} | {times[0] / taken:.1f} |")
    if args.whole:
        start = time.perf_counter()
        evaluate(EvaluationSet(images, ["cell"], [1]), EvaluationOptions())
        print(
            f"whole evaluation, {EvaluationOptions().bootstrap_samples} resamples: {time.perf_counter() - start:.1f} s"
        )
    return 0


if __name__ == "__main__":
    run_command(main)
