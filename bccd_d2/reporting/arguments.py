"""What the commands that judge predictions have in common: where truth and predictions are, and the rules."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bccd_d2.conversion.convert import annotation_file
from bccd_d2.errors import InputError
from bccd_d2.evaluation.external import LABEL_SUFFIXES
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.reporting.part import Source, read_source, source_name


def add_truth_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says where the ground truth is and how predictions belong to it."""
    add = parser.add_argument_group("what the predictions are compared with").add_argument
    add(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="folder that tools/convert_bccd.py wrote (default: the run's)",
    )
    add(
        "--part",
        nargs="+",
        metavar="NAME",
        help="parts of it, one for each file or folder of predictions (default val)",
    )
    add("--truth", type=Path, metavar="JSON", help="a COCO instance file, in place of --data-root and --part")
    add("--images", type=Path, metavar="DIR", help="folder of the images (default: as the ground truth says)")
    suffix_help = (
        "what stands after an image's stem in the name of its label image (default: what Cellpose, StarDist"
    )
    add(
        "--label-suffix",
        nargs="+",
        default=LABEL_SUFFIXES,
        metavar="TEXT",
        help=f"{suffix_help} and InstanSeg write)",
    )
    add("--class-agnostic", action="store_true", help="leave classes aside, which label images do not have")


def add_rule_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what changes the rules; what is not given comes from the run's configuration, else from the defaults."""
    defaults = EvaluationOptions()
    add = parser.add_argument_group("rules (default: those of the run's configuration)").add_argument
    score_help = (
        f"what is counted has this score or more; AP looks at all (without a run {defaults.score_threshold})"
    )
    add("--score-threshold", type=float, metavar="SCORE", help=score_help)
    detection_help = (
        f"predictions that an image may have; more are an error (without a run {defaults.max_detections})"
    )
    add("--max-detections", type=int, metavar="N", help=detection_help)
    border_help = "a cell touches the border from this near on"
    add("--border-margin", type=int, metavar="PX", help=border_help)
    size_help = "diameters that part small, medium and large cells"
    add("--size-edges", type=float, nargs=2, metavar="PX", help=size_help)
    add("--bootstrap-samples", type=int, metavar="N", help="resamples for each interval; 0 for none")


def chosen_options(args: argparse.Namespace, base: EvaluationOptions | None) -> EvaluationOptions:
    """The rules of :func:`add_rule_arguments` over those of a run."""
    names = ("score_threshold", "max_detections", "border_margin", "size_edges", "bootstrap_samples")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "size_edges" in given:
        given["size_edges"] = tuple(given["size_edges"])
    return replace(base or EvaluationOptions(), **given)


def read_run_sources(run: Path, args: argparse.Namespace) -> tuple[list[Source], EvaluationOptions, str]:
    """Parts, rules and configuration of a run; of the parts those of ``--part``, if it is given.

    Raises:
        InputError: ``--truth`` is given, or see :func:`bccd_d2.reporting.run.read_run`.
    """
    # Imported where needed: the configuration brings Detectron2 and torch, which foreign predictions do without.
    from bccd_d2.reporting.run import read_run

    if args.truth is not None:
        raise InputError(
            "--truth does not go with a run, which knows its data; give --data-root if they have moved"
        )
    return read_run(
        run, args.data_root, args.part, image_root=args.images, class_agnostic=args.class_agnostic
    )


def read_prediction_sources(predictions: Sequence[Path], args: argparse.Namespace) -> list[Source]:
    """Files or folders of predictions, each with its part.

    Raises:
        InputError: the ground truth is not named, or there are not as many parts as predictions.
    """
    if (args.data_root is None) == (args.truth is None):
        raise InputError("say what the predictions are compared with: --data-root (and --part), or --truth")
    if args.truth is not None:
        if args.part or len(predictions) != 1:
            raise InputError(
                f"--truth goes with one file or folder of predictions and no --part, found {len(predictions)}"
            )
        return [_read(args.truth.stem.removeprefix("instances_"), args.truth, predictions[0], args)]
    parts = args.part or ["val"]
    if len(parts) != len(predictions):
        raise InputError(
            f"{len(predictions)} files or folders of predictions and --part {' '.join(parts)}, expected as many"
        )
    return [
        _read(part, args.data_root / annotation_file(part), path, args)
        for part, path in zip(parts, predictions)
    ]


def _read(part: str, truth: Path, predictions: Path, args: argparse.Namespace) -> Source:
    return read_source(
        source_name(part),
        truth,
        predictions,
        image_root=args.images,
        label_suffixes=args.label_suffix,
        class_agnostic=args.class_agnostic,
    )
