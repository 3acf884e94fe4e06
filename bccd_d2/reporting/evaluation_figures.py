"""Charts of an evaluation: metrics, errors, curves, counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bccd_d2.drawing.charts import chart_axes, draw_matrix, with_grid
from bccd_d2.evaluation.average_precision import PrecisionRecallCurve
from bccd_d2.evaluation.bootstrap import HEADLINE
from bccd_d2.evaluation.calibration import Reliability
from bccd_d2.evaluation.error_bins import CORRECT, IGNORED
from bccd_d2.evaluation.error_table import ErrorTable
from bccd_d2.evaluation.instances import CountAgreement, InstanceMetrics
from bccd_d2.evaluation.options import ALL_CLASSES, REGIONS
from bccd_d2.reporting.sources import EvaluatedPart
from bccd_d2.reporting.wording import BIN_COLORS

REGION_TITLES = {"all": "whole image", "interior": "without the border"}
LINES = ("#3b4d8f", "#d97706", "#2c9c5a", "#c2188b", "#0a84d8", "#6b7280")
SPLIT_ORDER = ("small", "low", "touching", "near", "medium", "apart", "large", "high")


def part_figures(part: EvaluatedPart) -> dict[str, tuple[str, Figure]]:
    """Title and chart by name, of one part, in the order in which they are shown."""
    found = part.evaluation
    names = found.class_names
    curves = {REGION_TITLES[region]: found.curves[region][ALL_CLASSES] for region in REGIONS}
    quality = {REGION_TITLES[region]: found.instances[region][ALL_CLASSES] for region in REGIONS}
    if len(names) > 1:
        curves = {name: found.curves["all"][name] for name in names}
        quality |= {name: found.instances["all"][name] for name in names}
    counts = found.counts["all"][ALL_CLASSES]
    threshold = found.options.score_threshold
    return {
        "errors": ("Errors", error_bars(found.errors)),
        "error_splits": ("Errors by group of cells", error_splits(found.errors)),
        "precision_recall": ("Precision and recall", precision_recall_curves(curves, threshold)),
        "f1_over_iou": ("Accuracy of the outlines", f1_over_iou(quality)),
        "bland_altman": ("Agreement of the counts (Bland-Altman)", bland_altman(counts)),
        "calibration": ("Calibration of the scores", reliability_curve(found.reliability["all"])),
        "confusion": ("Confusion of the classes", confusion_matrix(found.confusion, names)),
    }


def metrics_bar(parts: Sequence[EvaluatedPart]) -> Figure:
    """Headline metrics as bars with their 95 % intervals, one colour per part."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(1, len(parts))
    for index, part in enumerate(parts):
        found = part.evaluation.intervals["all"]
        known = [name for name in HEADLINE if not isinstance(found[name].value, str)]
        heights = np.array([found[name].value for name in known], float)
        places = np.array([HEADLINE.index(name) for name in known]) + (index - (len(parts) - 1) / 2) * width
        ends = [
            (height, height)
            if found[name].low is None or found[name].high is None
            else (found[name].low, found[name].high)
            for name, height in zip(known, heights)
        ]
        whiskers = np.abs(np.array(ends, float).reshape(-1, 2).T - heights)
        style = {"elinewidth": 1, "capsize": 3, "ecolor": "0.25"} if whiskers.any() else {"elinewidth": 0}
        bars = axes.bar(places, heights, width * 0.9, yerr=whiskers, label=part.name, error_kw=style)
        axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    axes.set(ylim=(0, 1.12), ylabel="value", title="Evaluation")
    axes.set_xticks(range(len(HEADLINE)), HEADLINE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="0.4")


def precision_recall_curves(
    curves: Mapping[str, PrecisionRecallCurve], score_threshold: float | None = None
) -> Figure:
    """Precision over recall, one line per name; the best threshold and, if given, the one in use are marked."""
    figure, axes = chart_axes()
    drawn = 0
    for color, (name, curve) in zip(np.resize(LINES, len(curves)), curves.items()):
        if not len(curve.recall):
            continue
        drawn += 1
        axes.plot(curve.recall, curve.precision, color=color, label=name, linewidth=1.8)
        marks = ((curve.best_threshold, "o", "best F1 at score"), (score_threshold, "D", "in use: score"))
        for threshold, marker, label in marks:
            if threshold is None:
                continue
            kept = int(np.count_nonzero(np.asarray(curve.scores) >= threshold))
            if kept:
                point = (curve.recall[kept - 1], curve.precision[kept - 1])
                style = {"color": color, "mec": "black", "ms": 7, "zorder": 4, "ls": ""}
                axes.plot(*point, marker, label=f"{label} {threshold:.2f}", **style)
    if drawn:
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    else:
        _say(axes, "no ground truth or no predictions")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03), xlabel="recall: share of the annotated cells that is found")
    axes.set_ylabel("precision")
    return figure


def reliability_curve(reliability: Reliability) -> Figure:
    """Share of correct predictions over their mean score; below, how many have such a score."""
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    above.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="perfect calibration")
    known = [
        (score, precision)
        for score, precision in zip(reliability.mean_scores, reliability.precisions)
        if score is not None and precision is not None
    ]
    if known:
        above.plot(*zip(*known), "o-", color=LINES[0], label="measured")
    error = reliability.expected_error
    above.set_title(
        "no predictions" if error is None else f"expected calibration error {error:.3f}", fontsize=10
    )
    above.legend(fontsize=8, frameon=False, loc="upper left")
    above.set(ylim=(0, 1.03), ylabel="share correct")
    edges = np.asarray(reliability.edges)
    below.bar(edges[:-1], reliability.counts, np.diff(edges), align="edge", color=LINES[0], edgecolor="white")
    below.set(xlim=(0, 1), xlabel="score", ylabel="predictions")
    with_grid(above)
    with_grid(below)
    return figure


def confusion_matrix(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Counts of annotated (rows) against predicted class, (C + 1, C + 1), the last meaning no cell."""
    counts = np.asarray(confusion, float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares[-1] = 0  # predictions without a cell have no share of a row
    number = len(counts)
    figure = Figure(figsize=(5.6, 1.6 + 0.75 * number), layout="constrained")
    axes = figure.subplots()
    draw_matrix(
        axes,
        shares,
        lambda row, column: (
            f"{counts[row, column]:,.0f}" + (f"\n{shares[row, column]:.0%}" if row < number - 1 else "")
        ),
        fontsize=10,
        aspect="auto",
    )
    axes.texts[-1].set_text("")  # neither annotated nor predicted: not countable
    axes.set_xticks(range(number), [*class_names, "not found"])
    axes.set_yticks(range(number), [*class_names, "no cell there"])
    axes.set(xlabel="predicted", ylabel="annotated")
    return figure


def error_bars(errors: ErrorTable) -> Figure:
    """How many annotated cells and predictions are in each error bin, and what fixing it would gain in AP50."""
    names = [
        name
        for name, found in errors.bins.items()
        if name not in (CORRECT, IGNORED) and found.true_cells + found.predictions > 0
    ]
    figure, axes = chart_axes(6.4, 0.9 + 0.52 * max(len(names), 2))
    axes.grid(axis="y", visible=False)
    positions = np.arange(len(names))[::-1]
    for name, position in zip(names, positions):
        found = errors.bins[name]
        color = BIN_COLORS[name]
        axes.barh(position + 0.19, found.true_cells, 0.36, color=color)
        axes.barh(position - 0.19, found.predictions, 0.36, color=color, alpha=0.45)
        gain = "" if found.AP50_gain is None else f"  AP50 {found.AP50_gain:+.3f} if fixed"
        longest = max(found.true_cells, found.predictions)
        label = f" {found.true_cells} / {found.predictions}{gain}"
        axes.text(longest, position, label, va="center", fontsize=8)
    axes.set_yticks(positions, names)
    most = max([max(errors.bins[n].true_cells, errors.bins[n].predictions) for n in names] or [1])
    axes.set_xlim(0, 1.7 * most)
    axes.set_xlabel("annotated cells (full colour) / predictions (pale)")
    if not names:
        _say(axes, "no errors")
    return figure


def error_splits(errors: ErrorTable) -> Figure:
    """Error bins of the annotated cells, by class, size, crowding and contrast."""
    rows: list[tuple[str, Mapping[str, int]]] = []
    for split, groups in errors.splits.items():
        order = sorted(groups, key=lambda g: SPLIT_ORDER.index(g) if g in SPLIT_ORDER else -1)
        name = split.removesuffix("_bin")
        counted = [(f"{name}: {group}", groups[group]["truth"]) for group in order]
        counted = [(label, bins) for label, bins in counted if sum(bins.values())]
        if len(counted) > 1:
            rows += counted
    figure, axes = chart_axes(6.4, 1.2 + 0.34 * max(len(rows), 2))
    axes.grid(axis="y", visible=False)
    left = np.zeros(len(rows))
    positions = np.arange(len(rows))[::-1]
    totals = np.array([sum(bins.values()) for _, bins in rows], float)
    for name, color in BIN_COLORS.items():
        shares = np.array([bins.get(name, 0) for _, bins in rows]) / np.maximum(totals, 1)
        if shares.any():
            axes.barh(positions, shares, 0.72, left=left, color=color, label=name, alpha=0.85)
            left = left + shares
    axes.set_yticks(
        positions, [f"{label} ({total:,.0f})" for (label, _), total in zip(rows, totals)], fontsize=8
    )
    axes.set(xlim=(0, 1), xlabel="share of the annotated cells")
    if rows:
        figure.legend(
            *axes.get_legend_handles_labels(), fontsize=8, frameon=False, ncols=4, loc="outside upper center"
        )
    else:
        _say(axes, "no groups to compare")
    return figure


def bland_altman(counts: CountAgreement) -> Figure:
    """Counting error over the mean of both counts, one dot an image, with bias and limits of agreement."""
    figure, axes = chart_axes()
    true, predicted = np.asarray(counts.true, float), np.asarray(counts.predicted, float)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.scatter((true + predicted) / 2, predicted - true, color=LINES[0], s=28, zorder=3)
    lines = (
        ("bias", counts.bias, "-"),
        ("lower limit", counts.lower_limit, "--"),
        ("upper limit", counts.upper_limit, "--"),
    )
    for label, value, style in lines:
        if not isinstance(value, str):
            axes.axhline(value, color=LINES[1], linestyle=style, linewidth=1.2)
            axes.annotate(
                f"{label} {value:+.1f}", (1, value), xycoords=("axes fraction", "data"),
                ha="right", va="bottom", fontsize=8, color=LINES[1],
            )  # fmt: skip
    axes.set(xlabel="mean of annotated and predicted cells on an image", ylabel="predicted - annotated")
    return figure


def f1_over_iou(metrics: Mapping[str, InstanceMetrics]) -> Figure:
    """F1 over the IoU that a match needs, one line a name (for example a region)."""
    figure, axes = chart_axes()
    for color, (name, found) in zip(LINES, metrics.items()):
        points = [(t.iou_threshold, t.f1) for t in found.by_threshold if not isinstance(t.f1, str)]
        if points:
            axes.plot(*zip(*points), "o-", color=color, label=name, markersize=4)
    if axes.lines:
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    else:
        _say(axes, "no ground truth")
    axes.set(xlim=(0.48, 0.97), ylim=(0, 1.03), xlabel="mask IoU that a match needs", ylabel="F1")
    return figure
