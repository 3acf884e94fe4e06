"""How well the number of cells agrees: errors, bias and limits of agreement (Bland and Altman 1986)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bccd_d2.evaluation.values import Value


@dataclass(frozen=True)
class CountAgreement:
    """Of one class, or of all, in one region.

    Attributes:
        true: cells of each image, in the order of the images.
        predicted: likewise, at the score threshold.
        mean_absolute_error: cells an image.
        mean_relative_error: |predicted - true| / true, mean over images with ground truth.
        bias: mean of predicted - true, cells an image.
        lower_limit: bias - 1.96 standard deviations of the difference.
        upper_limit: bias + 1.96 standard deviations.
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
    raise NotImplementedError
