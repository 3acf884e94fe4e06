"""What scores are worth: reliability, precision-recall curves, the best threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reliability:
    """Reliability curve (Guo et al. 2017) over predictions of all scores; correct is a match at the IoU threshold.

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
