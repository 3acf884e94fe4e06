"""Run-length codes of all instances of a label map in one pass.

The usual way, one full-frame comparison and one encoding a label, costs time in proportion to cells times
pixels. Here the runs of the whole map are found once, column by column as COCO wants them, and sorted to
their labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

Segmentation = dict[str, Any]
"""COCO compressed RLE: ``{"size": [height, width], "counts": str}``."""


@dataclass(frozen=True)
class EncodedInstance:
    """One instance as COCO wants it.

    Attributes:
        label: its value in the label map.
        bbox: ``[x, y, width, height]`` in pixels of the map, tight around the mask.
        area: pixels.
        segmentation: compressed RLE.
        border: whether it touches the border of the image.
    """

    label: int
    bbox: list[int]
    area: int
    segmentation: Segmentation
    border: bool


def encode_labels(labels: NDArray[np.int32]) -> list[EncodedInstance]:
    """Encode each label of a map.

    Args:
        labels: (height, width) integers, 0 for background. Labels need not be connected or without gaps.

    Returns:
        One entry for each label that occurs, in ascending order of labels.
    """
    height, width = labels.shape
    flat = np.ravel(labels, order="F")
    if flat.size == 0:
        return []
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    stops = np.append(starts[1:], flat.size)
    values = flat[starts]
    inside = values != 0
    # A stable sort keeps the runs of one label in the order of their pixels.
    order = np.flatnonzero(inside)[np.argsort(values[inside], kind="stable")]
    starts, stops, values = starts[order], stops[order], values[order]
    firsts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if values.size else np.empty(0, np.intp)
    instances = []
    for first, last in zip(firsts, np.append(firsts[1:], values.size)):
        instances.append(
            _encode_runs(int(values[first]), starts[first:last], stops[first:last], height, width)
        )
    return instances


def _encode_runs(label: int, starts: NDArray, stops: NDArray, height: int, width: int) -> EncodedInstance:
    """Encode one instance from its runs ``[start, stop)`` in column-major pixel numbers."""
    edges = np.empty(2 * len(starts), np.int64)
    edges[0::2], edges[1::2] = starts, stops
    counts = np.diff(edges, prepend=0).tolist()
    if stops[-1] < height * width:
        counts.append(height * width - int(stops[-1]))
    compressed = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    left, right = int(starts[0]) // height, int(stops[-1] - 1) // height
    first_column, last_column = starts // height, (stops - 1) // height
    if (first_column != last_column).any():  # a run that continues at the top of the next column
        top, bottom = 0, height - 1
    else:
        top, bottom = int((starts % height).min()), int(((stops - 1) % height).max())
    return EncodedInstance(
        label=label,
        bbox=[left, top, right - left + 1, bottom - top + 1],
        area=int((stops - starts).sum()),
        segmentation={"size": [height, width], "counts": compressed["counts"].decode("ascii")},
        border=left == 0 or top == 0 or right == width - 1 or bottom == height - 1,
    )
