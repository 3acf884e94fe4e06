"""Compare two sets of predictions of the same images: is the difference larger than chance?

Both are evaluated on the same resamples of the images (paired bootstrap), and a permutation test swaps them image by
image. A and B are runs of tools/train_net.py, COCO results, or folders of label images.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from bccd_d2.commands import CommandParser, run_command
from bccd_d2.errors import InputError
from bccd_d2.evaluation.bootstrap import compare_runs
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.files import write_json
from bccd_d2.reporting.arguments import (
    add_rule_arguments,
    add_truth_arguments,
    chosen_options,
    read_prediction_sources,
    read_run_sources,
)
from bccd_d2.reporting.sources import Source
from bccd_d2.reporting.wording import comparison_document, comparison_table

EXAMPLES = """examples:
  python tools/compare_runs.py output/baseline output/model
  python tools/compare_runs.py output/classical/val.json output/model --data-root datasets/bccd --part val
"""


def read(path: Path, args: argparse.Namespace) -> tuple[dict[str, Source], EvaluationOptions | None]:
    """Sources by part, and the evaluation options of a run; ``None`` for predictions without a run."""
    if (path / "config.yaml").is_file():
        sources, options, _ = read_run_sources(path, args)
    else:
        sources, options = read_prediction_sources([path], args), None
    return {source.name: source for source in sources}, options


def main(arguments: list[str] | None = None) -> None:
    """Compare the parts that both have."""
    parser = CommandParser(__doc__, EXAMPLES)
    parser.add_argument("a", type=Path, metavar="A", help="the reference")
    parser.add_argument(
        "b", type=Path, metavar="B", help="compared with A: positive differences mean that B is better"
    )
    parser.add_argument("--output", type=Path, metavar="JSON", help="also write the comparison to this file")
    add_truth_arguments(parser)
    add_rule_arguments(parser)
    args = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    (a, base_a), (b, base_b) = read(args.a, args), read(args.b, args)
    options = chosen_options(args, base_a or base_b)
    common = [part for part in a if part in b]
    if not common:
        raise InputError(
            f"{args.a} has the parts {', '.join(a)} and {args.b} {', '.join(b)}, expected a part in common"
        )
    if base_a and base_b and base_a != base_b:
        logging.warning(
            "the runs have different evaluation options; both are evaluated with those of %s", args.a
        )
    document = {}
    for part in common:
        found = compare_runs(a[part].dataset, b[part].dataset, options)
        document[part] = comparison_document(found, a[part], b[part])
        print(
            f"\n{part}, {len(a[part].dataset.images)} images. A: {args.a}, B: {args.b}\n\n{comparison_table(found)}"
        )
    if args.output is not None:
        write_json(args.output, document, indent=2)


if __name__ == "__main__":
    run_command(main)
