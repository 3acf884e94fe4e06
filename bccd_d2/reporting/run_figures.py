"""Reads what a training run wrote and draws its figures into its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bccd_d2.errors import InputError
from bccd_d2.evaluation.evaluator import load_predictions
from bccd_d2.files import replacing
from bccd_d2.reporting.side_by_side import truth_and_prediction
from bccd_d2.reporting.training_curves import metrics_bar, training_loss
from bccd_d2.structures.coco import read_json


def read_results(run: Path) -> dict[str, dict[str, dict[str, float]]]:
    """The metrics of a run in percent, by data set and group.

    Raises:
        InputError: the run was not evaluated, or its metrics cannot be read.
    """
    path = run / "results.json"
    if not path.is_file():
        raise InputError(f"{path} is not there: expected the folder of a finished tools/train_net.py run")
    results = read_json(path)
    if not isinstance(results, dict) or not all(isinstance(groups, dict) for groups in results.values()):
        raise InputError(f"{path}: expected metrics by data set and group, found {str(results)[:60]!r}")
    return results


def draw_run(run: Path, score_threshold: float = 0.5) -> list[Path]:
    """Draw a run's metrics, its losses and one evaluated image of each data set into ``run/viz``.

    Args:
        run: ``OUTPUT_DIR`` of tools/train_net.py.
        score_threshold: draw cells from this score on.

    Returns:
        The files.

    Raises:
        InputError: the run was not evaluated, or its data are gone.
    """
    results = read_results(run)
    folder = run / "viz"
    paths = [_save(metrics_bar(results), folder / "step5_metrics_bar.png")]
    metrics_file = run / "metrics.json"
    if metrics_file.is_file():
        losses = training_loss(
            read_records(metrics_file, "total_loss"), read_records(metrics_file, "validation/total_loss")
        )
        paths.append(_save(losses, folder / "step5_train_loss.png"))
    for dataset in results:
        example = load_predictions(run, dataset, score_threshold)
        figure = truth_and_prediction(**example, title=f"{dataset}, scores of at least {score_threshold}")
        paths.append(_save(figure, folder / f"step6_overlay_{dataset}.png"))
    return paths


def read_records(metrics_file: Path, key: str) -> list[dict[str, Any]]:
    """Records of metrics.json that hold ``key``, one an iteration, in order.

    After a resumed run the later record of an iteration counts. A last line that is not whole yet does not.

    Raises:
        InputError: a line is no such record.
    """
    by_iteration = {}
    try:
        text = metrics_file.read_text(encoding="utf-8")
        for line in text[: text.rfind("\n") + 1].splitlines():
            record = json.loads(line)
            if key in record:
                by_iteration[int(record["iteration"])] = record
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{metrics_file}: expected a JSON object with an iteration a line ({error})"
        ) from error
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
