"""Convert masks, boxes or annotations of other tools to COCO instance JSON and a split; check such JSON; turn it into
label images."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from bccd_d2.commands import CommandParser, run_command
from bccd_d2.conversion.arguments import AUTO, add_conversion_arguments, add_workers, conversion_options
from bccd_d2.conversion.convert import convert_annotations, convert_dataset
from bccd_d2.conversion.importers import mask_folders, recognise
from bccd_d2.conversion.label_masks import write_label_masks
from bccd_d2.conversion.pairs import find_pairs, list_names
from bccd_d2.errors import InputError
from bccd_d2.io.coco_images import check_file
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.dataset_files import PARTS
from bccd_d2.system import terminate_like_interrupt


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(__doc__, "docs/conversion.md says more.")
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR|FILE",
        help="folder with the data, searched at every depth, or annotation file",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for annotations/ and splits.json")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out unusable files and list them at the end"
    )
    add_workers(parser)
    add_conversion_arguments(parser)
    args = parser.parse_args(arguments)
    if args.check and args.to_masks:
        parser.error("--check: not together with --to-masks")
    if args.to_masks and not args.output:
        parser.error("--to-masks needs --output")
    if not (args.check or args.to_masks) and not (args.root and args.output):
        parser.error("--root and --output are needed")
    return args


def convert(args: argparse.Namespace) -> int:
    """Convert and print what came out."""
    options = conversion_options(args)
    common = {"workers": args.workers, "overwrite": args.overwrite, "skip_bad": args.skip_bad}
    if is_import(args):
        for name in ("boxes", "min_area_relative", "fill_holes", "cut_touching"):
            if getattr(args, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise InputError(f"{option}: for masks, but {args.root} holds annotations of another tool")
        summary = convert_annotations(
            args.root,
            args.output,
            options,
            kind=None if args.annotation_format == AUTO else args.annotation_format,
            images=args.images,
            min_area=args.min_area or 1,
            **common,
        )
    else:
        summary = convert_dataset(args.root, args.output, options, boxes=args.boxes, **common)
    for part in PARTS:
        print(f"{part}: {summary.images[part]} images, {summary.instances[part]} annotations")
    for fault in summary.faults:
        print(f"left out: {fault}")
    print(f"written to {args.output}")
    return 0


def is_import(args: argparse.Namespace) -> bool:
    """Whether --root holds annotations of another tool and not images with masks."""
    if args.annotation_format or args.images:
        return True
    if args.spec or args.boxes:
        return False
    if args.root.is_file():
        return True
    faults: list[str] = []
    try:
        find_pairs(args.root, faults)
    except InputError as no_masks:
        if not args.root.is_dir():
            return False
        try:
            logging.getLogger(__name__).info(
                "%s: no masks; annotations in %s format", args.root, recognise(args.root)
            )
        except InputError as error:
            text = list_names(f"{no_masks}; found", faults) if faults else str(no_masks)
            raise InputError(f"{text}\nor annotations of another tool: {error}") from error
        return True
    return bool(mask_folders(args.root))


def check(args: argparse.Namespace) -> int:
    """Print all faults; status 1 if there are any."""
    faults, root = check_file(args.check, args.root)
    for fault in faults:
        print(fault)
    images = "images checked too" if root else "images not checked; --root says where they are"
    print(f"{args.check}: {len(faults) or 'no'} faults ({images})", file=sys.stderr)
    return 1 if faults else 0


def main(arguments: list[str] | None = None) -> int:
    """Convert, check, or write label images."""
    args = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.check:
        return check(args)
    if args.to_masks:
        document = read_coco(args.to_masks)
        count = write_label_masks(document, args.output, args.mask_format, overwrite=args.overwrite)
        print(f"{count} label images written to {args.output}")
        return 0
    return convert(args)


def run() -> int:
    """The command: one that is terminated clears its unfinished files away as an interrupted one does."""
    terminate_like_interrupt()
    return main()


if __name__ == "__main__":
    run_command(run)
