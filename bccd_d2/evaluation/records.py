"""One record an image and one a cell: what tables and pictures show, and what the errors are split by."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import EvaluationImage
from bccd_d2.evaluation.measured import MeasuredImage
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.evaluation.overlap import iou_and_dice
from bccd_d2.evaluation.taxonomy import BINS
from bccd_d2.evaluation.traits import contrast_bin, contrast_edges, contrasts, diameters, gaps
from bccd_d2.evaluation.values import ALL_CLASSES
from bccd_d2.io.images import read_rgb

SPLITS = ("class", "size", "crowding", "contrast_bin")
"""Keys of a cell's record that the error bins are split by."""
TRUTH, PREDICTION = "truth", "prediction"


def image_record(measured: MeasuredImage) -> dict[str, Any]:
    """One image as a flat record; see :attr:`bccd_d2.evaluation.evaluate.Evaluation.per_image`."""
    found = measured.instances["all"][ALL_CLASSES]
    true_positives, wrong, missed = found.counts[0].tolist()
    matches = 2 * true_positives + wrong + missed
    some = true_positives + missed > 0
    iou, dice = iou_and_dice(measured.pixels)
    bins = [*measured.errors.true_bins, *measured.errors.predicted_bins]
    return {
        "image_id": measured.image.image_id,
        "file_name": measured.image.file_name,
        "iou": iou,
        "dice": dice,
        "map50": measured.box_precision,
        "cells": true_positives + missed,
        "predicted": true_positives + wrong,
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

    Raises:
        InputError: an image cannot be read, or has another size than its annotations say.
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
        across = diameters(areas)
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
                "diameter_px": float(across[number]),
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
    green = np.ascontiguousarray(read_rgb(image.path)[..., 1])
    size = (image.truth.height, image.truth.width)
    if green.shape != size:
        raise InputError(
            f"{image.path}: {green.shape[0]} x {green.shape[1]} pixels, expected {size[0]} x {size[1]} as the "
            "ground truth says"
        )
    return green
