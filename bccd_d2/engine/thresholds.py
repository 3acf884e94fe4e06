"""Chooses score thresholds, and whether to suppress masks, by what an evaluation on the validation part predicted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode

from bccd_d2.errors import InputError
from bccd_d2.evaluation.average_precision import (
    PrecisionRecallCurve,
    precision_recall_curve,
    rank_predictions,
    scored_image,
)
from bccd_d2.evaluation.dataset import EvaluationSet, read_evaluation_set
from bccd_d2.evaluation.detectron2_evaluator import RESULTS_FILE
from bccd_d2.evaluation.matching import overlaps
from bccd_d2.evaluation.options import IOU_THRESHOLDS
from bccd_d2.modeling.suppression import MaskSuppression
from bccd_d2.structures.dataset_files import dataset_file, default_root

MASK_SUPPRESSIONS = (
    *(MaskSuppression("iou", threshold) for threshold in (0.3, 0.5, 0.7)),
    *(MaskSuppression("containment", threshold) for threshold in (0.5, 0.7, 0.9)),
)
"""What is tried."""
_PART = "val"


@dataclass(frozen=True)
class ClassThreshold:
    """The best threshold of one class; without cells that are found, the score from before and no F1."""

    threshold: float  # detections with a higher score are kept
    f1: float | None  # there, in [0, 1]
    f1_before: float | None  # at the score from before, with the first of the suppressions tried


@dataclass(frozen=True)
class Tuning:
    """What was chosen, by class index; no ``mask_suppression`` for ``None``."""

    classes: Sequence[ClassThreshold]
    mask_suppression: MaskSuppression | None

    @property
    def mean_f1(self) -> float:
        """Over the classes that have one; 0 where none has."""
        known = [one.f1 for one in self.classes if one.f1 is not None]
        return float(np.mean(known)) if known else 0.0


def tune(
    dataset: EvaluationSet,
    iou_threshold: float = 0.5,
    score_before: float = 0.5,
    lowest_score: float = 0.0,
    suppressions: Sequence[MaskSuppression | None] = (None,),
) -> Tuning:
    """For each class the threshold with the greatest F1; of several suppressions that with the greatest mean F1.

    Predictions, down to a low score, are matched with true cells of their class, best score first, as for the average
    precision; what lies in regions to ignore does not count. ``iou_threshold`` is the least mask IoU of a cell that is
    found; all scores are above ``lowest_score``; of equal suppressions the first one is taken. Raises InputError where
    ``iou_threshold`` is none of 0.5, 0.55, ..., 0.95, or there is no prediction at all.
    """
    found = np.flatnonzero(np.isclose(IOU_THRESHOLDS, iou_threshold))
    if not found.size:
        known = ", ".join(f"{one:g}" for one in IOU_THRESHOLDS)
        raise InputError(f"IoU threshold: expected one of {known}, found {iou_threshold:g}")
    if not any(len(image.predictions) for image in dataset.images):
        raise InputError("there is not one prediction: nothing to choose thresholds by")
    scored = [scored_image(overlaps(image)) for image in dataset.images]
    tunings = []
    for suppression in suppressions:
        kept = scored
        if suppression is not None:
            rows = [suppression(image.predictions) for image in dataset.images]
            kept = [
                replace(
                    image,
                    iou=image.iou[index],
                    scores=image.scores[index],
                    predicted_classes=image.predicted_classes[index],
                    prediction_left_out=image.prediction_left_out[index],
                )
                for image, index in zip(scored, rows)
            ]
        detections = rank_predictions(kept, len(dataset.class_names))
        curves = [
            precision_recall_curve(detections, index, int(found[0]))
            for index in range(len(dataset.class_names))
        ]
        tunings.append(Tuning([_best(curve, score_before, lowest_score) for curve in curves], suppression))
    best = max(tunings, key=lambda tuning: tuning.mean_f1)
    before = [one.f1_before for one in tunings[0].classes]
    return replace(best, classes=[replace(one, f1_before=f1) for one, f1 in zip(best.classes, before)])


def _best(curve: PrecisionRecallCurve, score_before: float, lowest_score: float) -> ClassThreshold:
    if not curve.best_f1 or curve.best_threshold is None:
        return ClassThreshold(score_before, None, None)
    scores, recall, precision = (np.array(values) for values in (curve.scores, curve.recall, curve.precision))
    # Half-way down to the first that is left out, so that scores which differ a little are treated alike.
    left_out = scores[scores < curve.best_threshold]
    threshold = (curve.best_threshold + (left_out[0] if left_out.size else lowest_score)) / 2
    f1 = 2 * recall * precision / np.maximum(recall + precision, 1e-12)
    number = np.count_nonzero(scores >= score_before)
    return ClassThreshold(float(threshold), curve.best_f1, float(f1[number - 1]) if number else 0.0)


def read_validation(
    cfg: CfgNode, run: Path, dataset: str, predictions: Path | None, *, untouched_masks: bool
) -> EvaluationSet:
    """What a run predicted for the validation part (``dataset``, such as ``"bccd_val"``), with its truth.

    ``predictions`` are COCO results, by default those of the run's own evaluation; with ``untouched_masks`` those that
    mask NMS has been over are refused. Raises InputError where the data set is none for validation, a file is missing,
    or the predictions are not all of them.
    """
    if dataset.rpartition("_")[2] != _PART:
        raise InputError(f"{dataset}: expected the validation part, a name that ends in _{_PART}")
    heads = cfg.MODEL.ROI_HEADS
    if heads.SCORE_THRESH_PER_CLASS or (untouched_masks and heads.MASK_NMS.ENABLED):
        key = "SCORE_THRESH_PER_CLASS" if heads.SCORE_THRESH_PER_CLASS else "MASK_NMS.ENABLED"
        raise InputError(
            f"{run / 'config.yaml'}: MODEL.ROI_HEADS.{key} has left out predictions; expected a run without it"
        )
    file = predictions or run / "inference" / dataset / RESULTS_FILE
    if not file.is_file():
        raise InputError(
            f"{file} is not there: expected what 'python tools/train_net.py --eval-only --config-file "
            f"{run / 'config.yaml'} MODEL.WEIGHTS {run / 'model_final.pth'} OUTPUT_DIR {run}' writes"
        )
    return read_evaluation_set(dataset_file(Path(cfg.DATASETS.ROOT or default_root()), dataset), file)


def render(tuning: Tuning, class_names: Sequence[str], tried_suppressions: bool, source: str) -> str:
    """The YAML that a configuration includes; without ``tried_suppressions`` it leaves the keys of mask NMS alone."""
    pairs = [f"[{json.dumps(name)}, {one.threshold:.6f}]" for name, one in zip(class_names, tuning.classes)]
    lines = [
        f"# Score thresholds chosen by tools/tune_thresholds.py: {source}",
        "MODEL:",
        "  ROI_HEADS:",
        f"    SCORE_THRESH_PER_CLASS: [{', '.join(pairs)}]",
    ]
    if tried_suppressions:
        chosen = tuning.mask_suppression
        lines += ["    MASK_NMS:", f"      ENABLED: {chosen is not None}"]
        if chosen is not None:
            lines += [f'      METRIC: "{chosen.metric}"', f"      THRESH: {chosen.threshold}"]
    return "\n".join(lines) + "\n"
