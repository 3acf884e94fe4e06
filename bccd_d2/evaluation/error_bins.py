"""Why cells are wrong: every true cell and every prediction that counts falls in exactly one bin.

The bins, in the order in which they are asked for; "overlap" is IoU of masks:

- ``correct``: prediction and cell of the same class with an overlap of at least 0.5, matched optimally.
- ``misclassified``: likewise, of what is left, with different classes.
- ``ignored``: a prediction mostly (by half its area or more) in an ignore region of its class.
- ``under-segmented``: a prediction that covers two cells or more by half their area or more, and a cell that is not
  found but covered by such a prediction.
- ``duplicate``: a prediction on a cell that another one found, where half of the smaller of the two lies in the other.
- ``over-segmented``: predictions that lie mostly in one cell, each with a tenth of it or more, two or more beside
  each other (a match of the cell is one of them); and that cell, if it is not found.
- ``border``: what would be one of the following and touches the image border, where cells are labelled only sometimes.
- ``poorly outlined``: a prediction and a cell that overlap by 0.1 or more.
- ``false positive``: any other prediction. ``false negative``: any other cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bccd_d2.evaluation.matching import MOSTLY, Overlaps, match_optimal
from bccd_d2.evaluation.options import FOUND_IOU
from bccd_d2.structures.cells import Cells

CORRECT = "correct"
UNDER = "under-segmented"
OVER = "over-segmented"
MISCLASSIFIED = "misclassified"
POOR = "poorly outlined"
DUPLICATE = "duplicate"
FALSE_POSITIVE = "false positive"
FALSE_NEGATIVE = "false negative"
BORDER = "border"
IGNORED = "ignored"
BINS = (CORRECT, UNDER, OVER, MISCLASSIFIED, POOR, DUPLICATE, FALSE_POSITIVE, FALSE_NEGATIVE, BORDER, IGNORED)
"""A true cell is never "duplicate", "false positive" or "ignored", a prediction never "false negative"."""
NEAR_IOU = 0.1
"""Least IoU of a prediction that means a cell at all, as in TIDE (Bolya et al. 2020), and least share of a piece."""


@dataclass(frozen=True)
class ImageErrors:
    """Bins of one image; a partner is the index of what the bin is about: a match, the swallowing cell, the best
    piece.
    """

    true_bins: Sequence[str]  # of each true cell, in the order of ``image.truth``
    predicted_bins: Sequence[str | None]  # of each prediction, None below the score threshold
    true_partners: Sequence[int | None]
    predicted_partners: Sequence[int | None]


def classify_errors(overlap: Overlaps, predictions: Cells, score_threshold: float) -> ImageErrors:
    """Put every true cell and every prediction with at least ``score_threshold`` into one bin."""
    return _Classifier(overlap, predictions, score_threshold).classify()


class _Classifier:
    """Bins of one image while they are found; index ``p`` is of a prediction, ``t`` of a true cell."""

    def __init__(self, overlap: Overlaps, predictions: Cells, score_threshold: float) -> None:
        self.overlap = overlap
        self.counts = overlap.scores >= score_threshold
        self.iou = np.where(self.counts[:, None], overlap.iou, 0.0)
        shared = np.where(self.counts[:, None], overlap.shared, 0)
        share_of_cell = shared / np.maximum(overlap.true_areas, 1)
        share_of_prediction = shared / np.maximum(overlap.predicted_areas, 1)[:, None]
        self.covers = share_of_cell >= MOSTLY
        self.piece_of = (share_of_prediction >= MOSTLY) & (share_of_cell >= NEAR_IOU)
        smaller = np.minimum(overlap.predicted_areas[:, None], overlap.predicted_areas[None])
        self.same_place = predictions.intersections(predictions) >= MOSTLY * np.maximum(smaller, 1)
        self.true_bins: list[str | None] = [None] * len(overlap.true_classes)
        self.predicted_bins: list[str | None] = [None] * len(overlap.scores)
        self.true_partners: list[int | None] = [None] * len(overlap.true_classes)
        self.predicted_partners: list[int | None] = [None] * len(overlap.scores)

    def classify(self) -> ImageErrors:
        same_class = self.overlap.predicted_classes[:, None] == self.overlap.true_classes
        self._pair(CORRECT, np.where(same_class, self.iou, 0.0), FOUND_IOU)
        self._pair(MISCLASSIFIED, self.iou, FOUND_IOU)
        found_by = {t: p for t, p in enumerate(self.true_partners) if p is not None}
        for p in self._open_predictions():
            own = self.overlap.region_classes == self.overlap.predicted_classes[p]
            if (self.overlap.ignored_share[p, own] >= MOSTLY).any():
                self.predicted_bins[p] = IGNORED
        self._under_segmented()
        for p in self._open_predictions():
            t = self._nearest(p)
            if t is not None and t in found_by and self.same_place[p, found_by[t]]:
                self._put(p, DUPLICATE, t)
        self._over_segmented(found_by)
        self._the_rest()
        return ImageErrors(
            [str(name) for name in self.true_bins],
            self.predicted_bins,
            self.true_partners,
            self.predicted_partners,
        )

    def _under_segmented(self) -> None:
        merging = np.flatnonzero(self.covers.sum(axis=1) >= 2)
        open_predictions = set(self._open_predictions())
        for p in merging[np.argsort(-self.overlap.scores[merging], kind="stable")].tolist():
            if self.predicted_bins[p] == IGNORED:
                continue
            for t in np.flatnonzero(self.covers[p]).tolist():
                if self.true_bins[t] is None:
                    self.true_bins[t], self.true_partners[t] = UNDER, p
            if p in open_predictions:
                self._put(p, UNDER, self._nearest(p))

    def _over_segmented(self, found_by: dict[int, int]) -> None:
        candidates: dict[int, list[int]] = {}
        for p in self._open_predictions():
            t = self._nearest(p)
            if t is not None and self.piece_of[p, t]:
                candidates.setdefault(t, []).append(p)
        for t, several in candidates.items():
            pieces = [found_by[t]] if t in found_by else []
            for p in several:
                if self.same_place[p, pieces].any():
                    self._put(p, DUPLICATE, t)
                else:
                    pieces.append(p)
            if len(pieces) >= 2:
                for p in pieces:
                    if self.predicted_bins[p] is None:
                        self._put(p, OVER, t)
                if self.true_bins[t] is None:
                    self.true_bins[t], self.true_partners[t] = OVER, pieces[0]

    def _the_rest(self) -> None:
        for p in self._open_predictions():
            if self.overlap.predicted_border[p]:
                self._put(p, BORDER, self._nearest(p))
        for t, touches in enumerate(self.overlap.true_border):
            if self.true_bins[t] is None and touches:
                self.true_bins[t] = BORDER
        self._pair(POOR, self.iou, NEAR_IOU)
        for p in self._open_predictions():
            nearest = self._nearest(p)
            if nearest is not None and self.iou[p, nearest] >= NEAR_IOU:
                self._put(p, POOR, nearest)
            else:
                self._put(p, FALSE_POSITIVE, None)
        self.true_bins = [FALSE_NEGATIVE if name is None else name for name in self.true_bins]

    def _open_predictions(self) -> list[int]:
        """Predictions without bin that count, best score first."""
        still = [p for p, name in enumerate(self.predicted_bins) if name is None and self.counts[p]]
        return sorted(still, key=lambda p: -self.overlap.scores[p])

    def _nearest(self, p: int) -> int | None:
        """The true cell that a prediction overlaps most."""
        t = int(self.iou[p].argmax()) if self.iou.shape[1] else 0
        return t if self.iou.shape[1] and self.iou[p, t] > 0 else None

    def _put(self, p: int, name: str, t: int | None) -> None:
        self.predicted_bins[p], self.predicted_partners[p] = name, t

    def _pair(self, name: str, iou: NDArray[np.float64], threshold: float) -> None:
        """Put what can be paired, of predictions and cells without bin, into one bin."""
        rows = np.array([p for p, bin_ in enumerate(self.predicted_bins) if bin_ is None], np.intp)
        columns = np.array([t for t, bin_ in enumerate(self.true_bins) if bin_ is None], np.intp)
        found, true = match_optimal(iou[np.ix_(rows, columns)], threshold)
        for p, t in zip(rows[found].tolist(), columns[true].tolist()):
            self._put(p, name, t)
            self.true_bins[t], self.true_partners[t] = name, p
