"""An evaluation in plain English, for people who did not write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bccd_d2.evaluation.evaluate import Evaluation
from bccd_d2.evaluation.options import ALL_CLASSES, Value
from bccd_d2.evaluation.taxonomy import (
    BORDER,
    CORRECT,
    DUPLICATE,
    HALLUCINATED,
    IGNORED,
    MISCLASSIFIED,
    MISSED,
    OVER,
    POOR,
    UNDER,
)
from bccd_d2.reporting.page_words import count, join, number

BORDER_SHARE = 0.2
"""Share of the wrong predictions from which on the border is spoken of in the summary."""


WORTH_SAYING = 0.01
"""Gain in F1 from which on another score threshold is spoken of."""


class BinWords(NamedTuple):
    """How an error bin is spoken of: heading, what it is, what helps."""

    title: str
    meaning: str
    advice: str


BIN_WORDS: Mapping[str, BinWords] = {
    UNDER: BinWords(
        "Several cells in one outline",
        "Touching cells are outlined as one; counts come out too low.",
        "Check that the training masks separate touching cells; train at a higher resolution.",
    ),
    OVER: BinWords(
        "One cell in several pieces",
        "A cell is outlined in parts; counts come out too high.",
        "More training images of such cells; a stricter suppression of overlapping predictions.",
    ),
    MISSED: BinWords(
        "Not found",
        "An annotated cell has no outline at all.",
        "Lower the score threshold; look at contrast and size of those missed below.",
    ),
    HALLUCINATED: BinWords(
        "Outline where no cell is annotated",
        "Stain, dirt, or a real cell that the annotators left out: look at the images.",
        "Raise the score threshold; annotate what was left out.",
    ),
    POOR: BinWords(
        "Outline too far off",
        "The cell is seen, but its outline and the annotated one overlap by less than half.",
        "Compare the outlines with the annotation: one of both is wrong.",
    ),
    MISCLASSIFIED: BinWords(
        "Taken for another class",
        "The outline is right and the class is wrong.",
        "See which classes are confused; rare classes need more training images.",
    ),
    DUPLICATE: BinWords(
        "Found twice",
        "A second outline on a cell that has one already.",
        "A stricter suppression of overlapping predictions.",
    ),
    BORDER: BinWords(
        "Wrong at the image border",
        "Cells cut by the border are annotated only sometimes; many of these are no mistakes.",
        'Judge by the figures "interior", which leave the border out.',
    ),
}
"""All bins but "correct" and "ignored"."""
MEASURES = (
    (
        "IoU, Dice",
        "Overlap of the pixels of all predicted cells with those of all annotated ones, whatever the cell.",
    ),
    ("mAP@0.5", "COCO's mean over the classes of the average precision of boxes at IoU 0.5."),
    (
        "AP, AP50, AP75",
        "COCO's average precision of masks: over IoU 0.50 to 0.95, at 0.50, at 0.75. Looks at all scores.",
    ),
    ("F1", "Harmonic mean of precision and recall; a cell is found if the masks overlap by IoU 0.5 or more."),
    ("PQ", "Panoptic quality: F1 times the mean IoU of the matched cells."),
    (
        "Interior",
        "Without annotated cells that touch the image border and predictions there that match no other cell.",
    ),
    (
        "Intervals",
        "95 % bootstrap intervals over images; few images make them wide, and they know nothing of other slides.",
    ),
    (
        "If mended",
        "What mask AP50 would gain if the errors of a bin alone were put right (after TIDE, Bolya et al. 2020).",
    ),
)
"""What the page explains, with its explanation."""


def figure(value: Value | None, decimals: int = 3) -> str:
    """A number, or the words that stand for one."""
    if value is None:
        return "\N{EN DASH}"
    return value if isinstance(value, str) else f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def percent(value: Value) -> str:
    """``92 %``, or the words that stand for it."""
    return value if isinstance(value, str) else f"{100 * value:.0f} %"


def summary_sentences(evaluation: Evaluation) -> list[str]:
    """What a head of a laboratory wants to know first: found, wrong, the border, the counts, the commonest error."""
    found = evaluation.instances["all"][ALL_CLASSES]
    images = count(len(evaluation.per_image), "image", "images")
    if not found.cells:
        return [
            f"{images} without an annotated cell: there is nothing to compare {found.predicted} predictions with."
        ]
    sentences = [
        f"On {images} with {count(found.cells, 'annotated cell', 'annotated cells')}, {percent(found.recall)} of the "
        "cells "
        + (
            f"are found, and {percent(found.precision)} of the outlines are annotated cells."
            if found.predicted
            else "are found: nothing was predicted at this score threshold."
        )
    ]
    sentences += _about_border(evaluation)
    return [*sentences, *_about_errors(evaluation), *_about_counts(evaluation), *_about_threshold(evaluation)]


def commonest_error(evaluation: Evaluation) -> str | None:
    """The bin, other than the border, that holds most annotated cells and outlines; ``None`` without errors."""
    bins = evaluation.errors.bins
    sizes = {name: bins[name].true_cells + bins[name].predictions for name in BIN_WORDS if name != BORDER}
    worst = max(sizes, key=lambda name: sizes[name])
    return worst if sizes[worst] else None


def _about_errors(evaluation: Evaluation) -> list[str]:
    worst = commonest_error(evaluation)
    if worst is None:
        return []
    found = evaluation.errors.bins[worst]
    held = [
        count(found.true_cells, "annotated cell", "annotated cells") if found.true_cells else "",
        count(found.predictions, "outline", "outlines") if found.predictions else "",
    ]
    gain = f"; mending it would add {found.AP50_gain:.2f} to AP50" if (found.AP50_gain or 0) >= 0.005 else ""
    title = f"\N{LEFT DOUBLE QUOTATION MARK}{BIN_WORDS[worst].title.lower()}\N{RIGHT DOUBLE QUOTATION MARK}"
    return [f"The commonest error away from the border is {title}: {join([h for h in held if h])}{gain}."]


def _about_border(evaluation: Evaluation) -> list[str]:
    bins = evaluation.errors.bins
    wrong = sum(found.predictions for name, found in bins.items() if name not in (CORRECT, IGNORED))
    border = bins[BORDER].predictions
    inside = evaluation.instances["interior"][ALL_CLASSES]
    if not border or border < BORDER_SHARE * wrong or isinstance(inside.f1, str):
        return []
    share = (
        f"All wrong outlines ({number(wrong)})"
        if border == wrong
        else f"{number(border)} of the {number(wrong)} wrong outlines"
    )
    return [
        f"{share} lie at the image border, where cells are annotated only "
        f"sometimes; away from it {percent(inside.recall)} are found and {percent(inside.precision)} are right."
    ]


def _about_counts(evaluation: Evaluation) -> list[str]:
    counts = evaluation.counts["all"][ALL_CLASSES]
    if isinstance(counts.bias, str) or isinstance(counts.mean_absolute_error, str):
        return []
    average = sum(counts.true) / len(counts.true)
    lean = (
        f"{abs(counts.bias):.1f} too {'high' if counts.bias > 0 else 'low'}"
        if abs(counts.bias) >= 0.05
        else "right"
    )
    return [
        f"On an image of {average:.0f} cells the count is off by {counts.mean_absolute_error:.1f}; on average over the "
        f"images it is {lean}."
    ]


def _about_threshold(evaluation: Evaluation) -> list[str]:
    curve = evaluation.curves["all"][ALL_CLASSES]
    used, f1 = evaluation.options.score_threshold, evaluation.instances["all"][ALL_CLASSES].f1
    if (
        curve.best_threshold is None
        or curve.best_f1 is None
        or isinstance(f1, str)
        or curve.best_f1 < f1 + WORTH_SAYING
    ):
        return []
    return [
        f"A score threshold of {curve.best_threshold:.2f} in place of {used:.2f} would raise F1 on these images from "
        f"{f1:.3f} to {curve.best_f1:.3f}."
    ]
