"""Classes of mask components from hand-drawn boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from bccd_d2.conversion.box_matching import BoxMatch, match_boxes
from bccd_d2.conversion.box_splitting import CUT_METHODS, cut_by_boxes
from bccd_d2.conversion.boxes import BoxFile, ImageBoxes, fit_boxes
from bccd_d2.conversion.class_source import ClassAssignment, ImageRecord
from bccd_d2.conversion.class_table import IGNORE, ClassTable, name_boxes
from bccd_d2.errors import InputError

MOSTLY_INSIDE = 0.7
"""A component with less of it inside its only box is taken for several cells, of which one has a box."""
MIN_REST = 0.25
"""Least size of a rest that is cut off, in median areas of the components with a box of their own."""


@dataclass(frozen=True)
class BoxClasses:
    """Class source: the class of a component is that of the box that claims it.

    Attributes:
        boxes: the boxes of all images.
        table: what their categories mean, and what becomes of what does not fit.
    """

    boxes: BoxFile
    table: ClassTable

    @property
    def categories(self) -> list[dict[str, Any]]:
        """Categories of the table."""
        return self.table.coco_categories

    @property
    def info(self) -> Mapping[str, Any]:
        """The table."""
        return {"source": "boxes", **self.table.as_dict()}

    def __call__(self, image: ImageRecord, labels: NDArray[np.int32]) -> ClassAssignment:
        """Classes of the components in ``labels``, int32 (height, width), labels 1..n without gaps.

        Raises:
            InputError: the boxes of this image are broken, absent, or of a category that the table does not list.
        """
        found = self.boxes.find(image)
        work = _Assigner(labels, self.table)
        if found is not None:
            boxes, counts = fit_boxes(found, image)
            named = name_boxes(boxes, self.table)
            work.counts.update(counts + named.counts)
            work.take_boxes(named.boxes, named.classes)
        elif self.table.image_without_boxes == "error":
            raise InputError(
                f"{image.path}: nobody drew boxes for it; expected some, or 'image_without_boxes: keep' in the table"
            )
        else:
            work.counts["images without boxes"] += 1
        work.take_unclaimed()
        return work.assignment


class _Assigner:
    """One image on its way through the outcomes of the table."""

    def __init__(self, labels: NDArray[np.int32], table: ClassTable) -> None:
        self.table = table
        self.labels = labels.copy(order="K")
        self.unclaimed = set(range(1, int(labels.max(initial=0)) + 1))
        self.next_label = len(self.unclaimed) + 1
        self.label_of_box: dict[int, int] = {}
        self.assignment = ClassAssignment(self.labels, {})
        self.counts = self.assignment.counts

    def take_boxes(self, boxes: ImageBoxes, names: list[str]) -> None:
        """Give classes to all components that boxes tell something about."""
        match = match_boxes(self.labels, boxes)
        own = [c for c, claims in match.by_component.items() if self._is_own(match, claims)]
        for component in own:
            box = match.by_component[component][0]
            self._mark(component, names[box], box)
        self.counts["boxes with a component of their own"] += len(own)
        shared = {c: claims for c, claims in match.by_component.items() if c not in set(own)}
        min_rest = MIN_REST * float(np.median(match.areas[own])) if own else np.inf
        self._take_shared(shared, match, boxes, names, min_rest)
        self._take_pieces(match, names)
        self._take_missed(boxes, np.flatnonzero(match.claimed == 0))

    def take_unclaimed(self) -> None:
        """Give all that is left what the table says of components without box."""
        outcome = self.table.without_box
        if self.unclaimed:
            self.counts[f"components without box: {outcome}"] += len(self.unclaimed)
        for label in sorted(self.unclaimed):
            if outcome != "drop":
                self._mark(label, self.table.default if outcome == "keep" else IGNORE)

    @staticmethod
    def _is_own(match: BoxMatch, claims: list[int]) -> bool:
        return len(claims) == 1 and bool(match.inside[claims[0]] >= MOSTLY_INSIDE)

    def _mark(self, label: int, name: str, box: int | None = None) -> None:
        """Note the class of a label, and which box it comes from; ``ignore`` makes a region of the default class."""
        self.unclaimed.discard(label)
        if box is not None:
            self.label_of_box[box] = label
        self.assignment.category_ids[label] = self.table.class_ids[
            self.table.default if name == IGNORE else name
        ]
        if name == IGNORE:
            self.assignment.ignored.add(label)

    def _new_label(self) -> int:
        self.next_label += 1
        return self.next_label - 1

    def _take_shared(
        self,
        shared: dict[int, list[int]],
        match: BoxMatch,
        boxes: ImageBoxes,
        names: list[str],
        min_rest: float,
    ) -> None:
        outcome = self.table.shared
        windows = find_objects(self.labels) if shared and outcome in CUT_METHODS else []
        for component, claims in shared.items():
            what = "shared by several boxes" if len(claims) > 1 else "reaching out of their only box"
            self.counts[f"components {what}: {outcome}"] += 1
            if len(claims) > 1:
                self.counts["boxes sharing a component"] += len(claims)
            if outcome in CUT_METHODS:
                named = {box: names[box] for box in claims}
                self._cut(component, windows[component - 1], boxes.corners[claims], named, min_rest)
                continue
            best = max(claims, key=lambda box: match.fill[box])
            self._mark(component, IGNORE if outcome == IGNORE else names[best])
            self.label_of_box.update(dict.fromkeys(claims, component))

    def _cut(
        self,
        component: int,
        window: tuple[slice, slice],
        corners: NDArray[np.int64],
        names: dict[int, str],
        min_rest: float,
    ) -> None:
        """Cut one component; the first piece keeps its label, the rests beyond the boxes stay unclaimed.

        ``names`` holds the class by box, in the order of ``corners``.
        """
        labels = self.labels[window]
        offset = [window[1].start, window[0].start] * 2
        pieces = cut_by_boxes(labels == component, corners - offset, self.table.shared, min_rest)
        present = np.unique(pieces[pieces > 0]).tolist()
        for piece in present:
            label = component if piece == present[0] else self._new_label()
            labels[pieces == piece] = label
            if piece <= len(names):
                box = list(names)[piece - 1]
                self._mark(label, names[box], box)
            else:
                self.unclaimed.add(label)
                self.counts["rests cut off beyond the boxes"] += 1
        if lost := len(set(range(1, len(names) + 1)).difference(present)):
            self.counts["boxes left empty by a cut"] += lost

    def _take_pieces(self, match: BoxMatch, names: list[str]) -> None:
        outcome = self.table.pieces
        if match.pieces:
            self.counts[f"further components in a box: {outcome}"] += len(match.pieces)
        for component, box in match.pieces.items():
            if outcome == "join" and box in self.label_of_box:
                self.labels[self.labels == component] = self.label_of_box[box]
                self.unclaimed.discard(component)
            else:
                self._mark(component, IGNORE if outcome == IGNORE else names[box])

    def _take_missed(self, boxes: ImageBoxes, missed: NDArray[np.intp]) -> None:
        outcome = self.table.without_component
        if missed.size:
            self.counts[f"boxes without component: {outcome}"] += missed.size
        if outcome != IGNORE:
            return
        for x0, y0, x1, y1 in boxes.corners[missed]:
            window = self.labels[y0:y1, x0:x1]
            label = self._new_label()
            window[window == 0] = label
            self._mark(label, IGNORE)
