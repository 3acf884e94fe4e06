"""Figures of one training run: its losses, its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

# Of each result: (group in results.json, metric, label). What a reader compares first comes first.
HEADLINE_METRICS = (
    ("overlap", "IoU", "IoU"),
    ("overlap", "Dice", "Dice"),
    ("bbox", "AP50", "box mAP@0.5"),
    ("segm", "AP", "mask AP"),
    ("segm", "AP50", "mask AP50"),
    ("segm", "AP75", "mask AP75"),
    ("bbox", "AP", "box AP"),
)


def headline(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The metrics a reader compares first, as fractions in [0, 1], without those that could not be computed.

    Args:
        results: metrics of one data set in percent, as in results.json.
    """
    return {
        label: results[group][metric] / 100
        for group, metric, label in HEADLINE_METRICS
        if metric in results.get(group, {})
    }


def training_loss(
    records: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]] = ()
) -> Figure:
    """Total training loss and its parts over the iterations, validation loss beside the total, learning rate below.

    Args:
        records: the lines of Detectron2's metrics.json that hold ``total_loss``, in order.
        validation: those that hold ``validation/total_loss``, in order.
    """
    iterations = [record["iteration"] for record in records]
    names = sorted({key for record in records for key in record if key.startswith("loss_")})
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    loss_axes, rate_axes = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    loss_axes.plot(iterations, [r["total_loss"] for r in records], color="black", linewidth=2, label="total")
    if validation:
        loss_axes.plot(
            [record["iteration"] for record in validation],
            [record["validation/total_loss"] for record in validation],
            "o--",
            color="tab:red",
            linewidth=2,
            markersize=4,
            label="total, validation",
        )
    for name in names:
        label = name.removeprefix("loss_").replace("rpn_", "RPN ").replace("_", " ")
        loss_axes.plot(iterations, [r.get(name, np.nan) for r in records], linewidth=1.2, label=label)
    loss_axes.set(ylabel="loss (median of 20 iterations)", yscale="log", title="Training loss")
    loss_axes.legend(ncols=3, frameon=False)
    rate_axes.plot(iterations, [r.get("lr", np.nan) for r in records], color="tab:gray")
    rate_axes.set(xlabel="iteration", ylabel="learning rate")
    for axes in (loss_axes, rate_axes):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def metrics_bar(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """The headline metrics as bars, one colour a data set.

    Args:
        results: metrics in percent by data set, as in results.json.
    """
    return value_bars({name: headline(metrics) for name, metrics in results.items()})


def value_bars(
    values: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
) -> Figure:
    """Figures in [0, 1] as bars, one colour a data set.

    Args:
        values: by data set, then by name; all in one order.
        intervals: low and high end of those that have one.
    """
    labels = list(dict.fromkeys(label for figures in values.values() for label in figures))
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(1, len(values))
    for index, (name, found) in enumerate(values.items()):
        positions = np.arange(len(labels)) + (index - (len(values) - 1) / 2) * width
        heights = np.array([found.get(label, 0.0) for label in labels])
        bars = axes.bar(positions, heights, width * 0.9, label=name)
        spans = (intervals or {}).get(name, {})
        if spans:
            ends = np.array([spans.get(label, (height,) * 2) for label, height in zip(labels, heights)]).T
            errors = np.maximum(np.abs(ends - heights), 0)
            axes.errorbar(positions, heights, errors, fmt="none", ecolor="0.25", elinewidth=1, capsize=3)
        axes.bar_label(bars, fmt="%.3f", padding=4 if not spans else 12, fontsize=8)
    axes.set(ylim=(0, 1.12), ylabel="value", title="Evaluation", xticks=range(len(labels)))
    axes.set_xticklabels(labels)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
