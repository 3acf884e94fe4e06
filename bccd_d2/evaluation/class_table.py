"""How well the number of cells agrees: errors, bias and limits of agreement (Bland and Altman 1986)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bccd_d2.evaluation.options import NO_GROUND_TRUTH, Value

LIMIT_DEVIATIONS = 1.96
"""Half width of the limits of agreement: 95 % of normally distributed differences lie within."""


@dataclass(frozen=True)
class CountAgreement:
    """Of one class, or of all, in one region.

    Attributes:
        true: cells of each image, in the order of the images.
        predicted: predictions that count, likewise, at the score threshold.
        mean_absolute_error: cells an image.
        mean_relative_error: absolute difference by true number, mean over images with ground truth.
        bias: mean of predicted - true, cells an image.
        lower_limit: bias - 1.96 standard deviations of the difference; the bias itself for a single image.
        upper_limit: bias + 1.96 standard deviations, likewise.
    """

    true: Sequence[int]
    predicted: Sequence[int]
    mean_absolute_error: Value
    mean_relative_error: Value
    bias: Value
    lower_limit: Value
    upper_limit: Value


def count_agreement(true: Sequence[int], predicted: Sequence[int]) -> CountAgreement:
    """Agreement of the counts of the same images; words in place of numbers where no image holds a true cell."""
    cells, found = np.array(true), np.array(predicted)
    if not cells.any():
        return CountAgreement(true, predicted, *[NO_GROUND_TRUTH] * 5)
    difference = found - cells
    bias = float(difference.mean())
    reach = LIMIT_DEVIATIONS * float(difference.std(ddof=1)) if len(cells) > 1 else 0.0
    some = cells > 0
    return CountAgreement(
        true,
        predicted,
        float(np.abs(difference).mean()),
        float((np.abs(difference)[some] / cells[some]).mean()),
        bias,
        bias - reach,
        bias + reach,
    )
