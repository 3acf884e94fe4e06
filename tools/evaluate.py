"""Evaluate predictions, of this project's models or of any other tool, and write a report.

Written are report.html (opens from disk, needs no network), metrics.json, cells.csv (one row per cell), results.md (a
table to paste) and figures in viz/. With --points the truth are points, and only their recall is printed.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict
from pathlib import Path

from bccd_d2.commands import CommandParser, refuse_to_replace, run_command
from bccd_d2.errors import InputError
from bccd_d2.evaluation.external import read_predictions
from bccd_d2.evaluation.points import images_as_truth, point_recall, point_table, read_points
from bccd_d2.files import write_json
from bccd_d2.reporting.arguments import (
    add_rule_arguments,
    add_truth_arguments,
    chosen_options,
    read_prediction_sources,
    read_run_sources,
)
from bccd_d2.reporting.cases import SHOWN
from bccd_d2.reporting.report import PAGE_FILE, TABLE_FILE, write_report
from bccd_d2.reporting.sources import evaluate_sources
from bccd_d2.reporting.wording import summary_sentences

EXAMPLES = """examples:
  python tools/evaluate.py --run output/model
  python tools/evaluate.py --predictions val.json test.json --data-root datasets/bccd --part val test --name "Our model"
  python tools/evaluate.py --predictions cellpose_masks/ --data-root datasets/bccd --part test --output output/cellpose
  python tools/evaluate.py --predictions results.json --truth instances.json --images my_images
  python tools/evaluate.py --predictions output/cells --points labels --images images
"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(__doc__, EXAMPLES)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path, metavar="DIR", help="OUTPUT_DIR of tools/train_net.py, evaluated")
    prediction_help = (
        "COCO JSON; a folder of label images, GeoJSON or ImageJ regions; what tools/predict.py wrote; or "
        "annotations of CVAT, LabelMe, VIA, Label Studio, YOLO or Cellpose"
    )
    what.add_argument("--predictions", type=Path, nargs="+", metavar="FILE_OR_DIR", help=prediction_help)
    output_help = "folder to write to (default: evaluation in the run, or FILE_OR_DIR with _evaluation added)"
    parser.add_argument("--output", type=Path, metavar="DIR", help=output_help)
    parser.add_argument("--name", help="title of the report (default: the file or folder of the predictions)")
    shown_help = "images per part on the page, the worst and the best (default %(default)s)"
    parser.add_argument("--shown", type=int, default=SHOWN, metavar="N", help=shown_help)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier report")
    points_help = (
        "in place of the truth: a folder with a text file per image, lines 'x y' or 'x y class' in pixels"
    )
    parser.add_argument("--points", type=Path, metavar="DIR", help=points_help)
    add_truth_arguments(parser)
    add_rule_arguments(parser)
    return parser.parse_args(arguments)


def evaluate_points(args: argparse.Namespace) -> None:
    """Print the recall of points, and write it where --output is given.

    Raises:
        InputError: an option that is needed is missing, or one that does not fit is given.
    """
    if args.predictions is None or len(args.predictions) != 1 or args.images is None:
        raise InputError("--points needs one file or folder of --predictions, and --images DIR")
    if args.truth is not None or args.data_root is not None:
        raise InputError("--points takes the place of --truth and --data-root; give one of them")
    images = images_as_truth(args.images)
    points = read_points(args.points, [image.file_name for image in images.images])
    found = read_predictions(
        args.predictions[0], images, args.label_suffix, image_ids=args.image_ids, class_agnostic=True
    )
    recalls = point_recall(found, points, chosen_options(args, None).score_threshold)
    print(f"\n{len(points)} images with points\n\n{point_table(recalls)}")
    if args.output is not None:
        file = args.output / "points.json"
        refuse_to_replace(file, args.overwrite)
        write_json(file, {name: asdict(one) for name, one in recalls.items()}, indent=2)


def main(arguments: list[str] | None = None) -> None:
    """Read, evaluate, write, and print the table."""
    args = parse(arguments)
    logging.basicConfig(format="%(message)s")
    if args.points is not None:
        evaluate_points(args)
        return
    if args.run is not None:
        sources, base, config = read_run_sources(args.run, args)
        name, output = args.run.resolve().name, args.run / "evaluation"
    else:
        sources, base, config = read_prediction_sources(args.predictions, args), None, None
        subject = args.predictions[0]
        if subject.name in ("", ".."):
            subject = subject.resolve()
        name = subject.stem if subject.is_file() else subject.name
        output = subject.with_name(f"{name}_evaluation")
    parts = evaluate_sources(sources, chosen_options(args, base))
    out = args.output or output
    write_report(
        parts, out, title=args.name or name, config=config, shown=args.shown, overwrite=args.overwrite
    )
    print("\n".join(["", *summary_sentences(parts[-1].evaluation), ""]))
    print((out / TABLE_FILE).read_text(encoding="utf-8"))
    print(f"report: {out / PAGE_FILE}")


if __name__ == "__main__":
    run_command(main)
