"""Recall of points: cells that were marked by a click and not outlined."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from tabulate import tabulate

from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import EvaluationImage, EvaluationSet
from bccd_d2.evaluation.options import ALL_CLASSES, NO_GROUND_TRUTH, Value, in_words
from bccd_d2.io.find_images import find_images
from bccd_d2.io.images import read_image_size
from bccd_d2.io.points import read_points as read_marked_points
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.names import match_images

POINT_FILES = frozenset({".txt", ".csv", ".tsv"})


@dataclass(frozen=True)
class Points:
    """Marked cells of one image."""

    # (N, 2) float64 in pixels of the image; (0, 0) is the upper left corner of its first pixel
    xy: NDArray[np.float64]
    classes: Sequence[str]  # N names; empty where the file has none


@dataclass(frozen=True)
class PointRecall:
    """Of one class, or of all."""

    points: int  # marked cells
    found: int  # those that lie in a predicted mask, each mask being taken for one point at most
    recall: Value  # found / points


def read_points(folder: Path, file_names: Sequence[str]) -> dict[str, Points]:
    """Points by the file name of their image, from a text file for each image, joined by name.

    Lines are ``x y`` or ``x y class``, parted by blanks, commas or semicolons; a first line without numbers is a
    heading. Raises InputError where there is no such file, one belongs to no image, or a line has another form.
    """
    files = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in POINT_FILES and not path.name.startswith(".")
    }
    if not files:
        raise InputError(f"{folder}: no file of points ({', '.join(sorted(POINT_FILES))})")
    matched = match_images(files, file_names, where=f"--points {folder}")
    return {image: _read_file(files[name]) for name, image in matched.items()}


def images_as_truth(folder: Path) -> EvaluationSet:
    """The images of a folder, without annotations, as what predictions are joined to."""
    images = []
    for number, (path, name) in enumerate(find_images([folder]), start=1):
        nothing = Cells.from_masks(*read_image_size(Path(path)), [])
        images.append(EvaluationImage(number, name, Path(path), nothing, nothing, nothing))
    return EvaluationSet(images, ["cell"], [1])


def point_recall(
    dataset: EvaluationSet, points: Mapping[str, Points], score_threshold: float
) -> dict[str, PointRecall]:
    """Recall of all points, and by class where the points have classes; predictions count whatever their class.

    Images without points do not count; predictions below ``score_threshold`` do not exist.
    """
    number, found = Counter[str]({ALL_CLASSES: 0}), Counter[str]()
    for image in dataset.images:
        if image.file_name not in points:
            continue
        marked = points[image.file_name]
        hit = _found(marked.xy, image.predictions[image.predictions.scores >= score_threshold])
        for names in ([ALL_CLASSES] * len(hit), marked.classes):
            number.update(names)
            found.update(itertools.compress(names, hit))
    return {
        name: PointRecall(count, found[name], found[name] / count if count else NO_GROUND_TRUTH)
        for name, count in number.items()
    }


def point_table(recalls: Mapping[str, PointRecall]) -> str:
    """Markdown, one row per class."""
    ordered = sorted(recalls.items(), key=lambda item: (item[0] != ALL_CLASSES, item[0]))
    rows = [(name, str(one.points), str(one.found), in_words(one.recall)) for name, one in ordered]
    return tabulate(rows, ["", "points", "found", "recall"], tablefmt="pipe", disable_numparse=True)


def _found(xy: NDArray[np.float64], cells: Cells) -> NDArray[np.bool_]:
    """(N,) whether each point has a mask of its own, as many as there can be (maximum bipartite matching)."""
    column, row = np.floor(xy).astype(np.int64).T
    inside = np.zeros((len(xy), len(cells)), bool)
    for index, (mask, (x0, y0, x1, y1)) in enumerate(zip(cells.masks, cells.windows.tolist())):
        near = np.flatnonzero((column >= x0) & (column < x1) & (row >= y0) & (row < y1))
        inside[near, index] = mask[row[near] - y0, column[near] - x0]
    if not inside.any():
        return np.zeros(len(xy), bool)
    return np.asarray(maximum_bipartite_matching(csr_array(inside), perm_type="column") >= 0)


def _read_file(path: Path) -> Points:
    points = read_marked_points(path)
    classes = [point.class_name for point in points if point.class_name]
    if classes and len(classes) < len(points):
        raise InputError(f"{path}: {len(classes)} of {len(points)} points have a class, expected all or none")
    if not points:
        logging.getLogger(__name__).warning("%s: no point", path)
    return Points(np.array([point[:2] for point in points], np.float64).reshape(-1, 2), classes)
