"""Train every row of an ablation plan with every seed and print one table; finished trainings are not repeated."""

from __future__ import annotations

import argparse
from pathlib import Path

from bccd_d2.commands import CommandParser, run_command
from bccd_d2.engine.ablation import (
    AblationPlan,
    ablation_table,
    difference_table,
    predict_laboratories,
    run_ablation,
)
from bccd_d2.files import replacing


def _named_folder(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not (name and separator and folder):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected NAME=DIR")
    return name, Path(folder)


def main(arguments: list[str] | None = None) -> None:
    """Run the plan and write RESULTS.md beside the trainings."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    add("--plan", type=Path, required=True, metavar="YAML", help="for example configs/ablations/stain.yaml")
    root_help = "folder that tools/convert_bccd.py wrote"
    add("--data-root", type=Path, required=True, metavar="DIR", help=root_help)
    add("--output", type=Path, required=True, metavar="DIR", help="gets one folder per row and seed")
    also_help = "evaluate every model on this data too; may be given several times"
    add(
        "--also-evaluate", type=_named_folder, action="append", default=[], metavar="NAME=DIR", help=also_help
    )
    predict_help = (
        "evaluate every model as tools/predict.py finds cells, without options, in its DATASETS.TEST"
    )
    add("--predict", action="store_true", help=predict_help)
    add(
        "opts",
        nargs="*",
        metavar="KEY VALUE",
        help="configuration keys of every row, in place of the plan's options",
    )
    options = parser.parse_args(arguments)
    plan = AblationPlan.read(options.plan).changed(options.opts)
    results = run_ablation(plan, options.output, options.data_root, dict(options.also_evaluate))
    parts = [
        f"{data}:\n\n{ablation_table(rows)}\n\n{difference_table(rows)}" for data, rows in results.items()
    ]
    if options.predict:
        parts.append(
            f"as tools/predict.py finds them:\n\n{predict_laboratories(plan, options.output, options.data_root)}"
        )
    text = "\n\n".join(part.rstrip() for part in parts) + "\n"
    with replacing(options.output / "RESULTS.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    run_command(main)
