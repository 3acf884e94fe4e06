"""What scores are worth: reliability, precision-recall curves, the best threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bccd_d2.evaluation.detections import Detections
from bccd_d2.evaluation.options import IOU_THRESHOLDS

SCORE_BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Reliability curve (Guo et al. 2017) over predictions of all scores; correct is a match at IoU 0.5.

    Attributes:
        edges: (B + 1,) borders of the score bins in [0, 1].
        counts: (B,) predictions.
        mean_scores: (B,) mean score; ``None`` for an empty bin.
        precisions: (B,) share that is correct; ``None`` for an empty bin.
        expected_error: expected calibration error, mean of |precision - mean score| weighted by ``counts``; ``None``
            without predictions.
    """

    edges: Sequence[float]
    counts: Sequence[int]
    mean_scores: Sequence[float | None]
    precisions: Sequence[float | None]
    expected_error: float | None


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """One point a prediction, best score first; empty without ground truth or predictions.

    Attributes:
        iou_threshold: least mask IoU of a match.
        recall: (N,) rising.
        precision: (N,) as measured, not interpolated.
        scores: (N,) falling: what the threshold would be.
        best_threshold: score threshold with the greatest F1; ``None`` for an empty curve.
        best_f1: F1 there.
    """

    iou_threshold: float
    recall: Sequence[float]
    precision: Sequence[float]
    scores: Sequence[float]
    best_threshold: float | None
    best_f1: float | None


def reliability(detections: Detections) -> Reliability:
    """Are seven of ten predictions with a score of 0.7 right? Predictions that are left out say nothing."""
    counted = detections.counted[0]
    scores, correct = detections.scores[counted], detections.correct[0, counted]
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    bins = np.clip(np.digitize(scores, edges) - 1, 0, SCORE_BINS - 1)
    counts = np.bincount(bins, minlength=SCORE_BINS)
    means = np.bincount(bins, scores, SCORE_BINS) / np.maximum(counts, 1)
    precisions = np.bincount(bins, correct, SCORE_BINS) / np.maximum(counts, 1)
    error = float((counts * np.abs(precisions - means)).sum() / counts.sum()) if counts.sum() else None
    return Reliability(
        edges.tolist(), counts.tolist(), _where(counts, means), _where(counts, precisions), error
    )


def precision_recall_curve(
    detections: Detections, class_index: int | None = None, threshold_index: int = 0
) -> PrecisionRecallCurve:
    """Precision and recall of every score threshold.

    Args:
        detections: matched with classes for a curve of one class.
        class_index: ``None`` for all classes together.
        threshold_index: into ``IOU_THRESHOLDS``.
    """
    chosen = detections.counted[threshold_index].copy()
    cells = int(detections.cells.sum())
    if class_index is not None:
        chosen &= detections.classes == class_index
        cells = int(detections.cells[:, class_index].sum())
    iou_threshold = float(IOU_THRESHOLDS[threshold_index])
    if cells == 0 or not chosen.any():
        return PrecisionRecallCurve(iou_threshold, [], [], [], None, None)
    order = np.argsort(-detections.scores[chosen], kind="stable")
    scores = detections.scores[chosen][order]
    found = np.cumsum(detections.correct[threshold_index, chosen][order])
    ranks = np.arange(1, len(scores) + 1)
    # A threshold takes all predictions with its score, so only the last of equal ones can be chosen.
    f1 = np.where(np.append(scores[1:] < scores[:-1], True), 2 * found / (ranks + cells), 0.0)
    best = int(f1.argmax())
    return PrecisionRecallCurve(
        iou_threshold,
        (found / cells).tolist(),
        (found / ranks).tolist(),
        scores.tolist(),
        float(scores[best]),
        float(f1[best]),
    )


def _where(counts: NDArray[np.intp], values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if count else None for count, value in zip(counts, values)]
