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
from bccd_d2.conversion.label_masks import LABEL_FORMATS
from bccd_d2.conversion.splits import SplitPlan
from bccd_d2.segmentation.instances import MIN_AREA

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
    add = parser.add_argument_group("instead of converting").add_argument
    add("--check", type=Path, metavar="JSON", help="list all faults of a COCO instance file")
    add("--to-masks", type=Path, metavar="JSON", help="write its instances as label images to --output")
    add("--mask-format", choices=LABEL_FORMATS, default="png", help="for --to-masks (default png)")
    add = parser.add_argument_group("from mask to instances").add_argument
    text = "what the masks mean and where they lie: a YAML file, or one of configs/datasets: "
    text += f"{', '.join(known_specs())} (default {DEFAULT_SPEC})"
    add("--spec", metavar="NAME|FILE", help=text)
    text = f"drop instances of fewer pixels (default {MIN_AREA})"
    add("--min-area", type=int, metavar="PX", help=text)
    text = "drop also those below this share of the image's median instance area (default 0)"
    add("--min-area-relative", type=float, metavar="SHARE", help=text)
    add("--fill-holes", type=int, metavar="PX", help="fill holes up to this many pixels (default 0)")
    text = "cut components that hold several cells, by a watershed on the distance transform whose peaks rise by D "
    text += "median cell diameters (0.01 where no D is given; default: do not cut)"
    add("--cut-touching", type=float, nargs="?", const=0.01, metavar="D", help=text)
    add_import_arguments(parser)
    add = parser.add_argument_group("classes").add_argument
    text = "annotated boxes with classes: BBBC041's JSON, or a folder of VOC XML or YOLO labels; needs a --spec that "
    text += "says what their categories mean (default: where the dataset spec says)"
    add("--boxes", type=Path, metavar="FILE|DIR", help=text)
    add = parser.add_argument_group("annotations").add_argument
    text = "'ignore' writes instances cut by the image border with iscrowd 1 (default keep)"
    add("--border", choices=("keep", "ignore"), default="keep", help=text)
    text = "write what looks like a cell but has no mask as regions with iscrowd 1"
    add("--ignore-unlabelled", action="store_true", help=text)
    add("--polygons", action="store_true", help="write polygons in place of run-length codes")
    group = parser.add_argument_group("train, val and test (random unless one of the first five is given)")
    add = group.add_mutually_exclusive_group().add_argument
    text = "by the data set's own lists, or the folders train/ and test/; without a val, some of train is val"
    add("--official", action="store_true", help=text)
    add("--group-prefix", metavar="SEP", help="keep images together whose names agree up to this text")
    text = "keep images together that agree in --group-column of this table"
    add("--group-table", metavar="CSV", help=text)
    text = "keep alike-stained images together, in N clusters"
    add("--stain-clusters", type=int, metavar="N", help=text)
    add(
        "--split-file", metavar="JSON", help="as a splits.json says, or a list of [image, mask] paths by part"
    )
    add = group.add_argument
    add("--group-column", metavar="NAME", help="column of --group-table")
    text, shares = f"shares (default {' '.join(map(str, SplitPlan.ratios))})", ("TRAIN", "VAL", "TEST")
    add("--ratios", type=float, nargs=3, default=SplitPlan.ratios, metavar=shares, help=text)
    add("--seed", type=int, default=SplitPlan.seed, help=f"of the dealing (default {SplitPlan.seed})")
    add("--max-images", type=int, metavar="N", help="use at most this many images (default all)")


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--from`` and ``--images``, which say how annotations of other tools are read."""
    add = parser.add_argument_group("annotations of other tools, in place of masks").add_argument
    formats = ", ".join(f"{name} ({importer.description})" for name, importer in FORMATS.items())
    text = f"format of the annotations: {formats}; or {AUTO}, to recognise it (default, where there are no masks)"
    add("--from", dest="annotation_format", choices=(*FORMATS, AUTO), metavar="FORMAT", help=text)
    add("--images", type=Path, metavar="DIR", help="folder of the images (default: that of the annotations)")


def conversion_options(args: argparse.Namespace) -> ConversionOptions:
    """Options from what :func:`add_conversion_arguments` added; raises InputError for a value out of its range."""
    spec = read_spec(args.spec or DEFAULT_SPEC)
    names = ("min_area", "min_area_relative", "fill_holes", "cut_touching")
    given = {name.removesuffix("_touching"): getattr(args, name) for name in names}
    instances = replace(spec.instances, **{name: value for name, value in given.items() if value is not None})
    rule = AnnotationRule(args.border, args.ignore_unlabelled, args.polygons)
    return ConversionOptions(replace(spec, instances=instances), rule, _split_plan(args))


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
