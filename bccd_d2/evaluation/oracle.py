"""What average precision would gain if one kind of error were mended: oracle replacement (Bolya et al. 2020, TIDE).

To mend a bin is to drop its predictions and to let each of its true cells be found, with the outline and class that it
has, by the prediction that its bin is about, at the score of that prediction. A true cell without such a prediction is
taken out of the ground truth, as TIDE does with what was missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bccd_d2.evaluation.detections import PrecisionRanking, ScoredImage, match_detections
from bccd_d2.evaluation.taxonomy import BINS, CORRECT, IGNORED, ImageErrors

MENDABLE = tuple(name for name in BINS if name not in (CORRECT, IGNORED))


def precision_gains(
    images: Sequence[ScoredImage], errors: Sequence[ImageErrors], number_of_classes: int
) -> Mapping[str, tuple[float, float] | None]:
    """Gains of mask AP50 and AP, fractions, by bin; ``None`` where there is no ground truth.

    Predictions below the score threshold have no bin and stay as they are.

    Args:
        images: scored with classes.
        errors: of the same images.
        number_of_classes: classes are counted from 0.
    """
    before = _average_precision(images, number_of_classes)
    gains: dict[str, tuple[float, float] | None] = {}
    made = {name for e in errors for name in (*e.true_bins, *e.predicted_bins)}
    for name in MENDABLE:
        if name not in made:
            gains[name] = (0.0, 0.0) if not np.isnan(before[0]).all() else None
            continue
        after = _average_precision([mended(i, e, name) for i, e in zip(images, errors)], number_of_classes)
        # A class whose every cell was taken out says nothing.
        known = ~np.isnan(before[0]) & ~np.isnan(after[0])
        gain = (after - before)[:, known]
        gains[name] = (float(gain[0].mean()), float(gain.mean())) if known.any() else None
    return gains


def mended(image: ScoredImage, errors: ImageErrors, name: str) -> ScoredImage:
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
    return PrecisionRanking(match_detections(images, number_of_classes)).average_precision()
