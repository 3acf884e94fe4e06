"""Draw synthetic blood smears with exact masks, laid out like the Kaggle set "BCCD Dataset with mask"."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import cv2

from bccd_d2.commands import CommandParser, run_command
from bccd_d2.synthetic.files import EXTRAS, TEST_FRACTION, SyntheticSet, write_synthetic_set
from bccd_d2.synthetic.slide import CELL_DIAMETER


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected WIDTHxHEIGHT, e.g. 1600x1200")
    return int(match[1]), int(match[2])


def _extras(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder for the set")
    add("--images", type=int, required=True, metavar="N", help="number of images")
    add("--seed", type=int, default=42, help="same seed, same files, byte for byte (default: %(default)s)")
    size_help = "of every image in pixels; cells keep their size (default: 1600x1200)"
    add("--size", type=_size, default=(1600, 1200), metavar="WIDTHxHEIGHT", help=size_help)
    fraction_help = "share of the images in test/ (default: %(default).3f, as in the Kaggle set)"
    add("--test-fraction", type=float, default=TEST_FRACTION, help=fraction_help)
    slide_help = "images in a row that share stain and light (default: %(default)s)"
    add("--images-per-slide", type=int, default=2, metavar="N", help=slide_help)
    variety_help = (
        "bccd: stain and camera vary as in the Kaggle set. wide: stain, light, camera, focus, magnification and number "
        "of cells vary as between laboratories (default: %(default)s)"
    )
    add("--variety", choices=tuple(CELL_DIAMETER), default="bccd", help=variety_help)
    ranges = ", ".join(f"{low:.0f} {high:.0f} for {name}" for name, (low, high) in CELL_DIAMETER.items())
    diameter_help = f"range of the red cells' mean diameter in pixels (default: {ranges})"
    add("--cell-diameter", type=float, nargs=2, metavar=("MIN", "MAX"), help=diameter_help)
    platelet_help = "mark platelets in the binary masks and boxes too; the real set does not"
    add("--platelets-in-mask", action="store_true", help=platelet_help)
    extras_help = (
        "comma-separated: mask-classes (red, green, blue: RBC, WBC, platelets; in mask_classes/), "
        "instances (16-bit label maps in instances/), boxes (bbbc041_boxes.json)"
    )
    add("--extras", type=_extras, default=(), metavar=",".join(EXTRAS), help=extras_help)
    add("--overwrite", action="store_true", help="replace an earlier set; other files in the folder stay")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Draw the set and say what is in it."""
    args = parse_arguments(arguments)
    cv2.setNumThreads(1)  # pictures are small: threads cost more than they save
    plan = SyntheticSet(
        images=args.images,
        seed=args.seed,
        width=args.size[0],
        height=args.size[1],
        test_fraction=args.test_fraction,
        images_per_slide=args.images_per_slide,
        cell_diameter=tuple(args.cell_diameter) if args.cell_diameter else None,
        platelets_in_mask=args.platelets_in_mask,
        extras=args.extras,
        variety=args.variety,
    )
    counts = write_synthetic_set(args.output, plan, args.overwrite)
    cells = ", ".join(f"{counts[name]} {name}" for name in ("RBC", "WBC", "Platelets"))
    print(f"{args.images} images with {cells} in {args.output}")
    return 0


if __name__ == "__main__":
    run_command(main)
