"""The figures of a report: which there are, drawn and saved."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from bccd_d2.evaluation.evaluate import HEADLINE
from bccd_d2.evaluation.options import ALL_CLASSES, REGIONS
from bccd_d2.reporting import evaluation_figures as figures
from bccd_d2.reporting.cases import case_grid
from bccd_d2.reporting.overlays import case, ranking
from bccd_d2.reporting.part import EvaluatedPart
from bccd_d2.reporting.training_curves import value_bars

CASES = 4
"""Images in the figures of best and worst cases."""
DPI = 110
REGION_TITLES = {"all": "whole image", "interior": "without the border"}


def part_figures(part: EvaluatedPart) -> dict[str, tuple[str, Figure]]:
    """Title and figure by name, of one part, in the order in which they are shown."""
    found = part.evaluation
    names = found.class_names
    threshold = found.options.score_threshold
    curves = {REGION_TITLES[region]: found.curves[region][ALL_CLASSES] for region in REGIONS}
    if len(names) > 1:
        curves = {name: found.curves["all"][name] for name in names}
    quality = {REGION_TITLES[region]: found.instances[region][ALL_CLASSES] for region in REGIONS}
    if len(names) > 1:
        quality |= {name: found.instances["all"][name] for name in names}
    return {
        "errors": ("What goes wrong", figures.error_bars(found.errors)),
        "error_splits": ("What becomes of which cells", figures.error_splits(found.errors)),
        "precision_recall": ("Precision and recall", figures.precision_recall_curves(curves, threshold)),
        "f1_over_iou": ("How exact the outlines are", figures.f1_over_iou(quality)),
        "bland_altman": (
            "Does the count agree? (Bland-Altman)",
            figures.bland_altman(found.counts["all"][ALL_CLASSES]),
        ),
        "calibration": ("What a score is worth", figures.reliability_curve(found.reliability["all"])),
        "confusion": ("Which class is taken for which", figures.confusion_matrix(found.confusion, names)),
    }


def metrics_bar(parts: Sequence[EvaluatedPart]) -> Figure:
    """The headline figures with their intervals, one colour a part."""
    values: dict[str, dict[str, float]] = {}
    spans: dict[str, dict[str, tuple[float, float]]] = {}
    for part in parts:
        found = part.evaluation.intervals["all"]
        known = {name: found[name] for name in HEADLINE if not isinstance(found[name].value, str)}
        values[part.name] = {name: float(interval.value) for name, interval in known.items()}
        spans[part.name] = {
            name: (interval.low, interval.high)
            for name, interval in known.items()
            if interval.low is not None and interval.high is not None
        }
    return value_bars(values, spans)


def case_figures(parts: Sequence[EvaluatedPart]) -> Iterator[tuple[str, Figure]]:
    """Name and figure of the best and of the worst images of all parts, as far as their files are there."""
    ranked = [
        (part.evaluation.per_image[index]["iou"], part, index) for part in parts for index in ranking(part)
    ]
    ranked.sort(key=lambda entry: entry[0])
    if not ranked:
        return
    for name, title, chosen in (
        ("step6_success_cases", "Best images by IoU", ranked[::-1][:CASES]),
        ("step6_failure_cases", "Worst images by IoU", ranked[:CASES]),
    ):
        cases = [case(part, index) for _, part, index in chosen]
        yield name, case_grid(cases, f"{title}: {len(cases)} of {len(ranked)}")


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    figure.savefig(path, dpi=DPI)


def svg_uri(figure: Figure) -> str:
    """The figure as a data URI that is the same for the same figure."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "bccd_d2"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
