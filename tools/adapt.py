"""Adapt a model to your images: correct some of its outlines, train it further on them, predict with the result.

Without options the shipped model is adapted. Some of the corrected images are held back; a table compares the model
with what it was on those. Minutes on a CPU. docs/adapt.md shows how to correct outlines in other tools.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported

# isort: split
from bccd_d2.commands import CommandParser
from bccd_d2.conversion.arguments import AUTO, add_import_arguments
from bccd_d2.conversion.dataset_spec import read_spec
from bccd_d2.engine.adapt import adapt
from bccd_d2.errors import run_command
from bccd_d2.inference.arguments import add_model_arguments, model_from
from bccd_d2.inference.predictor import check_device

EXAMPLES = """examples:
  python tools/adapt.py --corrected corrected/ --output models/ours
  python tools/adapt.py --corrected cvat_export/ --from cvat --replay datasets/bccd --output models/ours
  python tools/predict.py --run models/ours --input images/ --output predictions
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(__doc__, EXAMPLES)
    add = parser.add_argument
    corrected_help = "corrected annotations, and their images"
    add("--corrected", type=Path, required=True, metavar="DIR|FILE", help=corrected_help)
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the adapted model")
    replay_help = "data set of tools/convert_bccd.py, mixed in so that the model stays good on it"
    add("--replay", type=Path, metavar="DIR", help=replay_help)
    spec_help = "dataset spec of masks or label images (label_maps), in place of --from"
    add("--spec", metavar="NAME|FILE", help=spec_help)
    add("--resume", action="store_true", help="continue an interrupted adaptation")
    opts_help = "configuration, such as SOLVER.MAX_ITER 800; last on the line"
    add("opts", nargs="*", metavar="KEY VALUE", help=opts_help)
    add_import_arguments(parser)
    add_model_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Adapt, and print the table."""
    args = parse(arguments)
    logging.basicConfig(format="%(message)s")
    if args.device is not None:
        check_device(args.device, "--device")
    result = adapt(
        args.corrected,
        args.output,
        model_from(args),
        kind=None if args.annotation_format in (None, AUTO) else args.annotation_format,
        images=args.images,
        spec=None if args.spec is None else read_spec(args.spec),
        replay=args.replay,
        options=[*(["MODEL.DEVICE", args.device] if args.device else []), *args.opts],
        resume=args.resume,
    )
    print(f"\n{result.images} images, {result.seconds / 60:.1f} minutes\n\n{result.table()}\n")
    if result.kept_start:
        print(
            "The adapted model is worse on the held-back images: the folder holds the start model. Correct more images."
        )
    elif result.after["F1"] <= result.before["F1"]:
        print("F1 did not become better: correct more images, or keep the model that you have.")
    print(f"model: {args.output}; cells are {result.diameter:.0f} px wide in the corrected images")


if __name__ == "__main__":
    run_command(main)
