"""Convert images with semantic masks to COCO instance JSON and a split into train, val and test."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from bccd_d2.conversion.convert import ConversionOptions, convert_dataset
from bccd_d2.conversion.instances import MIN_AREA
from bccd_d2.conversion.splits import PARTS, SEED
from bccd_d2.errors import run_command


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, required=True, help="folder with the data, e.g. the unpacked Kaggle set"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for annotations/ and splits.json")
    parser.add_argument("--max-images", type=int, help="use at most this many images (default: all)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the split")
    parser.add_argument("--min-area", type=int, default=MIN_AREA, help="drop components of fewer pixels")
    parser.add_argument("--connectivity", type=int, choices=(4, 8), default=8, help="of the components")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out unusable files and list them at the end"
    )
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8), help="processes")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Convert and print what came out."""
    args = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    summary = convert_dataset(
        args.root,
        args.out,
        ConversionOptions(args.min_area, args.connectivity, args.seed, args.max_images),
        workers=args.workers,
        overwrite=args.overwrite,
        skip_bad=args.skip_bad,
    )
    for part in PARTS:
        print(f"{part}: {summary.images[part]} images, {summary.instances[part]} instances")
    for fault in summary.faults:
        print(f"skipped: {fault}")
    print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    run_command(main)
