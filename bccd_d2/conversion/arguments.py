"""Command-line options of the conversion."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from bccd_d2.conversion.convert import ConversionOptions
from bccd_d2.conversion.convert_image import AnnotationRule
from bccd_d2.conversion.dataset_spec import known_specs, read_spec
from bccd_d2.conversion.importers import FORMATS
from bccd_d2.conversion.instances import InstanceRule
from bccd_d2.conversion.label_masks import LABEL_FORMATS
from bccd_d2.conversion.splits import SplitPlan

AUTO = "auto"
DEFAULT_SPEC = "kaggle"
MAX_WORKERS = 8


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``."""
    default = min(os.cpu_count() or 1, MAX_WORKERS)
    text = f"processes (default {default}, one per core)"
    parser.add_argument("--workers", type=int, default=default, metavar="N", help=text)


def add_conversion_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all options that say how to convert, in groups."""
    group = parser.add_argument_group("instead of converting")
    group.add_argument("--check", type=Path, metavar="JSON", help="list all faults of a COCO instance file")
    group.add_argument(
        "--to-masks", type=Path, metavar="JSON", help="write its instances as label images to --output"
    )
    group.add_argument(
        "--mask-format", choices=LABEL_FORMATS, default="png", help="for --to-masks (default png)"
    )
    group = parser.add_argument_group("from mask to instances")
    group.add_argument(
        "--spec",
        metavar="NAME|FILE",
        help="what the masks mean and where they lie: a YAML file, or one of configs/datasets: "
        f"{', '.join(known_specs())} (default {DEFAULT_SPEC})",
    )
    default = InstanceRule()
    group.add_argument(
        "--min-area",
        type=int,
        metavar="PX",
        help=f"drop instances of fewer pixels (default {default.min_area})",
    )
    group.add_argument(
        "--min-area-relative",
        type=float,
        metavar="SHARE",
        help="drop also those below this share of the image's median instance area (default 0)",
    )
    group.add_argument(
        "--fill-holes", type=int, metavar="PX", help="fill holes up to this many pixels (default 0)"
    )
    group.add_argument(
        "--cut-touching",
        type=float,
        nargs="?",
        const=0.01,
        metavar="D",
        help="cut components that hold several cells, by a watershed on the distance transform whose peaks rise by D "
        "median cell diameters (0.01 where no D is given; default: do not cut)",
    )
    add_import_arguments(parser)
    group = parser.add_argument_group("classes")
    group.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE|DIR",
        help="annotated boxes with classes: BBBC041's JSON, or a folder of VOC XML or YOLO labels; needs a --spec that "
        "says what their categories mean (default: where the dataset spec says)",
    )
    group = parser.add_argument_group("annotations")
    group.add_argument(
        "--border",
        choices=("keep", "ignore"),
        default="keep",
        help="'ignore' writes instances cut by the image border with iscrowd 1 (default keep)",
    )
    group.add_argument(
        "--ignore-unlabelled",
        action="store_true",
        help="write what looks like a cell but has no mask as regions with iscrowd 1",
    )
    group.add_argument("--polygons", action="store_true", help="write polygons in place of run-length codes")
    group = parser.add_argument_group("train, val and test (random unless one of the first five is given)")
    mode = group.add_mutually_exclusive_group()
    mode.add_argument(
        "--official",
        action="store_true",
        help="by the data set's own lists, or the folders train/ and test/; without a val, some of train is val",
    )
    mode.add_argument(
        "--group-prefix", metavar="SEP", help="keep images together whose names agree up to this text"
    )
    mode.add_argument(
        "--group-table", metavar="CSV", help="keep images together that agree in --group-column of this table"
    )
    mode.add_argument(
        "--stain-clusters", type=int, metavar="N", help="keep alike-stained images together, in N clusters"
    )
    mode.add_argument(
        "--split-file", metavar="JSON", help="as a splits.json says, or a list of [image, mask] paths by part"
    )
    group.add_argument("--group-column", metavar="NAME", help="column of --group-table")
    group.add_argument(
        "--ratios",
        type=float,
        nargs=3,
        default=SplitPlan.ratios,
        metavar=("TRAIN", "VAL", "TEST"),
        help=f"shares (default {' '.join(map(str, SplitPlan.ratios))})",
    )
    group.add_argument(
        "--seed", type=int, default=SplitPlan.seed, help=f"of the dealing (default {SplitPlan.seed})"
    )
    group.add_argument(
        "--max-images", type=int, metavar="N", help="use at most this many images (default all)"
    )


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--from`` and ``--images``, which say how annotations of other tools are read."""
    group = parser.add_argument_group("annotations of other tools, in place of masks")
    formats = ", ".join(f"{name} ({importer.description})" for name, importer in FORMATS.items())
    group.add_argument(
        "--from",
        dest="annotation_format",
        choices=(*FORMATS, AUTO),
        metavar="FORMAT",
        help=f"format of the annotations: {formats}; or {AUTO}, to recognise it (default, where there are no "
        "masks)",
    )
    group.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images (default: that of the annotations)"
    )


def conversion_options(args: argparse.Namespace) -> ConversionOptions:
    """Options from what :func:`add_conversion_arguments` added; raises InputError for a value out of its range."""
    spec = read_spec(args.spec or DEFAULT_SPEC)
    given = {
        name: value
        for name, value in (
            ("min_area", args.min_area),
            ("min_area_relative", args.min_area_relative),
            ("fill_holes", args.fill_holes),
            ("cut", args.cut_touching),
        )
        if value is not None
    }
    rule = AnnotationRule(args.border, args.ignore_unlabelled, args.polygons)
    spec = replace(spec, instances=replace(spec.instances, **given))
    return ConversionOptions(spec, rule, _split_plan(args))


def _split_plan(args: argparse.Namespace) -> SplitPlan:
    common = {"ratios": tuple(args.ratios), "seed": args.seed, "max_images": args.max_images}
    if args.official:
        return SplitPlan("official", **common)
    if args.group_prefix is not None:
        return SplitPlan("prefix", separator=args.group_prefix, **common)
    if args.group_table is not None:
        return SplitPlan("table", path=args.group_table, column=args.group_column, **common)
    if args.stain_clusters is not None:
        return SplitPlan("stain", clusters=args.stain_clusters, **common)
    if args.split_file is not None:
        return SplitPlan("file", path=args.split_file, **common)
    return SplitPlan(**common)
