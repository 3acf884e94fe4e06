"""Is the difference between two runs real?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bccd_d2.errors import InputError
from bccd_d2.evaluation.average_precision import check_detections
from bccd_d2.evaluation.bootstrap import Difference, HeadlineStatistics, differences
from bccd_d2.evaluation.dataset import EvaluationSet
from bccd_d2.evaluation.measured import measure, ranked
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.evaluation.values import ALL_CLASSES, REGIONS
from bccd_d2.structures.cells import Cells


def compare_runs(
    a: EvaluationSet, b: EvaluationSet, options: EvaluationOptions
) -> Mapping[str, Mapping[str, Difference]]:
    """Compare the headline figures of two runs on the same images.

    Args:
        a: predictions of the first run.
        b: of the second.
        options: ``bootstrap_samples`` resamples for each interval and as many swaps for each p value.

    Returns:
        By region, then by the names in ``HEADLINE``; "interior" has AP, AP50, AP75, F1 and PQ.

    Raises:
        InputError: the runs are not of the same images with the same ground truth and classes, or an image has more
            predictions than ``options.max_detections``.
    """
    _check_same(a, b)
    names = a.class_names
    images = [*a.images, *b.images]
    check_detections(images, options.max_detections)
    measured = [measure(image, names, options) for image in images]
    result = {}
    for region in REGIONS:
        statistics = HeadlineStatistics(
            ranked(measured, len(names), region),
            [m.instances[region][ALL_CLASSES] for m in measured],
            [(m.pixels, m.box_precision) for m in measured] if region == "all" else None,
        )
        result[region] = differences(statistics, options.bootstrap_samples, options.seed)
    return result


def _check_same(a: EvaluationSet, b: EvaluationSet) -> None:
    if list(a.class_names) != list(b.class_names):
        raise InputError(
            f"the runs have classes {list(a.class_names)} and {list(b.class_names)}, expected the same"
        )
    ids = [[image.image_id for image in run.images] for run in (a, b)]
    if not ids[0]:
        raise InputError("no image to compare")
    if ids[0] != ids[1]:
        raise InputError(
            f"the runs are of different images: {len(ids[0])} and {len(ids[1])}, expected the same in the same order"
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
