"""How long an evaluation takes.

    python benchmarks/bench_evaluation.py [--images 159] [--cells 70] [--detections 400]

Synthetic discs on images of 1600x1200 px, as many as the test split of "BCCD Dataset with mask" has; predictions are
moved and resized copies at random scores, and inventions.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import run_command
from bccd_d2.evaluation.dataset import EvaluationImage, EvaluationSet
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.structures.cells import Cells

HEIGHT, WIDTH, RADIUS = 1200, 1600, 45


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


def main() -> None:
    """Print the time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=159)
    parser.add_argument("--cells", type=int, default=70, help="true cells an image")
    parser.add_argument("--detections", type=int, default=400, help="predictions an image")
    args = parser.parse_args()
    images = [draw_image(n, args.cells, args.detections) for n in range(1, args.images + 1)]
    options = EvaluationOptions()
    start = time.perf_counter()
    evaluate(EvaluationSet(images, ["cell"], [1]), options)
    seconds = time.perf_counter() - start
    print(f"{args.images} images, {args.cells} cells and {args.detections} detections each")
    print(f"whole evaluation, {options.bootstrap_samples} resamples: {seconds:.1f} s")


if __name__ == "__main__":
    run_command(main)
