"""Figures of a classifier of cell types: confusion, and the cells it errs on most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bccd_d2.cell_types.metrics import TypeMetrics
from bccd_d2.drawing.charts import draw_matrix

_COLUMNS, _MOST = 8, 40


def type_confusion(metrics: TypeMetrics, types: Sequence[str], title: str) -> Figure:
    """Number of cells by true and predicted type, coloured by the share of the row, with recall and precision."""
    counts = metrics.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.4 + 0.55 * len(types)
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axes = figure.subplots()
    draw_matrix(axes, shares, lambda row, column: str(counts[row, column] or ""), fontsize=9)
    precisions = [f"{name} ({_percent(value)})" for name, value in zip(types, metrics.precision)]
    recalls = [f"{name} ({_percent(value)})" for name, value in zip(types, metrics.recall)]
    axes.set_xticks(range(len(types)), precisions, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(types)), recalls)
    axes.set(xlabel="predicted (precision)", ylabel="true (recall)")
    axes.set_title(f"{title}\naccuracy {metrics.accuracy:.3f}, macro F1 {metrics.macro_f1:.3f}", fontsize=11)
    return figure


def _percent(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.0%}"


def worst_cells(
    crops: NDArray[np.uint8],
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    types: Sequence[str],
) -> Figure:
    """Contact sheet of the 40 cells whose true type is least probable, worst first.

    ``crops`` are (N, side, side, 3) uint8 BGR, ``probabilities`` (N, K), ``labels`` (N,) true types.
    """
    order = np.argsort(probabilities[np.arange(len(labels)), labels], kind="stable")[:_MOST]
    rows = -(-len(order) // _COLUMNS)
    figure = Figure(figsize=(1.5 * _COLUMNS, 1.85 * rows), layout="constrained")
    for place in figure.subplots(rows, _COLUMNS, squeeze=False).flat:
        place.set_axis_off()
    for axes, index in zip(figure.axes, order):
        predicted = int(probabilities[index].argmax())
        axes.imshow(crops[index, ..., ::-1])
        axes.set_title(
            f"{types[labels[index]]}\n-> {types[predicted]} {probabilities[index, predicted]:.2f}",
            fontsize=7,
            color="#1a7f37" if predicted == labels[index] else "#b3261e",
        )
    return figure
