"""Draw the figures of a training run into RUN/viz and print its metrics as a table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bccd_d2.errors import run_command
from bccd_d2.reporting.run_figures import draw_run, read_results
from bccd_d2.reporting.training_curves import headline


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

    paths = draw_run(options.run, options.score_threshold)
    rows: list[list[Any]] = []
    for dataset, metrics in read_results(options.run).items():
        rows += [[dataset, label, f"{value:.3f}"] for label, value in headline(metrics).items()]
    print(tabulate(rows, headers=["data set", "metric", "value"], tablefmt="pipe", disable_numparse=True))
    print("\n".join(["", "figures:", *(f"  {path}" for path in paths)]))


if __name__ == "__main__":
    run_command(main)
