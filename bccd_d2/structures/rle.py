"""COCO segmentations: run-length codes and polygons, checked as they are read; codes are written for all instances of a
label map in one pass.

pycocotools takes a file's word for lengths and encodes one full-frame mask at a time, in time that goes with cells
times pixels; here the runs of a whole map are found once (benchmarks/bench_conversion.py compares the two).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from bccd_d2.errors import InputError

FIRST_CHARACTER = 48
MORE, SIGN, BITS = 0x20, 0x10, 5
MAX_ARRAY_PIXELS = 2**28
"""An array of more pixels, on the word of a file, is taken for a mistake: 268 million, or a slide of 16384x16384."""
MAX_CHARACTERS = 8  # a number of eight characters counts up to 2^40 pixels
FAR = 4  # polygon coordinates further out than this many image sides are taken for a mistake
MAX_SIDE = 2**24
MAX_OUTLINE = 1_000_000  # pixels along the polygons of one instance; pycocotools takes 120 bytes for each

Segmentation = dict[str, Any]  # COCO compressed RLE: ``{"size": [height, width], "counts": str}``


@dataclass(frozen=True)
class Runs:
    """Runs of a (height, width) map read column by column, background included."""

    shape: tuple[int, int]  # (height, width) of the map
    # int64 (n,) number of the first pixel of each run, counted down the columns from 0
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]  # int64 (n,) number of the pixel after each run
    values: NDArray[np.int32]  # (n,) label of each run

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


@dataclass(frozen=True)
class EncodedInstance:
    """One instance as COCO wants it."""

    label: int  # its value in the label map
    bbox: list[int]  # ``[x, y, width, height]`` in pixels of the map, tight around the mask
    area: int  # pixels
    segmentation: Segmentation  # compressed RLE
    border: bool  # whether it touches the border of the image


def encode_labels(labels: NDArray[np.integer]) -> list[EncodedInstance]:
    """Encode each label above 0 of a (height, width) integer map, in ascending order; labels need not be connected."""
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
    # A run that goes on at the top of the next column covers all rows.
    wraps = starts // height != (stops - 1) // height
    tops, bottoms = np.where(wraps, 0, starts % height), np.where(wraps, height - 1, (stops - 1) % height)
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
            segmentation=compress_runs(starts[first : last + 1], stops[first : last + 1], height, width),
            border=bool(border[index]),
        )
        for index, (first, last) in enumerate(zip(firsts, lasts))
    ]


def compress_runs(starts: NDArray, stops: NDArray, height: int, width: int) -> Segmentation:
    """COCO's compressed form of runs ``[start, stop)`` that rise, in column-major pixel numbers of an image."""
    edges = np.empty(2 * len(starts), np.int64)
    edges[0::2], edges[1::2] = starts, stops
    counts = np.diff(edges, prepend=0).tolist()
    last = int(stops[-1]) if len(stops) else 0
    if last < height * width or not counts:
        counts.append(height * width - last)
    compressed = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": compressed["counts"].decode("ascii")}


def run_lengths(segmentation: Mapping[str, Any]) -> NDArray[np.int64]:
    """Lengths of the runs of a COCO RLE, compressed or plain, background first, down the columns. Raises InputError
    where ``size`` or ``counts`` is malformed, or the lengths do not add up to the size.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if (
        not isinstance(size, list | tuple)
        or len(size) != 2
        or not all(isinstance(side, int) and 0 < side < 2**31 for side in size)
    ):
        raise InputError(f"RLE of size {size!r}, expected [height, width]")
    if isinstance(counts, str | bytes):
        lengths = _decompress(counts)
    elif isinstance(counts, list) and all(isinstance(c, int) and 0 <= c < 2**40 for c in counts):
        lengths = np.array(counts, np.int64)
    else:
        raise InputError(f"RLE with counts {str(counts)[:40]!r}, expected a string or a list of lengths")
    if (lengths < 0).any() or lengths.sum() != size[0] * size[1]:
        raise InputError(f"RLE whose runs cover {lengths.sum()} pixels, expected {size[0]} x {size[1]}")
    return lengths


def decode_rle(segmentation: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Rasterise an RLE to uint8 (height, width), 1 inside. Raises InputError as :func:`run_lengths`, and above
    :data:`MAX_ARRAY_PIXELS`.
    """
    lengths = run_lengths(segmentation)
    require_size(*segmentation["size"])
    values = (np.arange(lengths.size) % 2).astype(np.uint8)
    height, width = segmentation["size"]
    return np.repeat(values, lengths).reshape(width, height).T


def require_size(height: int, width: int) -> None:
    """Raise InputError for an array of more than :data:`MAX_ARRAY_PIXELS`."""
    if height * width > MAX_ARRAY_PIXELS:
        raise InputError(f"{width}x{height} pixels at once, more than the limit of {MAX_ARRAY_PIXELS}")


def _decompress(counts: str | bytes) -> NDArray[np.int64]:
    """COCO's compressed counts: numbers of 5 bits a character, from the third on as differences to the last but one."""
    try:
        raw = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError as error:
        raise InputError("RLE with counts that are not ASCII") from error
    digits = np.frombuffer(raw, np.uint8).astype(np.int64) - FIRST_CHARACTER
    if digits.size == 0 or digits.min() < 0 or digits.max() >= 64 or digits[-1] & MORE:
        raise InputError(f"RLE with counts {str(counts)[:40]!r}, expected COCO's compressed form")
    last = np.flatnonzero((digits & MORE) == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    if (last - first).max() >= MAX_CHARACTERS:
        raise InputError("RLE with a number of too many characters")
    place = np.arange(digits.size) - np.repeat(first, last - first + 1)
    numbers = np.add.reduceat((digits & 0x1F) << (BITS * place), first)
    negative = (digits[last] & SIGN) != 0
    numbers[negative] -= 1 << (BITS * (last - first + 1)[negative])
    for start in (1, 2):
        numbers[start::2] = np.cumsum(numbers[start::2])
    return numbers


def decode_segmentation(
    segmentation: Mapping[str, Any] | list[Any], height: int, width: int
) -> NDArray[np.uint8]:
    """Rasterise a COCO segmentation, RLE (compressed or plain) or a list of polygons ``[x0, y0, x1, y1, ...]``, to
    uint8 (height, width), 1 inside. Raises InputError where it is of another size or form.
    """
    return decode_rle(as_rle(segmentation, height, width))


def decode_columns(
    segmentation: Mapping[str, Any] | list[Any], height: int, width: int
) -> tuple[NDArray[np.uint8], int]:
    """As :func:`decode_segmentation`, but only the columns from the first to the last that the instance covers: uint8
    (height, columns), and the number of the first.
    """
    edges = np.concatenate(([0], np.cumsum(run_lengths(as_rle(segmentation, height, width)))))
    starts, stops = edges[1:-1:2], edges[2::2]
    starts, stops = starts[stops > starts], stops[stops > starts]
    if not starts.size:
        return np.zeros((height, 0), np.uint8), 0
    first, last = int(starts[0]) // height, int(stops[-1] - 1) // height
    require_size(height, last + 1 - first)
    lengths = np.diff(np.clip(edges, first * height, (last + 1) * height))
    values = (np.arange(lengths.size) % 2).astype(np.uint8)
    return np.repeat(values, lengths).reshape(-1, height).T, first


def as_rle(segmentation: Mapping[str, Any] | list[Any], height: int, width: int) -> Mapping[str, Any]:
    """One COCO segmentation as RLE, whose lengths :func:`run_lengths` checks. Raises InputError as
    :func:`decode_segmentation`, and for what pycocotools, which counts with 32 bits and takes memory by the length of
    an outline, cannot be given.
    """
    if isinstance(segmentation, Mapping):
        size = segmentation.get("size")
        if not isinstance(size, list | tuple) or list(size) != [height, width]:
            raise InputError(f"RLE of size {size}, expected [{height}, {width}]")
        return segmentation
    if not isinstance(segmentation, list) or not segmentation:
        raise InputError(f"segmentation {str(segmentation)[:60]!r}, expected RLE or a list of polygons")
    side = max(height, width)
    if side > MAX_SIDE or height * width >= 2**32:
        raise InputError(f"polygons in an image of {width}x{height} pixels, expected RLE in one so large")
    length = 0.0
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise InputError(
                f"polygon {str(polygon)[:60]!r}, expected [x0, y0, x1, y1, ...] of three points or more"
            )
        for value in polygon:
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= FAR * side:
                raise InputError(f"polygon with coordinate {value!r}, expected numbers within the image")
        points = np.array(polygon, np.float64).reshape(-1, 2)
        length += float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
    if length > MAX_OUTLINE:
        raise InputError(f"polygons with an outline of {length:.0f} pixels, expected at most {MAX_OUTLINE}")
    return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
