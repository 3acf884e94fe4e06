"""Calibration: how far the scores of predictions, and the confidences of types, are probabilities of being right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bccd_d2.evaluation.average_precision import RankedPredictions

SCORE_BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Reliability curve (Guo et al. 2017): share of correct predictions by their score."""

    edges: Sequence[float]  # (B + 1,) borders of the score bins in [0, 1]
    counts: Sequence[int]  # (B,) predictions
    mean_scores: Sequence[float | None]  # (B,) None for an empty bin
    precisions: Sequence[float | None]  # (B,) share that is correct; None for an empty bin
    expected_error: float | None  # expected calibration error; None without predictions


def reliability(
    scores: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = SCORE_BINS
) -> Reliability:
    """Are seven of ten predictions with a score of 0.7 right? ``scores`` (N,) in [0, 1] and ``correct`` (N,)."""
    counts, means, precisions = calibration_bins(scores, correct, bins)
    return Reliability(
        np.linspace(0, 1, bins + 1).tolist(),
        counts.tolist(),
        [mean if count else None for count, mean in zip(counts, means.tolist())],
        [precision if count else None for count, precision in zip(counts, precisions.tolist())],
        calibration_error(scores, correct, bins) if len(scores) else None,
    )


def score_bins(
    detections: RankedPredictions, class_index: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What each image adds to the calibration error of a class.

    Number of predictions, and sum of (1 if correct, else 0) - score; both (I, B), in the bins of :class:`Reliability`.
    """
    images, chosen = len(detections.cells), detections.counted[0] & (detections.classes == class_index)
    scores = detections.scores[chosen]
    bins = np.minimum((scores * SCORE_BINS).astype(int), SCORE_BINS - 1)
    index, size = detections.images[chosen] * SCORE_BINS + bins, images * SCORE_BINS
    number = np.bincount(index, minlength=size).reshape(images, SCORE_BINS)
    excess = np.bincount(index, detections.correct[0, chosen] - scores, size).astype(np.float64)
    return number, excess.reshape(images, SCORE_BINS)


def calibration_bins(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 15
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Number, mean confidence and share right (NaN for an empty bin) in bins of [0, 1] of equal width; (N,) each."""
    # A confidence on a border belongs to the bin above, also where the border has no exact float (0.3 of 10 bins).
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    number = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        return number, np.bincount(index, confidence, bins) / number, np.bincount(index, right, bins) / number


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error: mean of |share right - mean confidence| of :func:`calibration_bins` over N >= 1."""
    number, mean, share = calibration_bins(confidence, right, bins)
    return float(np.nansum(number * np.abs(share - mean)) / len(confidence))
