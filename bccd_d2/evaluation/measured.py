"""What is measured once of each image and used by all metrics."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bccd_d2.evaluation.dataset import EvaluationImage
from bccd_d2.evaluation.detections import Detections, match_detections, scored_image
from bccd_d2.evaluation.instances import ImageInstances, image_instances
from bccd_d2.evaluation.matching import Overlaps, overlaps
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.evaluation.outlines import OutlineAgreement, outline_agreement
from bccd_d2.evaluation.overlap import PixelCounts, image_box_precision, pixel_counts
from bccd_d2.evaluation.taxonomy import ImageErrors, classify_errors
from bccd_d2.evaluation.values import ALL_CLASSES, REGIONS


@dataclass(frozen=True)
class MeasuredImage:
    """One image and what was measured of it.

    Attributes:
        image: itself.
        overlap: of all its predictions and cells.
        errors: bins of its cells.
        pixels: of the unions, at the score threshold.
        box_precision: average precision of its boxes at IoU 0.5, likewise.
        instances: by region, then ``ALL_CLASSES`` and class name.
    """

    image: EvaluationImage
    overlap: Overlaps
    errors: ImageErrors
    pixels: PixelCounts
    box_precision: float
    instances: Mapping[str, Mapping[str, ImageInstances]]


def measure(image: EvaluationImage, class_names: Sequence[str], options: EvaluationOptions) -> MeasuredImage:
    """Measure one image."""
    overlap = overlaps(image, options.border_margin)

    @functools.cache
    def outline(predicted: int, true: int) -> OutlineAgreement:
        return outline_agreement(image.predictions, predicted, image.truth, true, options.boundary_tolerance)

    classes = {ALL_CLASSES: None, **{name: index for index, name in enumerate(class_names)}}
    return MeasuredImage(
        image,
        overlap,
        classify_errors(overlap, image.predictions, options.score_threshold),
        pixel_counts(image, options.score_threshold),
        image_box_precision(image, overlap, options.score_threshold),
        {
            region: {
                name: image_instances(
                    overlap,
                    outline,
                    options.score_threshold,
                    class_index=index,
                    interior=region == "interior",
                )
                for name, index in classes.items()
            }
            for region in REGIONS
        },
    )


def ranked(measured: Sequence[MeasuredImage], number_of_classes: int, region: str) -> Detections:
    """Predictions of all images by COCO's matching, with classes."""
    scored = [scored_image(m.overlap, interior=region == "interior") for m in measured]
    return match_detections(scored, number_of_classes)
