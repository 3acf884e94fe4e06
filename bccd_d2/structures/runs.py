"""Runs of equal labels down the columns of a label map: what areas, boxes and run-length codes are made of.

A map of two million pixels has some ten thousand runs, so everything that can be said of runs instead of
pixels costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Runs:
    """Runs of a (height, width) map read column by column, background included.

    Attributes:
        shape: (height, width) of the map.
        starts: int64 (n,) number of the first pixel of each run, counted down the columns from 0.
        stops: int64 (n,) number of the pixel after each run.
        values: (n,) label of each run.
    """

    shape: tuple[int, int]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    values: NDArray[np.int32]

    def areas(self) -> NDArray[np.int64]:
        """Pixels of each label from 0 to the largest, int64 (largest + 1,)."""
        return np.bincount(self.values, weights=self.stops - self.starts, minlength=1).astype(np.int64)

    def relabelled(self, lookup: NDArray[np.int32]) -> NDArray[np.int32]:
        """The map with ``lookup[label]`` in place of each label, int32 (height, width)."""
        flat = np.repeat(lookup[self.values], self.stops - self.starts)
        return flat.reshape(self.shape[::-1]).T


def find_runs(labels: NDArray[np.integer]) -> Runs:
    """Runs of a (height, width) integer map; fastest where the map lies column by column in memory."""
    height, width = labels.shape
    flat = np.ravel(labels, order="F")
    if flat.size == 0:
        empty = np.empty(0, np.int64)
        return Runs((height, width), empty, empty, np.empty(0, np.int32))
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    return Runs((height, width), starts, np.append(starts[1:], flat.size), flat[starts])


def rows_covered(starts: NDArray, stops: NDArray, height: int) -> tuple[NDArray, NDArray]:
    """First and last row of each run ``[start, stop)`` of a map of ``height`` rows.

    A run that goes on at the top of the next column covers all rows.
    """
    tops, bottoms = starts % height, (stops - 1) % height
    wraps = starts // height != (stops - 1) // height
    return np.where(wraps, 0, tops), np.where(wraps, height - 1, bottoms)
