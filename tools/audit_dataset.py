"""Audit a data set of images and masks: what is in it and which annotations look wrong, as an HTML page and as JSON."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from bccd_d2.audit.run import JSON_FILE, PAGE_FILE, STAIN_CLUSTERS, audit_dataset
from bccd_d2.commands import CommandParser, run_command
from bccd_d2.conversion.arguments import add_workers
from bccd_d2.conversion.dataset_spec import known_specs, read_spec
from bccd_d2.segmentation.instances import MIN_AREA


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(__doc__, "docs/audit.md explains the numbers.")
    add = parser.add_argument
    root_help = "folder with the data, searched at every depth"
    add("--root", type=Path, required=True, metavar="DIR", help=root_help)
    add("--output", type=Path, required=True, metavar="DIR", help=f"folder for {PAGE_FILE} and {JSON_FILE}")
    coco_help = "output of tools/convert_bccd.py for the same data: adds train, val, test and classes"
    add("--coco", type=Path, metavar="DIR", help=coco_help)
    spec_help = "what the masks mean and where they lie: a YAML file, or one of configs/datasets: "
    add(
        "--spec",
        default="kaggle",
        metavar="NAME|FILE",
        help=f"{spec_help}{', '.join(known_specs())} (default kaggle)",
    )
    add("--min-area", type=int, metavar="PX", help=f"smaller components are specks (default {MIN_AREA})")
    add("--worst", type=int, default=12, metavar="N", help="images to show (default %(default)s)")
    cluster_help = f"groups of similar stain (default {STAIN_CLUSTERS}, fewer for few images)"
    add("--stain-clusters", type=int, metavar="N", help=cluster_help)
    add("--max-images", type=int, metavar="N", help="audit N images, spread over the set (default all)")
    add("--overwrite", action="store_true", help="replace an earlier audit")
    add_workers(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Audit, and print the summary."""
    args = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    spec = read_spec(args.spec)
    if args.min_area is not None:
        spec = replace(spec, instances=replace(spec.instances, min_area=args.min_area))
    document = audit_dataset(
        args.root,
        args.output,
        spec,
        worst=args.worst,
        stain_clusters=args.stain_clusters,
        max_images=args.max_images,
        coco=args.coco,
        workers=args.workers,
        overwrite=args.overwrite,
    )
    print("\n".join(document["summary"]))
    for fault in document["faults"]:
        print(f"left out: {fault}")
    print(f"written to {args.output / PAGE_FILE} and {args.output / JSON_FILE}")
    return 0


if __name__ == "__main__":
    run_command(main)
