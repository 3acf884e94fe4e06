"""Adapt a model to your images: correct some of its outlines, train it further on them, predict with the result.

Without options the shipped model is adapted. Some of the corrected images are held back; a table compares the model
with what it was on those. Minutes on a CPU. docs/adapt.md shows how to correct outlines in other tools.
With --types it is the classifier of cell types that is adapted, to types of your own or corrected ones.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported

# isort: split
from bccd_d2.cell_types.adaptation import adapt_types
from bccd_d2.cell_types.crops import middle
from bccd_d2.cell_types.figures import worst_cells
from bccd_d2.commands import CommandParser, run_command
from bccd_d2.config import check_device
from bccd_d2.conversion.arguments import AUTO, add_import_arguments
from bccd_d2.conversion.dataset_spec import read_spec
from bccd_d2.engine.adapt import adapt
from bccd_d2.inference.arguments import add_model_arguments, model_from
from bccd_d2.inference.model_files import WEIGHTS_FOLDER
from bccd_d2.reporting.run_figures import save_figure

SHIPPED_TYPES = "types_white"
EXAMPLES = """examples:
  python tools/adapt.py --corrected corrected/ --output models/ours
  python tools/adapt.py --corrected cvat_export/ --from cvat --replay datasets/bccd --output models/ours
  python tools/adapt.py --types cells/cells.csv --images cells/images --output models/ours
  python tools/adapt.py --types crops/ --diameter 75 --output models/ours
  python tools/predict.py --run models/ours --input images/ --output predictions
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(__doc__, EXAMPLES)
    add = parser.add_argument
    given = parser.add_mutually_exclusive_group(required=True)
    corrected_help = "corrected annotations, and their images"
    given.add_argument("--corrected", type=Path, metavar="DIR|FILE", help=corrected_help)
    types_help = (
        "types of cells, in place of outlines: a folder of crops per type, or cells.csv of predict.py --types with its "
        f"column type corrected. The start is {SHIPPED_TYPES}; --model types_red or --weights FILE is another"
    )
    given.add_argument("--types", type=Path, metavar="DIR|FILE", help=types_help)
    diameter_help = "width of a red cell in the images of --types; needed for crops"
    add("--diameter", type=float, metavar="PX", help=diameter_help)
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the adapted model")
    replay_help = "data set of tools/convert_bccd.py, mixed in so that the model stays good on it"
    add("--replay", type=Path, metavar="DIR", help=replay_help)
    spec_help = "dataset spec of masks or label images (label_maps), in place of --from"
    add("--spec", metavar="NAME|FILE", help=spec_help)
    add("--resume", action="store_true", help="continue an interrupted adaptation")
    opts_help = "configuration, such as SOLVER.MAX_ITER 800, or epochs 60 with --types; last on the line"
    add("opts", nargs="*", metavar="KEY VALUE", help=opts_help)
    add_import_arguments(parser)
    add_model_arguments(parser)
    args = parser.parse_args(arguments)
    only = (
        ("spec", "replay", "resume", "annotation_format", "run", "config_file")
        if args.types
        else ("diameter",)
    )
    if wrong := [name for name in only if getattr(args, name)]:
        option = "from" if wrong[0] == "annotation_format" else wrong[0].replace("_", "-")
        parser.error(f"--{option}: not together with {'--types' if args.types else '--corrected'}")
    if args.types and args.model and args.weights:
        parser.error("--model: not together with --weights")
    return args


def main(arguments: list[str] | None = None) -> None:
    """Adapt, and print the table."""
    args = parse(arguments)
    logging.basicConfig(format="%(message)s")
    if args.device is not None:
        check_device(args.device, "--device")
    if args.types is not None:
        adapt_own_types(args)
        return
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


def adapt_own_types(args: argparse.Namespace) -> None:
    """Adapt the classifier of cell types, and print the table."""
    logging.getLogger("bccd_d2").setLevel(logging.INFO)
    start = Path(args.weights or WEIGHTS_FOLDER / f"{args.model or SHIPPED_TYPES}.safetensors")
    found = adapt_types(
        args.types,
        args.output,
        start,
        images=args.images,
        diameter_px=args.diameter,
        options=args.opts,
        device=args.device or "cpu",
    )
    result, card = found.result, found.result.classifier.card
    crops = middle(result.validation.pixels, card.crop_size)
    figure = worst_cells(crops, result.probabilities, result.validation.labels, card.types)
    sheet = save_figure(figure, args.output / f"{start.stem}_worst.png")
    print(f"\n{found.table()}\n")
    if found.kept_start:
        print(
            "The adapted classifier is worse on the held-back cells: the folder holds the start. Give more cells."
        )
    elif found.after.macro_f1 <= found.before.macro_f1:
        print("Macro F1 did not become better: give more cells, or keep the classifier that you have.")
    print(f"classifier: {found.weights}; {sheet} shows the held-back cells it errs on most")


if __name__ == "__main__":
    run_command(main)
