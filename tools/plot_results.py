"""Draw the figures of a training run into RUN/viz and print its metrics as a table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tabulate import tabulate

from bccd_d2.errors import InputError, run_command
from bccd_d2.evaluation.run import load_predictions
from bccd_d2.files import replacing
from bccd_d2.visualization.comparison import truth_and_prediction
from bccd_d2.visualization.run import headline, metrics_bar, training_loss


def main(arguments: list[str] | None = None) -> None:
    """Draw, save and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--run", type=Path, required=True, metavar="DIR", help="OUTPUT_DIR of tools/train_net.py"
    )
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, help="draw cells from this score on (default 0.5)"
    )
    options = parser.parse_args(arguments)

    results = json.loads(_expect(options.run / "results.json").read_text(encoding="utf-8"))
    folder = options.run / "viz"
    paths = [_save(metrics_bar(results), folder / "step5_metrics_bar.png")]
    metrics_file = options.run / "metrics.json"
    if metrics_file.is_file():
        paths.append(_save(training_loss(_losses(metrics_file)), folder / "step5_train_loss.png"))
    for dataset in results:
        example = load_predictions(options.run, dataset, options.score_threshold)
        figure = truth_and_prediction(
            **example, title=f"{dataset}, scores of at least {options.score_threshold}"
        )
        paths.append(_save(figure, folder / f"step6_overlay_{dataset}.png"))

    rows: list[list[Any]] = []
    for dataset, metrics in results.items():
        rows += [[dataset, label, f"{value:.3f}"] for label, value in headline(metrics).items()]
    print(tabulate(rows, headers=["data set", "metric", "value"], tablefmt="pipe", disable_numparse=True))
    print("\n".join(["", "figures:", *(f"  {path}" for path in paths)]))


def _expect(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path} is not there: expected the folder of a finished tools/train_net.py run")
    return path


def _losses(metrics_file: Path) -> list[dict[str, Any]]:
    """Records of the training, one an iteration: after a resumed run the later record of an iteration counts."""
    records = (json.loads(line) for line in metrics_file.read_text(encoding="utf-8").splitlines())
    by_iteration = {record["iteration"]: record for record in records if "total_loss" in record}
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


if __name__ == "__main__":
    run_command(main)
