"""Class by class: how well the numbers of cells agree, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bccd_d2.evaluation.image_metrics import MeasuredImage
from bccd_d2.evaluation.matching import match_cells
from bccd_d2.evaluation.options import NO_GROUND_TRUTH, Value, in_words, markdown_table

if TYPE_CHECKING:
    from bccd_d2.evaluation.evaluate import Evaluation

LIMIT_DEVIATIONS = 1.96
"""Half width of the limits of agreement: 95 % of normally distributed differences lie within."""


@dataclass(frozen=True)
class CountAgreement:
    """Of one class, or of all, in one region; limits of agreement by Bland and Altman (1986)."""

    true: Sequence[int]  # cells of each image, in the order of the images
    predicted: Sequence[int]  # predictions that count, likewise, at the score threshold
    mean_absolute_error: Value  # cells per image
    mean_relative_error: Value  # absolute difference by true number, mean over images with ground truth
    bias: Value  # mean of predicted - true, cells per image
    # bias - 1.96 standard deviations of the difference; the bias itself for a single image
    lower_limit: Value
    upper_limit: Value  # bias + 1.96 standard deviations, likewise


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


def confusion(
    measured: Sequence[MeasuredImage], number_of_classes: int, score_threshold: float
) -> list[list[int]]:
    """Rows of true, columns of predicted classes, the last of each for none.

    Predictions and cells are matched at IoU 0.5 whatever their class.
    """
    table = np.zeros((number_of_classes + 1, number_of_classes + 1), np.int64)
    for image in measured:
        overlap = image.overlap
        match = match_cells(overlap, score_threshold)
        np.add.at(table, (overlap.true_classes[match.true], overlap.predicted_classes[match.predicted]), 1)
        np.add.at(table[:, -1], overlap.true_classes[match.false_negatives], 1)
        np.add.at(table[-1], overlap.predicted_classes[match.false_positives], 1)
    return table.tolist()


def class_table(evaluation: Evaluation) -> str:
    """Markdown table, one row per class: AP of boxes at IoU 0.5, F1, counts, and what its cells are called.

    The last row holds the predictions that match no cell.
    """
    names = evaluation.class_names
    called = [f"called {name}" for name in names]
    head = ["", "cells", "predicted", "AP@0.5", "F1", "bias", "mean absolute error", *called, "not found"]
    boxes = evaluation.average_precision["bbox"]["all"].by_class
    rows = []
    for name, confused in zip(names, evaluation.confusion):
        found, counts = evaluation.instances["all"][name], evaluation.counts["all"][name]
        rows.append(
            [
                name,
                str(found.cells),
                str(found.predicted),
                *(in_words(value) for value in (boxes[name].AP50, found.f1)),
                *(in_words(value, 2) for value in (counts.bias, counts.mean_absolute_error)),
                *map(str, confused),
            ]
        )
    rows.append(["no cell", *[""] * 6, *map(str, evaluation.confusion[-1][:-1]), ""])
    return markdown_table(head, rows)
