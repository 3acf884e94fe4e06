"""Classes of mask components from annotated boxes or points, and masks for boxes that have none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from bccd_d2.conversion.annotated import annotated_cells, fit_boxes, guess_or_ignore
from bccd_d2.conversion.classes import DROP, IGNORE, WEAK, ClassAssignment, ClassTable
from bccd_d2.conversion.pairs import ImageRecord
from bccd_d2.errors import InputError
from bccd_d2.io.coco_images import image_path
from bccd_d2.io.points import read_points
from bccd_d2.segmentation.box_matching import MOSTLY_INSIDE, cut_by_boxes, match_boxes

MIN_REST = 0.25
"""Least size of a rest that is cut off, in median areas of the components with a box of their own."""


@dataclass(frozen=True)
class _TableClasses:
    """What class sources with a table have in common."""

    table: ClassTable  # what categories mean, and what becomes of what does not fit

    @property
    def class_names(self) -> list[str]:
        """Classes of the table."""
        return list(self.table.class_ids)

    @property
    def info(self) -> Mapping[str, Any]:
        """Whether masks may be weak."""
        points = self.table.format == "points"
        weak = self.table.without_component == WEAK and not points
        return {"source": "points" if points else "boxes", "weak": weak}


@dataclass(frozen=True)
class BoxClasses(_TableClasses):
    """Class source: the class of a component is that of the box that claims it."""

    def __call__(self, image: ImageRecord, labels: NDArray[np.int32]) -> ClassAssignment:
        """See :meth:`ClassSource.__call__`."""
        counts: Counter[str] = Counter()
        annotated = annotated_cells(image, self.table, counts)
        if image.annotations is not None:
            counts["boxes"] += len(annotated)
        cells, corners = fit_boxes(annotated, image, counts)
        classes = [IGNORE if cell.unsure or cell.ignored else str(cell.class_name) for cell in cells]
        work = _Assigner(labels, self.table, corners, classes, counts)
        work.take_boxes()
        work.take_boxes_without_component(image)
        work.take_unclaimed()
        return work.result


@dataclass(frozen=True)
class PointClasses(_TableClasses):
    """Class source: the class of a component is that of the points on it, of several that of most.

    A component without a point becomes what the table says of components without box.
    """

    folder: Path  # of files ``STEM.txt`` with a line ``x y class`` for each cell, in pixels

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder; expected one file of points per image")

    def __call__(self, image: ImageRecord, labels: NDArray[np.int32]) -> ClassAssignment:
        """See :meth:`ClassSource.__call__`."""
        table, result = self.table, ClassAssignment(labels, {})
        path, flat = (image_path(self.folder, f"{stem}.txt") for stem in (image.stem, Path(image.stem).name))
        if not path.is_file() and flat.is_file():
            raise InputError(
                f"{flat}: points for a stem that several images share ({image.path} is one of them), expected "
                f"{image.stem}.txt"
            )
        if not path.is_file():
            if table.image_without_boxes == "error":
                raise InputError(
                    f"{image.path}: no points for it in {self.folder}; expected {image.stem}.txt, or "
                    "'image_without_boxes: keep' in the table"
                )
            result.counts["images without points"] += 1
        claims: dict[int, Counter[str]] = {
            label: Counter() for label in range(1, int(labels.max(initial=0)) + 1)
        }
        for x, y, category, where in read_points(path) if path.is_file() else []:
            name = table.class_of(category or "", where)
            inside = 0 <= x < image.width and 0 <= y < image.height
            label = int(labels[int(y), int(x)]) if inside else 0
            if name == DROP:
                result.counts["points dropped by the table"] += 1
            elif not label:
                result.counts["points without component, dropped"] += 1
            else:
                claims[label][name] += 1
        for label, names in claims.items():
            if names:
                name = names.most_common(1)[0][0]
            else:
                result.counts[f"components without point: {table.without_box}"] += 1
                name = table.default if table.without_box == "keep" else table.without_box
            if len(names) > 1:
                result.counts["components with points of several classes"] += 1
            if name == IGNORE:
                result.ignored.add(label)
            elif name != DROP:
                result.category_ids[label] = table.class_ids[name]
        return result


class _Assigner:
    """Gives the components of one image the classes of their boxes."""

    def __init__(
        self,
        labels: NDArray[np.int32],
        table: ClassTable,
        corners: NDArray[np.int64],
        classes: list[str],
        counts: Counter[str],
    ) -> None:
        self.table = table
        self.labels = labels.copy(order="K")
        self.corners, self.classes, self.counts = corners, classes, counts
        self.match = match_boxes(labels, corners)
        self.unclaimed = set(range(1, int(labels.max(initial=0)) + 1))
        self.next_label = len(self.unclaimed) + 1
        self.label_of_box: dict[int, int] = {}
        self.result = ClassAssignment(self.labels, {}, counts=counts)

    def take_boxes(self) -> None:
        """Give classes to all components that boxes claim, and cut those that several claim."""
        by_component, inside = self.match.by_component, self.match.inside
        own = [
            component
            for component, claims in by_component.items()
            if len(claims) == 1 and inside[claims[0]] >= MOSTLY_INSIDE
        ]
        for component in own:
            self._mark(component, by_component[component][0])
        if own:
            self.counts["boxes with a component of their own"] += len(own)
        min_rest = MIN_REST * float(np.median(self.match.areas[own])) if own else np.inf
        shared = sorted(by_component.keys() - set(own))
        windows = find_objects(self.labels) if shared else []
        for component in shared:
            if self.table.shared == "whole":
                self.counts["components shared by several boxes, left whole"] += 1
                self._mark(component, by_component[component][0])
            else:
                self._cut(component, windows[component - 1], by_component[component], min_rest)
        if self.match.pieces:
            self.counts["further components in a box, joined"] += len(self.match.pieces)
        for component, box in self.match.pieces.items():
            if box in self.label_of_box:
                self.labels[self.labels == component] = self.label_of_box[box]
                self.unclaimed.discard(component)
            else:
                self._mark(component, box)

    def take_boxes_without_component(self, image: ImageRecord) -> None:
        """Give boxes without component what the table says."""
        missed = np.flatnonzero(self.match.claimed == 0)
        outcome = self.table.without_component
        if missed.size:
            self.counts[f"boxes without component: {outcome}"] += missed.size
        if missed.size and outcome == WEAK:
            masks, failed = guess_or_ignore(image, self.corners[missed], self.labels, self.counts)
            for number in np.unique(masks[masks > 0]).tolist():
                label, box = self._new_label(), int(missed[number - 1])
                self.labels[masks == number] = label
                if number - 1 in failed:
                    self.result.ignored.add(label)
                    continue
                self._mark(label, box)
                self.result.weak.add(label)
                x0, y0, x1, y1 = self.corners[box].tolist()
                # What is known, not what was guessed.
                self.result.boxes[label] = [x0, y0, x1 - x0, y1 - y0]
        elif outcome == IGNORE:
            for x0, y0, x1, y1 in self.corners[missed].tolist():
                label = self._new_label()
                window = self.labels[y0:y1, x0:x1]
                window[window == 0] = label
                self.result.ignored.add(label)

    def take_unclaimed(self) -> None:
        """Give all that is left what the table says of components without box."""
        outcome = self.table.without_box
        if self.unclaimed:
            self.counts[f"components without box: {outcome}"] += len(self.unclaimed)
        if outcome == "keep":
            self.result.category_ids |= dict.fromkeys(
                self.unclaimed, self.table.class_ids[self.table.default]
            )
        elif outcome == IGNORE:
            self.result.ignored |= self.unclaimed

    def _mark(self, label: int, box: int) -> None:
        """Give a label the class of a box."""
        self.label_of_box.setdefault(box, label)
        self.unclaimed.discard(label)
        if self.classes[box] == IGNORE:
            self.result.ignored.add(label)
        else:
            self.result.category_ids[label] = self.table.class_ids[self.classes[box]]

    def _new_label(self) -> int:
        self.next_label += 1
        return self.next_label - 1

    def _cut(self, component: int, window: tuple[slice, slice], claims: list[int], min_rest: float) -> None:
        """Cut one component; the first piece keeps its label, the rests beyond the boxes stay unclaimed."""
        several = len(claims) > 1
        what = "shared by several boxes" if several else "reaching out of their only box"
        self.counts[f"components {what}, cut"] += 1
        if several:
            self.counts["boxes sharing a component"] += len(claims)
        labels = self.labels[window]
        corners = self.corners[claims] - [window[1].start, window[0].start] * 2
        pieces = cut_by_boxes(labels == component, corners, min_rest)
        present = np.unique(pieces[pieces > 0]).tolist()
        for piece in present:
            label = component if piece == present[0] else self._new_label()
            labels[pieces == piece] = label
            if piece <= len(claims):
                self._mark(label, claims[piece - 1])
            else:
                self.unclaimed.add(label)
                self.counts["rests cut off beyond the boxes"] += 1
        if lost := len(set(range(1, len(claims) + 1)).difference(present)):
            self.counts["boxes left empty by a cut"] += lost
