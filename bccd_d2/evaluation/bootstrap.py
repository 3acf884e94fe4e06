"""How sure the figures are: confidence intervals over images, paired comparison of two runs.

Images are what is drawn, because the cells of one image share its stain, focus and annotator. Nothing is matched again:
every figure is a function of what each image adds to it and of how often each image is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from bccd_d2.errors import InputError
from bccd_d2.evaluation.average_precision import PrecisionRanking, ranked
from bccd_d2.evaluation.calibration import score_bins
from bccd_d2.evaluation.dataset import EvaluationSet, check_detections
from bccd_d2.evaluation.error_table import image_confusion
from bccd_d2.evaluation.image_metrics import MeasuredImage, PixelCounts, iou_and_dice, measure
from bccd_d2.evaluation.options import ALL_CLASSES, NO_GROUND_TRUTH, REGIONS, EvaluationOptions, Value
from bccd_d2.structures.cells import Cells

HEADLINE = ("IoU", "Dice", "mAP@0.5", "AP", "AP50", "AP75", "F1", "PQ")
"""Names of the headline figures, all in [0, 1]. mAP@0.5 is COCO's mean over the classes of the AP of boxes at IoU 0.5;
AP, AP50 and AP75 are of masks, F1 and PQ of all classes together."""


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
    """Run B minus run A on the same images."""

    a: Value  # figure of run A, in [0, 1]
    b: Value  # of run B
    difference: float | None  # b - a; ``None`` where one of them is words
    # of the 95 % interval of the difference, both runs on the same resamples; ``None`` as in :class:`Interval`
    low: float | None
    high: float | None  # likewise
    p_value: float | None  # two-sided, of a permutation test that swaps the runs image by image at random


class Statistics(Protocol):
    """Figures of images that may be weighted."""

    number_of_images: int

    def figures(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """By name, NaN without ground truth; ``weights`` (I,) is how often each image counts, ``None`` for once."""
        ...


class HeadlineStatistics:
    """The headline figures of one region for any weights of the images; the interior has no IoU and Dice."""

    def __init__(self, measured: Sequence[MeasuredImage], number_of_classes: int, region: str) -> None:
        overlaps = [m.overlap for m in measured]
        masks = ranked(overlaps, number_of_classes, region)
        boxes = ranked(overlaps, number_of_classes, region, boxes=True)
        instances = [m.instances[region][ALL_CLASSES] for m in measured]
        self._masks, self._boxes = PrecisionRanking(masks), PrecisionRanking(boxes, thresholds=1)
        self._counts = np.stack([image.counts[0] for image in instances])
        self._iou_sums = np.array([image.iou_sum for image in instances])
        self._pixels = np.array([m.pixels for m in measured]) if region == "all" else None
        self.number_of_images = len(measured)

    def figures(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """By the names in :data:`HEADLINE`, see :class:`Statistics`."""
        if weights is None:
            weights = np.ones(self.number_of_images)
        result = {}
        if self._pixels is not None:
            result["IoU"], result["Dice"] = iou_and_dice(PixelCounts(*(weights @ self._pixels).tolist()))
        boxes, masks = (ranking.average_precision(weights) for ranking in (self._boxes, self._masks))
        boxes, masks = (found[:, ~np.isnan(found[0])] for found in (boxes, masks))  # classes with true cells
        tp, fp, fn = (weights @ self._counts).tolist()
        some = tp + fn > 0
        return {
            **result,
            "mAP@0.5": float(boxes.mean()) if boxes.size else np.nan,
            "AP": float(masks.mean()) if masks.size else np.nan,
            "AP50": float(masks[0].mean()) if masks.size else np.nan,
            "AP75": float(masks[5].mean()) if masks.size else np.nan,
            "F1": 2 * tp / (2 * tp + fp + fn) if some else np.nan,
            "PQ": float(2 * (weights @ self._iou_sums) / (2 * tp + fp + fn)) if some else np.nan,
        }


class ClassStatistics:
    """Figures of one class, the border included, for any weights of the images.

    "AP@0.5" is of boxes; "F1", "bias" and "mean absolute error" (cells per image) are of predictions above the score
    threshold, as is "right class": of the cells of the class that are found at IoU 0.5 by a prediction of any class,
    the share that is given its own. "calibration error" is the expected one of the scores of predictions of the class,
    see :class:`bccd_d2.evaluation.calibration.Reliability`.
    """

    def __init__(
        self, measured: Sequence[MeasuredImage], class_names: Sequence[str], name: str, score_threshold: float
    ) -> None:
        self._class, number = list(class_names).index(name), len(class_names)
        overlaps = [m.overlap for m in measured]
        self._boxes = PrecisionRanking(ranked(overlaps, number, "all", boxes=True), thresholds=1)
        self._counts = np.stack([m.instances["all"][name].counts[0] for m in measured])
        called = np.stack([image_confusion(m, number, score_threshold)[self._class, :-1] for m in measured])
        self._right, self._found = called[:, self._class], called.sum(axis=1)
        masks = ranked(overlaps, number, "all")
        self._predictions, self._excess = score_bins(masks, self._class)
        self.number_of_images = len(measured)

    def figures(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """By the names above, see :class:`Statistics`."""
        if weights is None:
            weights = np.ones(self.number_of_images)
        tp, fp, fn = (weights @ self._counts).tolist()
        errors = self._counts[:, 1] - self._counts[:, 2]
        found, predictions = float(weights @ self._found), float((weights @ self._predictions).sum())
        nothing = tp + fn == 0
        return {
            "AP@0.5": float(self._boxes.average_precision(weights)[0, self._class]),
            "F1": np.nan if nothing else 2 * tp / (2 * tp + fp + fn),
            "bias": np.nan if nothing else float(weights @ errors / weights.sum()),
            "mean absolute error": np.nan if nothing else float(weights @ np.abs(errors) / weights.sum()),
            "right class": float(weights @ self._right) / found if found else np.nan,
            "calibration error": float(np.abs(weights @ self._excess).sum()) / predictions
            if predictions and not nothing
            else np.nan,
        }


def intervals(statistics: Statistics, samples: int, seed: int) -> Mapping[str, Interval]:
    """Figures of all images with their intervals, from ``samples`` resamples; 0 for no interval."""
    values = statistics.figures()
    drawn = [statistics.figures(w) for w in _draws(statistics.number_of_images, samples, seed)]
    result = {}
    for name, value in values.items():
        low, high = _percentiles([figures[name] for figures in drawn])
        result[name] = Interval(_value(value), *((low, high) if value == value else (None, None)))
    return result


def differences(both: HeadlineStatistics, samples: int, seed: int) -> Mapping[str, Difference]:
    """Compare two runs on the same images: ``both`` is of the images of run A followed by the same images of run B.

    ``samples`` resamples give the interval and as many swaps the p value; 0 for neither.
    """
    images = both.number_of_images // 2

    def pair(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[dict[str, float], ...]:
        """Figures with these weights of the two runs, and with the runs swapped."""
        return both.figures(np.concatenate([first, second])), both.figures(np.concatenate([second, first]))

    nothing = np.zeros(images)
    a, b = pair(np.ones(images), nothing)
    drawn = [pair(weights, nothing) for weights in _draws(images, samples, seed)]
    generator = np.random.default_rng([seed, 1])
    stays = generator.integers(0, 2, (samples, images)).astype(float)
    swapped = [pair(one, 1 - one) for one in stays]
    result = {}
    for name in a:
        observed = b[name] - a[name]
        if observed != observed:
            result[name] = Difference(_value(a[name]), _value(b[name]), None, None, None, None)
            continue
        low, high = _percentiles([y[name] - x[name] for x, y in drawn])
        # A hair of tolerance: sums in another order must not make a swap of nothing look smaller.
        as_large = [abs(y[name] - x[name]) >= abs(observed) - 1e-12 for x, y in swapped]
        p_value = (1 + sum(as_large)) / (1 + len(as_large)) if as_large else None
        result[name] = Difference(a[name], b[name], observed, low, high, p_value)
    return result


def _draws(images: int, samples: int, seed: int) -> NDArray[np.float64]:
    """(samples, images) how often each image is drawn; none for a single image, which says nothing of others."""
    if images < 2:
        return np.zeros((0, images))
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=samples).astype(float)


def _percentiles(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Interval of those that are numbers: a resample without ground truth has no figure."""
    known = np.array(values)[~np.isnan(values)] if len(values) else np.array([])
    if not known.size:
        return None, None
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


def _value(figure: float) -> Value:
    return NO_GROUND_TRUTH if figure != figure else float(figure)


def compare_runs(
    a: EvaluationSet, b: EvaluationSet, options: EvaluationOptions
) -> Mapping[str, Mapping[str, Difference]]:
    """Compare the headline figures of two runs on the same images: by region, then by the names in ``HEADLINE``.

    "interior" has no IoU and Dice. Raises InputError where the runs are not of the same images with the same ground
    truth and classes, or an image has more predictions than ``options.max_detections``.
    """
    _check_same(a, b)
    names = a.class_names
    images = [*a.images, *b.images]
    check_detections(images, options.max_detections)
    measured = [measure(image, names, options) for image in images]
    return {
        region: differences(
            HeadlineStatistics(measured, len(names), region), options.bootstrap_samples, options.seed
        )
        for region in REGIONS
    }


def _check_same(a: EvaluationSet, b: EvaluationSet) -> None:
    if list(a.class_names) != list(b.class_names):
        raise InputError(f"expected runs of the same classes, found {a.class_names} and {b.class_names}")
    ids = [[image.image_id for image in run.images] for run in (a, b)]
    if not ids[0]:
        raise InputError("no image to compare")
    if ids[0] != ids[1]:
        raise InputError(
            f"the runs are of different images: {len(ids[0])} and {len(ids[1])}, expected the same"
        )
    for first, second in zip(a.images, b.images):
        if not (_same(first.truth, second.truth) and _same(first.ignore, second.ignore)):
            raise InputError(f"{first.file_name}: the runs have different ground truth")


def _same(a: Cells, b: Cells) -> bool:
    return (
        len(a) == len(b)
        and bool((a.windows == b.windows).all() and (a.classes == b.classes).all())
        and all(np.array_equal(x, y) for x, y in zip(a.masks, b.masks))
    )


def binomial_interval(cells: int, of: int) -> tuple[float, float]:
    """Exact 95 % interval of a share in [0, 1] (Clopper and Pearson 1934); (0, 1) where nothing was counted."""
    if not of:
        return 0.0, 1.0
    interval = binomtest(cells, of).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)
