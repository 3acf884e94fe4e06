"""All figures of a set of predictions, in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tqdm import tqdm

from bccd_d2.errors import InputError
from bccd_d2.evaluation.average_precision import (
    TASKS,
    AveragePrecisionTable,
    PrecisionRecallCurve,
    average_precision_table,
    precision_recall_curve,
    ranked,
)
from bccd_d2.evaluation.bootstrap import ClassStatistics, HeadlineStatistics, Interval, intervals
from bccd_d2.evaluation.calibration import Reliability, reliability
from bccd_d2.evaluation.dataset import EvaluationSet, check_detections
from bccd_d2.evaluation.error_bins import ImageErrors
from bccd_d2.evaluation.error_table import ErrorTable, confusion, error_table
from bccd_d2.evaluation.image_metrics import PixelOverlap, measure, pixel_overlap
from bccd_d2.evaluation.instances import CountAgreement, InstanceMetrics, count_agreement, instance_metrics
from bccd_d2.evaluation.options import ALL_CLASSES, REGIONS, EvaluationOptions, Value
from bccd_d2.evaluation.records import cell_records, image_record


@dataclass(frozen=True)
class Evaluation:
    """All figures, as fractions in [0, 1] or in pixels; ``Value`` is a number or words.

    ``region`` is "all" or "interior", ``class`` is a class name or ``ALL_CLASSES``. A record of ``per_image`` is made
    by :func:`bccd_d2.evaluation.records.image_record`, one of ``per_cell``, for each true cell and each prediction that
    counts, by :func:`bccd_d2.evaluation.records.cell_records`.
    """

    class_names: Sequence[str]
    options: EvaluationOptions
    average_precision: Mapping[
        str, Mapping[str, AveragePrecisionTable]
    ]  # by task ("bbox", "segm"), then region
    overlap: PixelOverlap  # pixels of all cells together, the report's own metrics
    instances: Mapping[str, Mapping[str, InstanceMetrics]]  # by region, then class
    counts: Mapping[str, Mapping[str, CountAgreement]]  # by region, then class
    errors: ErrorTable
    curves: Mapping[
        str, Mapping[str, PrecisionRecallCurve]
    ]  # precision-recall at IoU 0.5, by region, then class
    reliability: Mapping[str, Reliability]  # by region
    # (C + 1, C + 1) rows true, columns predicted class, the last of each for "none"; at IoU 0.5
    confusion: Sequence[Sequence[int]]
    intervals: Mapping[
        str, Mapping[str, Interval]
    ]  # by region, then HEADLINE; "interior" has no IoU and Dice
    # by class, then the names in :class:`ClassStatistics`, the border included
    class_intervals: Mapping[str, Mapping[str, Interval]]
    image_errors: Sequence[ImageErrors]  # bins of each image
    per_image: Sequence[Mapping[str, Any]]
    per_cell: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """All but ``per_cell`` and ``image_errors``, as what JSON knows; no NaN."""
        content = asdict(replace(self, per_cell=(), image_errors=()))
        del content["per_cell"], content["image_errors"]
        return content

    def headline(self, region: str = "all") -> dict[str, Value]:
        """The figures of :data:`HEADLINE` that the region has, in [0, 1] or words."""
        return {name: interval.value for name, interval in self.intervals[region].items()}

    def detectron2_results(self) -> dict[str, dict[str, float]]:
        """Groups of figures in percent, as Detectron2 logs them; what has no value is left out.

        ``"bbox"`` and ``"segm"`` hold AP, AP50, AP75, AR, APs, APm and APl (by ``size_edges``) and, where there is more
        than one class, AP-<class>; ``"overlap"`` IoU, Dice, IoU_mean, Dice_mean and AP50_per_image; ``"instances"``
        precision, recall, F1, mean_F1, SQ, RQ, PQ, AJI and AJI+. ``"bbox_interior"``, ``"segm_interior"`` and
        ``"instances_interior"`` leave out the border.
        """
        groups: dict[str, dict[str, Value]] = {}
        for region in REGIONS:
            suffix = "" if region == "all" else f"_{region}"
            for task in TASKS:
                table = self.average_precision[task][region]
                groups[task + suffix] = {
                    "AP": table.overall.AP,
                    "AP50": table.overall.AP50,
                    "AP75": table.overall.AP75,
                    "AR": table.overall.AR,
                    **{f"AP{name[0]}": size.AP for name, size in table.by_size.items()},
                }
                if len(self.class_names) > 1:
                    groups[task + suffix] |= {f"AP-{name}": c.AP for name, c in table.by_class.items()}
            found = self.instances[region][ALL_CLASSES]
            groups[f"instances{suffix}"] = {
                "precision": found.precision,
                "recall": found.recall,
                "F1": found.f1,
                "mean_F1": found.mean_f1,
                "SQ": found.sq,
                "RQ": found.rq,
                "PQ": found.pq,
                "AJI": found.aji,
                "AJI+": found.aji_plus,
            }
        groups["overlap"] = asdict(self.overlap)
        return {
            group: {name: 100 * value for name, value in figures.items() if not isinstance(value, str)}
            for group, figures in groups.items()
        }


def evaluate(dataset: EvaluationSet, options: EvaluationOptions) -> Evaluation:
    """Evaluate the predictions of a data set.

    Raises InputError where an image has more predictions than ``options.max_detections``, cannot be read or has another
    size than the ground truth says, or there is no image.
    """
    images, names = dataset.images, dataset.class_names
    if not images:
        raise InputError("no image to evaluate")
    check_detections(images, options.max_detections)
    measured = [
        measure(image, names, options)
        for image in tqdm(images, desc="evaluating", unit="image", disable=None, leave=False)
    ]
    overlaps = [m.overlap for m in measured]
    detections = {region: ranked(overlaps, len(names), region) for region in REGIONS}
    by_class = {
        region: {name: [m.instances[region][name] for m in measured] for name in (ALL_CLASSES, *names)}
        for region in REGIONS
    }
    cells, edges = cell_records(measured, names, options)
    return Evaluation(
        class_names=names,
        options=options,
        average_precision={
            task: {
                region: average_precision_table(overlaps, names, options, task, region) for region in REGIONS
            }
            for task in TASKS
        },
        overlap=pixel_overlap([m.pixels for m in measured], [m.box_precision for m in measured]),
        instances={
            region: {name: instance_metrics(parts) for name, parts in classes.items()}
            for region, classes in by_class.items()
        },
        counts={
            region: {name: count_agreement(parts) for name, parts in classes.items()}
            for region, classes in by_class.items()
        },
        errors=error_table(measured, len(names), cells, edges),
        curves={
            region: {
                name: precision_recall_curve(found, None if name == ALL_CLASSES else names.index(name))
                for name in (ALL_CLASSES, *names)
            }
            for region, found in detections.items()
        },
        reliability={
            region: reliability(found.scores[found.counted[0]], found.correct[0, found.counted[0]])
            for region, found in detections.items()
        },
        confusion=confusion(measured, len(names), options.score_threshold),
        intervals={
            region: intervals(
                HeadlineStatistics(measured, len(names), region), options.bootstrap_samples, options.seed
            )
            for region in REGIONS
        },
        class_intervals={
            name: intervals(
                ClassStatistics(measured, names, name, options.score_threshold),
                options.bootstrap_samples,
                options.seed,
            )
            for name in names
        },
        image_errors=[m.errors for m in measured],
        per_image=[image_record(m) for m in measured],
        per_cell=cells,
    )
