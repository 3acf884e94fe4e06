"""One record an image and one a cell: what tables and pictures show, and what the errors are split by."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import EvaluationImage
from bccd_d2.evaluation.error_bins import BINS
from bccd_d2.evaluation.image_metrics import MeasuredImage, iou_and_dice
from bccd_d2.evaluation.instances import distances
from bccd_d2.evaluation.options import ALL_CLASSES, EvaluationOptions
from bccd_d2.io.images import read_image
from bccd_d2.structures.cells import Cells

RING_START, RING_END = 2, 8
"""The ring that a cell is compared with begins and ends this many native px from it: beyond the blurred rim."""
MIN_RING = 20
"""Fewer pixels of a ring say nothing."""
CONTRAST_NAMES = ("low", "medium", "high")


def gaps(cells: Cells, reach: float) -> NDArray[np.float64]:
    """(N,) pixels of background between each cell and the next one, at the narrowest place.

    0 for cells that touch or overlap; infinite where no other cell is within ``reach`` px.
    """
    result = np.full(len(cells), np.inf)
    margin = int(np.ceil(reach)) + 1
    for index, (mask, window) in enumerate(zip(cells.masks, cells.windows)):
        if not mask.any():
            continue
        others, (x, y) = _others_around(cells, index, margin)
        if others.any():
            inside = distances(others)[window[1] - y : window[3] - y, window[0] - x : window[2] - x][mask]
            gap = max(0.0, float(inside.min()) - 1)
            if gap <= reach:
                result[index] = gap
    return result


def contrasts(cells: Cells, green: NDArray[np.uint8]) -> list[float | None]:
    """How much darker each cell is than a ring around it, free of other cells; in levels of 255, ``None`` if crowded.

    ``green`` is the image's (height, width) green channel, where stained cells stand out most.
    """
    result: list[float | None] = []
    for index, (mask, window) in enumerate(zip(cells.masks, cells.windows)):
        others, (x, y) = _others_around(cells, index, RING_END)
        own = np.zeros_like(others)
        own[window[1] - y : window[3] - y, window[0] - x : window[2] - x] = mask
        distance = distances(own)
        ring = (distance > RING_START) & (distance <= RING_END) & ~others
        levels = green[y : y + others.shape[0], x : x + others.shape[1]]
        if not mask.any() or np.count_nonzero(ring) < MIN_RING:
            result.append(None)
        else:
            result.append(float(levels[ring].mean() - levels[own].mean()))
    return result


def contrast_edges(contrast: Sequence[float | None]) -> tuple[float, float] | None:
    """What parts the thirds of those that have a contrast; ``None`` where none has."""
    known = [value for value in contrast if value is not None]
    if not known:
        return None
    low, high = np.quantile(known, [1 / 3, 2 / 3])
    return float(low), float(high)


def contrast_bin(contrast: float | None, edges: tuple[float, float] | None) -> str | None:
    """Name of the third that a contrast falls in; ``None`` where it is not known."""
    if contrast is None or edges is None:
        return None
    return CONTRAST_NAMES[int(np.searchsorted(edges, contrast))]


def _others_around(cells: Cells, index: int, margin: int) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Pixels of all other cells in the window of one cell grown by ``margin``, and its upper left corner (x, y)."""
    x0, y0 = np.maximum(cells.windows[index, :2] - margin, 0)
    x1, y1 = np.minimum(cells.windows[index, 2:] + margin, [cells.width, cells.height])
    others = np.zeros((y1 - y0, x1 - x0), bool)
    for other, part, place in cells.parts((x0, y0, x1, y1)):
        if other != index:
            others[place] |= part
    return others, (int(x0), int(y0))


SPLITS = ("class", "size", "crowding", "contrast_bin")
"""Keys of a cell's record that the error bins are split by."""
TRUTH, PREDICTION = "truth", "prediction"


def image_record(measured: MeasuredImage) -> dict[str, Any]:
    """One image as a flat record; F1, PQ and AJI are ``None`` without true cells."""
    found = measured.instances["all"][ALL_CLASSES]
    true_positives, false_positives, false_negatives = found.counts[0].tolist()
    matches = 2 * true_positives + false_positives + false_negatives
    some = true_positives + false_negatives > 0
    iou, dice = iou_and_dice(measured.pixels)
    bins = [*measured.errors.true_bins, *measured.errors.predicted_bins]
    return {
        "image_id": measured.image.image_id,
        "file_name": measured.image.file_name,
        "iou": iou,
        "dice": dice,
        "ap50": measured.box_precision,
        "cells": true_positives + false_negatives,
        "predicted": true_positives + false_positives,
        "true_positives": true_positives,
        "f1": 2 * true_positives / matches if some else None,
        "pq": 2 * found.iou_sum / matches if some else None,
        "aji": found.aji,
        **{f"errors {name}": bins.count(name) for name in BINS if name != "correct"},
    }


def cell_records(
    measured: Sequence[MeasuredImage], class_names: Sequence[str], options: EvaluationOptions
) -> tuple[list[dict[str, Any]], tuple[float, float] | None]:
    """Records of all cells, and the grey levels that part the thirds of the true cells' contrast.

    ``partner`` and ``index`` are indices into the cells of the image, ``iou`` is the best with any cell of the other
    kind, ``gap_px`` goes to the next cell of its kind (``None`` beyond ``crowding_edges``), ``contrast`` is levels of
    255 that the cell is darker than a ring around it, or ``None``. Raises InputError where an image cannot be read, or
    has another size than its annotations say.
    """
    records = [record for m in measured for record in _records(m, class_names, options)]
    edges = contrast_edges([record["contrast"] for record in records if record["kind"] == TRUTH])
    for record in records:
        record["contrast_bin"] = contrast_bin(record["contrast"], edges)
    return records, edges


def split_errors(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    """Number of cells by what they are split by, group, kind and error bin."""
    splits: dict[str, dict[str, dict[str, dict[str, int]]]] = {key: {} for key in SPLITS}
    for record in records:
        for key in SPLITS:
            if record[key] is not None:
                group = splits[key].setdefault(record[key], {TRUTH: {}, PREDICTION: {}})
                counts = group[record["kind"]]
                counts[record["bin"]] = counts.get(record["bin"], 0) + 1
    return splits


def _records(
    measured: MeasuredImage, class_names: Sequence[str], options: EvaluationOptions
) -> Iterator[dict[str, Any]]:
    image, errors, iou = measured.image, measured.errors, measured.overlap.iou
    green = _green(image)
    kept = np.array([name is not None for name in errors.predicted_bins], bool)
    bins = [*errors.true_bins, *(name for name in errors.predicted_bins if name is not None)]
    partners = [*errors.true_partners, *itertools.compress(errors.predicted_partners, kept)]
    best = [*iou[kept].max(axis=0, initial=0.0), *iou[kept].max(axis=1, initial=0.0)]
    rows = iter(zip(bins, partners, best))
    for kind, cells, indices in (
        (TRUTH, image.truth, np.arange(len(image.truth))),
        (PREDICTION, image.predictions[kept], np.flatnonzero(kept)),
    ):
        areas, border = cells.areas, cells.touches_border(options.border_margin)
        sizes, gap = options.size_bins(areas), gaps(cells, options.crowding_edges[1])
        diameters = cells.diameters
        crowding = options.crowding_bins(gap)
        contrast = contrasts(cells, green) if green is not None else [None] * len(cells)
        # The cells come first: zip must not take a row that the next kind needs.
        for number, (index, (name, partner, overlap)) in enumerate(zip(indices.tolist(), rows)):
            x0, y0, x1, y1 = cells.windows[number].tolist()
            yield {
                "image_id": image.image_id,
                "file_name": image.file_name,
                "kind": kind,
                "index": index,
                "class": class_names[cells.classes[number]],
                "score": float(cells.scores[number]) if kind == PREDICTION else None,
                "bin": name,
                "partner": partner,
                "iou": float(overlap),
                "area_px": int(areas[number]),
                "diameter_px": float(diameters[number]),
                "x0": x0,
                "y0": y0,
                "x1": x1,
                "y1": y1,
                "touches_border": bool(border[number]),
                "size": sizes[number],
                "gap_px": float(gap[number]) if np.isfinite(gap[number]) else None,
                "crowding": crowding[number],
                "contrast": contrast[number],
            }


def _green(image: EvaluationImage) -> NDArray[np.uint8] | None:
    """Green channel of the image, where the file is known."""
    if image.path is None:
        return None
    green = np.ascontiguousarray(read_image(image.path, "RGB")[..., 1])
    size = (image.truth.height, image.truth.width)
    if green.shape != size:
        raise InputError(f"{image.path}: {green.shape} pixels, expected {size} as the ground truth says")
    return green
