"""How sure the figures are: confidence intervals over images, paired comparison of two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bccd_d2.evaluation.dataset import EvaluationImage
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.evaluation.values import Value


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % percentile interval (Efron and Tibshirani 1993), images drawn with replacement.

    ``low`` and ``high`` are ``None`` where the figure is words, with a single image, or without resamples.
    """

    value: Value
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """Run B minus run A on the same images.

    Attributes:
        a: figure of run A, in the unit of the headline.
        b: of run B.
        difference: b - a; ``None`` where one of them is words.
        low: of the 95 % interval of the difference, both runs on the same resamples.
        high: likewise.
        p_value: two-sided, of a permutation test that swaps the runs image by image.
    """

    a: Value
    b: Value
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None


def compare_runs(
    a: Sequence[EvaluationImage],
    b: Sequence[EvaluationImage],
    class_names: Sequence[str],
    options: EvaluationOptions,
) -> Mapping[str, Difference]:
    """Is the difference real? By the names of :data:`bccd_d2.evaluation.evaluate.HEADLINE`.

    Raises:
        InputError: the runs are not of the same images with the same ground truth.
    """
    raise NotImplementedError
