"""Why cells are wrong: every true cell and every prediction falls in exactly one bin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bccd_d2.evaluation.dataset import EvaluationImage
from bccd_d2.evaluation.options import EvaluationOptions

BINS = (
    "correct",
    "under-segmented",
    "over-segmented",
    "misclassified",
    "poorly outlined",
    "duplicate",
    "hallucinated",
    "missed",
    "border",
    "ignored",
)
"""A true cell is never "duplicate", "hallucinated" or "ignored", a prediction never "missed"."""


@dataclass(frozen=True)
class ImageErrors:
    """Bins of one image.

    Attributes:
        true_bins: bin of each true cell, in the order of ``image.truth``.
        predicted_bins: bin of each prediction with at least the score threshold, ``None`` for the others, in the order
            of ``image.predictions``.
        true_partners: for each true cell, the index of the prediction that its bin is about, or ``None``: its match,
            the prediction that swallowed it, the best piece.
        predicted_partners: likewise the index of the true cell.
    """

    true_bins: Sequence[str]
    predicted_bins: Sequence[str | None]
    true_partners: Sequence[int | None]
    predicted_partners: Sequence[int | None]


@dataclass(frozen=True)
class ErrorBin:
    """One bin over all images.

    Attributes:
        true_cells: true cells in it.
        predictions: predictions in it.
        true_share: of all true cells, in [0, 1]; 0 where there are none.
        predicted_share: of all predictions that count, likewise.
        AP50_gain: what mask AP50 would gain if the errors of this bin were mended (Bolya et al. 2020), in [-1, 1];
            ``None`` for "correct" and "ignored", and where there is no ground truth.
        AP_gain: likewise of AP.
    """

    true_cells: int
    predictions: int
    true_share: float
    predicted_share: float
    AP50_gain: float | None
    AP_gain: float | None


@dataclass(frozen=True)
class ErrorTable:
    """Attributes:
    bins: by the names in :data:`BINS`.
    splits: by what ("class", "size", "crowding", "contrast"), group (for example "small"), then "truth" or
        "predictions": number of cells by bin.
    contrast_edges: the grey levels that part low from medium and medium from high contrast, thirds of the true
        cells; ``None`` without images.
    """

    bins: Mapping[str, ErrorBin]
    splits: Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]]
    contrast_edges: tuple[float, float] | None


def classify_errors(image: EvaluationImage, options: EvaluationOptions) -> ImageErrors:
    """Put every true cell and every prediction that counts into one bin."""
    raise NotImplementedError
