"""Command-line options of the tools that evaluate predictions: truth, predictions and evaluation options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bccd_d2.errors import InputError
from bccd_d2.evaluation.external import LABEL_SUFFIXES
from bccd_d2.evaluation.joining import IMAGE_IDS
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.reporting.sources import Source, read_run, read_source
from bccd_d2.structures.dataset_files import dataset_file


def add_truth_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the ground truth."""
    add = parser.add_argument_group("ground truth").add_argument
    root_help = "folder that tools/convert_bccd.py wrote (default: the run's)"
    add("--data-root", type=Path, metavar="DIR", help=root_help)
    part_help = "data set of each file or folder of predictions: val (default), or voc_val of the source voc"
    add("--part", nargs="+", metavar="NAME", help=part_help)
    truth_help = "COCO JSON, or annotations of another tool, in place of --data-root and --part"
    add("--truth", type=Path, metavar="FILE_OR_DIR", help=truth_help)
    add("--images", type=Path, metavar="DIR", help="folder of the images (default: as the ground truth says)")
    suffix_help = (
        "ends of names of label images after the image's stem (default: Cellpose's, StarDist's, InstanSeg's)"
    )
    add("--label-suffix", nargs="+", default=LABEL_SUFFIXES, metavar="TEXT", help=suffix_help)
    id_help = (
        "what image_id of COCO results is: ids of the ground truth, or names of images (default: what fits)"
    )
    add("--image-ids", choices=IMAGE_IDS, help=id_help)
    add("--class-agnostic", action="store_true", help="ignore classes, for predictions without them")


def add_rule_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the evaluation options; their defaults come from the run's configuration, if there is a run."""
    defaults = EvaluationOptions()
    add = parser.add_argument_group(
        "evaluation options (default: those of the run's configuration)"
    ).add_argument
    score_help = f"lowest score of a prediction; AP uses all (without a run {defaults.score_threshold})"
    add("--score-threshold", type=float, metavar="SCORE", help=score_help)
    detection_help = (
        f"most predictions per image; more are an error (without a run {defaults.max_detections})"
    )
    add("--max-detections", type=int, metavar="N", help=detection_help)
    border_help = "largest distance to the border of a cell that touches it"
    add("--border-margin", type=int, metavar="PX", help=border_help)
    size_help = "diameters between small and medium and between medium and large cells"
    add("--size-edges", type=float, nargs=2, metavar="PX", help=size_help)
    add("--bootstrap-samples", type=int, metavar="N", help="resamples for each interval; 0 for none")


def chosen_options(args: argparse.Namespace, base: EvaluationOptions | None) -> EvaluationOptions:
    """The options of :func:`add_rule_arguments`, by default those of a run."""
    names = ("score_threshold", "max_detections", "border_margin", "size_edges", "bootstrap_samples")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "size_edges" in given:
        given["size_edges"] = tuple(given["size_edges"])
    return replace(base or EvaluationOptions(), **given)


def read_run_sources(run: Path, args: argparse.Namespace) -> tuple[list[Source], EvaluationOptions, str]:
    """Sources of a run (of ``--part``, if given), evaluation options and configuration; an InputError if ``--truth`` is
    given.
    """
    if args.truth is not None:
        raise InputError(
            "--truth cannot be used with a run, whose configuration names its data; give --data-root if they have moved"
        )
    return read_run(
        run, args.data_root, args.part, image_root=args.images, class_agnostic=args.class_agnostic
    )


def read_prediction_sources(predictions: Sequence[Path], args: argparse.Namespace) -> list[Source]:
    """Files or folders of predictions, each with its part; an InputError if truth or parts do not fit them."""
    if (args.data_root is None) == (args.truth is None):
        raise InputError("no ground truth: give --data-root (and --part), or --truth")
    if args.truth is not None:
        if args.part or len(predictions) != 1:
            raise InputError(
                f"--truth needs exactly one file or folder of predictions and no --part, found {len(predictions)}"
            )
        return [_read(args.truth.stem.removeprefix("instances_"), args.truth, predictions[0], args)]
    parts = args.part or ["val"]
    if len(parts) != len(predictions):
        raise InputError(
            f"{len(predictions)} files or folders of predictions and --part {' '.join(parts)}, expected as many"
        )
    return [
        _read(part, dataset_file(args.data_root, part), path, args) for part, path in zip(parts, predictions)
    ]


def _read(part: str, truth: Path, predictions: Path, args: argparse.Namespace) -> Source:
    options = {"image_ids": args.image_ids, "class_agnostic": args.class_agnostic}
    return read_source(part, truth, predictions, args.images, label_suffixes=args.label_suffix, **options)
