"""The error taxonomy of all images as a table, and which class was taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.evaluation.average_precision import PrecisionRanking, ScoredImage, rank_predictions, scored_image
from bccd_d2.evaluation.error_bins import BINS, CORRECT, IGNORED, ImageErrors
from bccd_d2.evaluation.image_metrics import MeasuredImage
from bccd_d2.evaluation.matching import match_cells
from bccd_d2.evaluation.records import split_errors

FIXABLE = tuple(name for name in BINS if name not in (CORRECT, IGNORED))


def precision_gains(
    images: Sequence[ScoredImage], errors: Sequence[ImageErrors], number_of_classes: int
) -> Mapping[str, tuple[float, float] | None]:
    """Gains of mask AP50 and AP, fractions, by bin; ``None`` where there is no ground truth.

    Predictions below the score threshold have no bin and stay as they are.
    """
    before = _average_precision(images, number_of_classes)
    gains: dict[str, tuple[float, float] | None] = {}
    made = {name for e in errors for name in (*e.true_bins, *e.predicted_bins)}
    for name in FIXABLE:
        if name not in made:
            gains[name] = (0.0, 0.0) if not np.isnan(before[0]).all() else None
            continue
        after = _average_precision([fixed(i, e, name) for i, e in zip(images, errors)], number_of_classes)
        # A class whose every cell was taken out says nothing.
        known = ~np.isnan(before[0]) & ~np.isnan(after[0])
        gain = (after - before)[:, known]
        gains[name] = (float(gain[0].mean()), float(gain.mean())) if known.any() else None
    return gains


def fixed(image: ScoredImage, errors: ImageErrors, name: str) -> ScoredImage:
    """The image as if the errors of one bin had not been made."""
    kept = np.array([bin_ != name for bin_ in errors.predicted_bins], bool)
    concerned = [t for t, bin_ in enumerate(errors.true_bins) if bin_ == name]
    partners = [errors.true_partners[t] for t in concerned]
    found = [(t, p) for t, p in zip(concerned, partners) if p is not None]
    left_out = image.cell_left_out.copy()
    left_out[[t for t, p in zip(concerned, partners) if p is None]] = True
    cells = np.array([t for t, _ in found], np.intp)
    perfect = np.zeros((len(found), image.iou.shape[1]))
    perfect[np.arange(len(found)), cells] = 1.0
    return ScoredImage(
        np.vstack([image.iou[kept], perfect]),
        np.concatenate([image.scores[kept], image.scores[[p for _, p in found]]]),
        np.concatenate([image.predicted_classes[kept], image.true_classes[cells]]),
        image.true_classes,
        left_out,
        image.reusable,
        np.concatenate([image.prediction_left_out[kept], np.zeros(len(found), bool)]),
    )


def _average_precision(images: Sequence[ScoredImage], number_of_classes: int) -> NDArray[np.float64]:
    return PrecisionRanking(rank_predictions(images, number_of_classes)).average_precision()


def confusion(
    measured: Sequence[MeasuredImage], number_of_classes: int, score_threshold: float
) -> list[list[int]]:
    """Sum of :func:`image_confusion` over all images."""
    return np.sum([image_confusion(m, number_of_classes, score_threshold) for m in measured], axis=0).tolist()


def image_confusion(
    measured: MeasuredImage, number_of_classes: int, score_threshold: float
) -> NDArray[np.int64]:
    """(C + 1, C + 1) rows of true, columns of predicted classes, the last of each for none.

    Predictions and cells are matched at IoU 0.5 whatever their class.
    """
    table = np.zeros((number_of_classes + 1, number_of_classes + 1), np.int64)
    overlap = measured.overlap
    match = match_cells(overlap, score_threshold)
    np.add.at(table, (overlap.true_classes[match.true], overlap.predicted_classes[match.predicted]), 1)
    np.add.at(table[:, -1], overlap.true_classes[match.false_negatives], 1)
    np.add.at(table[-1], overlap.predicted_classes[match.false_positives], 1)
    return table


@dataclass(frozen=True)
class ErrorBin:
    """One bin over all images."""

    true_cells: int  # true cells in it
    predictions: int  # predictions in it
    true_share: float  # of all true cells, in [0, 1]; 0 where there are none
    predicted_share: float  # of all predictions that count, likewise
    # what mask AP50 would gain if the errors of this bin were fixed (Bolya et al. 2020), in [-1, 1]; ``None`` for
    # "correct" and "ignored", and where there is no ground truth.
    AP50_gain: float | None
    AP_gain: float | None  # likewise of AP


@dataclass(frozen=True)
class ErrorTable:
    """The taxonomy of a data set."""

    bins: Mapping[str, ErrorBin]  # by the names in taxonomy.BINS
    # by what ("class", "size", "crowding", "contrast_bin"), group (for example "small"), then "truth" or "prediction":
    # number of cells by bin
    splits: Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]]
    # grey levels that part the thirds of the true cells' contrast; None without images
    contrast_edges: tuple[float, float] | None


def error_table(
    measured: Sequence[MeasuredImage],
    number_of_classes: int,
    cells: Sequence[Mapping[str, Any]],
    edges: tuple[float, float] | None,
) -> ErrorTable:
    """Sum up images; ``cells`` are their records, ``edges`` those of the contrast."""
    true = [name for m in measured for name in m.errors.true_bins]
    predicted = [name for m in measured for name in m.errors.predicted_bins if name is not None]
    gains = precision_gains(
        [scored_image(m.overlap) for m in measured], [m.errors for m in measured], number_of_classes
    )
    bins = {}
    for name in BINS:
        gain = gains.get(name) or (None, None)
        bins[name] = ErrorBin(
            true.count(name),
            predicted.count(name),
            true.count(name) / max(1, len(true)),
            predicted.count(name) / max(1, len(predicted)),
            *gain,
        )
    return ErrorTable(bins, split_errors(cells), edges)
