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

from bccd_d2.structures.runs import find_runs, rows_covered

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


def encode_labels(labels: NDArray[np.integer]) -> list[EncodedInstance]:
    """Encode each label of a map.

    Args:
        labels: (height, width) integers, 0 for background. Labels need not be connected or without gaps.

    Returns:
        One entry for each label that occurs, in ascending order of labels.
    """
    height, width = labels.shape
    runs = find_runs(labels)
    # A stable sort keeps the runs of one label in the order of their pixels; background sorts away.
    inside = np.flatnonzero(runs.values)
    order = inside[np.argsort(runs.values[inside], kind="stable")]
    starts, stops, values = runs.starts[order], runs.stops[order], runs.values[order]
    if values.size == 0:
        return []
    firsts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    areas = np.add.reduceat(stops - starts, firsts)
    tops, bottoms = rows_covered(starts, stops, height)
    tops, bottoms = np.minimum.reduceat(tops, firsts), np.maximum.reduceat(bottoms, firsts)
    lasts = np.append(firsts[1:], values.size) - 1
    lefts, rights = starts[firsts] // height, (stops[lasts] - 1) // height
    border = (lefts == 0) | (tops == 0) | (rights == width - 1) | (bottoms == height - 1)
    boxes = np.stack([lefts, tops, rights - lefts + 1, bottoms - tops + 1], axis=1)
    return [
        EncodedInstance(
            label=int(values[first]),
            bbox=boxes[index].tolist(),
            area=int(areas[index]),
            segmentation=_compress(starts[first : last + 1], stops[first : last + 1], height, width),
            border=bool(border[index]),
        )
        for index, (first, last) in enumerate(zip(firsts, lasts))
    ]


def _compress(starts: NDArray, stops: NDArray, height: int, width: int) -> Segmentation:
    """COCO's compressed form of runs ``[start, stop)`` in column-major pixel numbers."""
    edges = np.empty(2 * len(starts), np.int64)
    edges[0::2], edges[1::2] = starts, stops
    counts = np.diff(edges, prepend=0).tolist()
    if stops[-1] < height * width:
        counts.append(height * width - int(stops[-1]))
    compressed = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": compressed["counts"].decode("ascii")}
