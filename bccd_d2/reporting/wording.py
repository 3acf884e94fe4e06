"""An evaluation, and the comparison of two, in plain English."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from tabulate import tabulate

from bccd_d2.drawing.pages import DASH, count, join, number
from bccd_d2.evaluation.bootstrap import Difference
from bccd_d2.evaluation.error_bins import (
    BORDER,
    CORRECT,
    DUPLICATE,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    IGNORED,
    MISCLASSIFIED,
    OVER,
    POOR,
    UNDER,
)
from bccd_d2.evaluation.evaluate import Evaluation
from bccd_d2.evaluation.options import ALL_CLASSES, Value
from bccd_d2.reporting.sources import Source

BORDER_SHARE = 0.2
"""The summary mentions the image border if this share of the false positives lies there."""
WORTH_SAYING = 0.01
"""The summary names a better score threshold if it gains this much F1."""
SIGNIFICANT = 0.05
"""Two-sided p value below which a difference counts as real."""


class BinWords(NamedTuple):
    """Heading, meaning and advice of an error bin."""

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
    FALSE_NEGATIVE: BinWords(
        "Not found",
        "An annotated cell without a prediction.",
        "Lower the score threshold; compare contrast and size of the cells not found, below.",
    ),
    FALSE_POSITIVE: BinWords(
        "No cell is annotated there",
        "Stain, dirt, or a real cell that is not annotated: look at the images.",
        "Raise the score threshold; annotate the missing cells.",
    ),
    POOR: BinWords(
        "Outline too far off",
        "A prediction overlaps the annotated cell, but with an IoU below 0.5.",
        "Compare prediction and annotation: one of the two is wrong.",
    ),
    MISCLASSIFIED: BinWords(
        "Wrong class",
        "The outline is right and the class is wrong.",
        "See which classes are confused; rare classes need more training images.",
    ),
    DUPLICATE: BinWords(
        "Found twice",
        "A second prediction on a cell that another one matches.",
        "A stricter suppression of overlapping predictions.",
    ),
    BORDER: BinWords(
        "Errors at the image border",
        "Cells cut by the border are annotated only sometimes; many of these are no mistakes.",
        'Compare the rows "interior", which leave the border out.',
    ),
}
"""All bins but "correct" and "ignored"."""
BIN_COLORS: Mapping[str, str] = {
    CORRECT: "#1fb866",
    UNDER: "#e6007e",
    OVER: "#0aa5e0",
    MISCLASSIFIED: "#7a3fd0",
    POOR: "#e09600",
    DUPLICATE: "#8b5a2b",
    FALSE_POSITIVE: "#ff4a1c",
    FALSE_NEGATIVE: "#111111",
    BORDER: "#7f8790",
    IGNORED: "#aab0b9",
}
"""Colour of each error bin in all figures and on the page; strong on pink and purple stain."""


def figure(value: Value | None, decimals: int = 3) -> str:
    """A metric as text; a dash for ``None``."""
    if value is None or isinstance(value, str):
        return value or DASH
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def percent(value: Value) -> str:
    """``92 %``, or the words that stand for a missing value."""
    return value if isinstance(value, str) else f"{100 * value:.0f} %"


def summary_sentences(evaluation: Evaluation) -> list[str]:
    """Recall and precision, the border, the commonest error, the counts and the score threshold, a sentence each."""
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
            f"are found, and {percent(found.precision)} of the predictions are annotated cells."
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
        count(found.predictions, "prediction", "predictions") if found.predictions else "",
    ]
    gain = f"; fixing it would add {found.AP50_gain:.2f} to AP50" if (found.AP50_gain or 0) >= 0.005 else ""
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
        f"All false positives ({number(wrong)})"
        if border == wrong
        else f"{number(border)} of the {number(wrong)} false positives"
    )
    return [
        f"{share} lie at the image border, where cells are annotated only sometimes; away from it "
        f"{percent(inside.recall)} of the cells are found and {percent(inside.precision)} of the predictions are right."
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


def verdict(found: Difference) -> str:
    """Which run is better; a difference counts only if interval and permutation test agree."""
    if found.difference is None:
        return "nothing to compare"
    if found.low is None or found.high is None or found.p_value is None:
        return "too few images or no resamples to tell"
    if found.p_value < SIGNIFICANT and not found.low <= 0 <= found.high:
        return "B is better" if found.difference > 0 else "A is better"
    return "no clear difference"


def comparison_table(found: Mapping[str, Mapping[str, Difference]]) -> str:
    """Markdown table with one row per region and metric of :func:`bccd_d2.evaluation.bootstrap.compare_runs`."""
    rows = []
    for region, metrics in found.items():
        for name, one in metrics.items():
            span = "" if one.low is None or one.high is None else f"{one.low:+.3f} to {one.high:+.3f}"
            change = "" if one.difference is None else f"{one.difference:+.3f}"
            p_value = "" if one.p_value is None else f"{one.p_value:.3f}"
            title = name if region == "all" else f"{name}, {region}"
            rows.append([title, figure(one.a), figure(one.b), change, span, p_value, verdict(one)])
    head = ["metric", "A", "B", "B - A", "95 % interval", "p", "verdict"]
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True)


def comparison_document(
    found: Mapping[str, Mapping[str, Difference]], a: Source, b: Source
) -> dict[str, Any]:
    """The comparison as JSON, with the files that were compared."""
    return {
        "a": dict(a.facts),
        "b": dict(b.facts),
        "figures": {
            region: {name: {**asdict(one), "verdict": verdict(one)} for name, one in metrics.items()}
            for region, metrics in found.items()
        },
    }
