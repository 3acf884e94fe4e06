"""Building blocks of charts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray


def chart_axes(width: float = 5.6, height: float = 3.8) -> tuple[Figure, Axes]:
    """A chart of ``width`` x ``height`` inches with a faint grid."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    with_grid(axes)
    return figure, axes


def with_grid(axes: Axes) -> None:
    """A faint grid in place of the upper and right spine."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def draw_matrix(
    axes: Axes,
    shares: NDArray[np.float64],
    text: Callable[[int, int], str],
    *,
    fontsize: int,
    aspect: Literal["auto", "equal"] = "equal",
) -> None:
    """A matrix coloured by shares in [0, 1], with ``text`` of row and column in each field."""
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect=aspect)
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if share > 0.6 else "black"
        label = text(row, column)
        axes.text(column, row, label, fontsize=fontsize, color=color, ha="center", va="center")
    axes.spines[:].set_visible(False)
