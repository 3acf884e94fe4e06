"""Classes of mask components from annotated boxes, and masks for boxes that have none.

Where a data set has boxes only, every box is one without component, and with ``without_component: weak`` all masks are
guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from bccd_d2.conversion.box_files import (
    Bbbc041Boxes,
    VocFolder,
    YoloLabels,
    file_of,
    read_points,
    read_yolo_names,
)
from bccd_d2.conversion.box_matching import CUT_METHODS, cut_by_boxes, match_boxes
from bccd_d2.conversion.boxes import BoxFile, ImageBoxes, fit_boxes, make_boxes
from bccd_d2.conversion.classes import DROP, IGNORE, WEAK, ClassAssignment, ClassSource, ClassTable
from bccd_d2.conversion.dataset_spec import DatasetSpec, ImageRecord, find_below
from bccd_d2.conversion.weak_masks import guess_masks
from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image

MIN_REST = 0.25
"""Least size of a rest that is cut off, in median areas of the components with a box of their own."""


def make_class_source(
    spec: DatasetSpec, root: Path | str, boxes: Path | str | None = None
) -> ClassSource | None:
    """Make the class source for a data set below ``root``, as the section ``classes`` of its spec says; ``boxes``
    overrules the place of the boxes in it. ``None`` where there is no such section: classes come from the masks, or
    all is one class. Raises InputError for boxes without a table, a table without boxes, or either of them broken.
    """
    if spec.classes is None:
        if boxes is not None:
            raise InputError(
                f"{boxes}: boxes, but the dataset spec has no section 'classes' that says what their categories mean; "
                "expected one that has, for instance bbbc041"
            )
        return None
    table = ClassTable.from_mapping(spec.classes, spec.annotates)
    if boxes is None and table.boxes is None and table.format != "yolo":  # which has its own places for them
        raise InputError(
            "the dataset spec takes classes from boxes; expected --boxes, a file or folder with them"
        )
    path = Path(boxes) if boxes is not None else None
    if path is None and table.boxes is not None:
        path = find_below(Path(root), table.boxes)
    if table.format == "points":
        assert path is not None
        return PointClasses(path, table)
    return BoxClasses(_box_file(table.format, Path(root), path), table)


def _box_file(kind: str, root: Path, path: Path | None) -> BoxFile:
    if kind == "yolo":
        return YoloLabels(read_yolo_names(root), path)
    assert path is not None
    return VocFolder(path) if kind == "voc" else Bbbc041Boxes.read(path)


class NamedBoxes(NamedTuple):
    """Boxes of one image that the table keeps, the class or ``ignore`` of each, and what happened to the others."""

    boxes: ImageBoxes
    classes: list[str]
    counts: Counter[str]


def named_boxes(file: BoxFile, table: ClassTable, image: ImageRecord) -> NamedBoxes:
    """Find the boxes of an image, fit them to it and look up their classes. Raises InputError where boxes are
    broken, of another image, of a category that is not listed, or absent and the table calls that an error.
    """
    found = file.find(image)
    if found is None:
        if table.image_without_boxes == "error":
            raise InputError(
                f"{image.path}: no boxes for it; expected some, or 'image_without_boxes: keep' in the table"
            )
        return NamedBoxes(make_boxes("", [], [], [], None), [], Counter({"images without boxes": 1}))
    boxes, counts = fit_boxes(found, image)
    classes = [
        table.class_of(category, bool(difficult), boxes.source)
        for category, difficult in zip(boxes.names, boxes.difficult)
    ]
    kept = np.array([name != DROP for name in classes], bool)
    if dropped := int((~kept).sum()):
        counts["boxes dropped by the table"] = dropped
    return NamedBoxes(boxes.only(kept), [name for name in classes if name != DROP], counts)


@dataclass(frozen=True)
class BoxClasses:
    """Class source: the class of a component is that of the box that claims it."""

    boxes: BoxFile  # the boxes of all images
    table: ClassTable  # what their categories mean, and what becomes of what does not fit

    @property
    def categories(self) -> list[dict[str, Any]]:
        """Categories of the table."""
        return self.table.coco_categories

    @property
    def info(self) -> Mapping[str, Any]:
        """The table, and whether masks may be weak."""
        return {"source": "boxes", "weak": self.table.without_component == WEAK, **self.table.as_dict()}

    def __call__(self, image: ImageRecord, labels: NDArray[np.int32]) -> ClassAssignment:
        """See :meth:`ClassSource.__call__`; labels run from 1 without gaps."""
        named = named_boxes(self.boxes, self.table, image)
        work = _Assigner(labels, self.table, named)
        work.take_boxes(image)
        work.take_unclaimed()
        return work.assignment


@dataclass(frozen=True)
class PointClasses:
    """Class source: the class of a component is that of the point on it.

    A component without a point becomes what the table says of components without box; one with points of several
    classes is ignored where the table says so of shared components, and else has the class of most of them.
    """

    folder: Path  # of files ``STEM.txt`` with a line ``x y class`` for each cell, in pixels
    table: ClassTable  # what the classes mean

    @property
    def categories(self) -> list[dict[str, Any]]:
        """Categories of the table."""
        return self.table.coco_categories

    @property
    def info(self) -> Mapping[str, Any]:
        """The table."""
        return {"source": "points", "weak": False, **self.table.as_dict()}

    def __call__(self, image: ImageRecord, labels: NDArray[np.int32]) -> ClassAssignment:
        """See :meth:`ClassSource.__call__`; labels run from 1 without gaps."""
        result = ClassAssignment(labels, {})
        found = file_of(image, self.folder, ".txt")
        if found is None:
            if self.table.image_without_boxes == "error":
                raise InputError(
                    f"{image.path}: no points for it in {self.folder}; expected {image.stem}.txt, or "
                    "'image_without_boxes: keep' in the table"
                )
            result.counts["images without points"] += 1
        points = [] if found is None else read_points(found)
        claims: dict[int, Counter[str]] = {}
        for x, y, category in points:
            name = self.table.class_of(category, False, str(found))
            inside = 0 <= x < image.width and 0 <= y < image.height
            label = int(labels[int(y), int(x)]) if inside else 0
            if name == DROP:
                result.counts["points dropped by the table"] += 1
            elif not label:
                result.counts["points without component, dropped"] += 1
            else:
                claims.setdefault(label, Counter())[name] += 1
        for label in range(1, int(labels.max(initial=0)) + 1):
            names = claims.get(label, Counter())
            if len(names) > 1:
                result.counts[f"components with points of several classes: {self.table.shared}"] += 1
            if not names:
                result.counts[f"components without point: {self.table.without_box}"] += 1
                name = {"keep": self.table.default}.get(self.table.without_box, self.table.without_box)
            else:
                name = (
                    IGNORE if len(names) > 1 and self.table.shared == IGNORE else names.most_common(1)[0][0]
                )
            if name == IGNORE:
                result.ignored.add(label)
            elif name != DROP:
                result.category_ids[label] = self.table.class_ids[name]
        return result


class _Assigner:
    """One image on its way through the outcomes of the table."""

    def __init__(self, labels: NDArray[np.int32], table: ClassTable, named: NamedBoxes) -> None:
        self.table = table
        self.labels = labels.copy(order="K")
        self.boxes = named.boxes
        self.classes = named.classes
        self.match = match_boxes(labels, named.boxes)
        self.unclaimed = set(range(1, int(labels.max(initial=0)) + 1))
        self.next_label = len(self.unclaimed) + 1
        self.label_of_box: dict[int, int] = {}
        self.assignment = ClassAssignment(self.labels, {}, counts=named.counts.copy())
        self.counts = self.assignment.counts

    def take_boxes(self, image: ImageRecord) -> None:
        """Give classes to all components that boxes tell something about."""
        by_component = self.match.by_component
        own = [component for component in by_component if self.match.is_one_cell(component)]
        for component in own:
            self._mark(component, by_component[component][0])
        if own:
            self.counts["boxes with a component of their own"] += len(own)
        min_rest = MIN_REST * float(np.median(self.match.areas[own])) if own else np.inf
        self._take_shared(by_component.keys() - set(own), min_rest)
        self._take_pieces()
        self._take_missed(np.flatnonzero(self.match.claimed == 0), image)

    def take_unclaimed(self) -> None:
        """Give all that is left what the table says of components without box."""
        outcome = self.table.without_box
        if self.unclaimed:
            self.counts[f"components without box: {outcome}"] += len(self.unclaimed)
        for label in self.unclaimed:
            if outcome == "keep":
                self.assignment.category_ids[label] = self.table.class_ids[self.table.default]
            elif outcome == IGNORE:
                self.assignment.ignored.add(label)
        self.unclaimed.clear()

    def _mark(self, label: int, box: int) -> None:
        """Give a label the class of a box."""
        self.label_of_box.setdefault(box, label)
        if self.classes[box] == IGNORE:
            self._ignore(label)
        else:
            self.unclaimed.discard(label)
            self.assignment.category_ids[label] = self.table.class_ids[self.classes[box]]

    def _ignore(self, label: int) -> None:
        self.unclaimed.discard(label)
        self.assignment.ignored.add(label)

    def _new_label(self) -> int:
        self.next_label += 1
        return self.next_label - 1

    def _take_shared(self, components: set[int], min_rest: float) -> None:
        outcome = self.table.shared
        windows = find_objects(self.labels) if components and outcome in CUT_METHODS else []
        for component in sorted(components):
            claims = self.match.by_component[component]
            what = "shared by several boxes" if len(claims) > 1 else "reaching out of their only box"
            self.counts[f"components {what}: {outcome}"] += 1
            if len(claims) > 1:
                self.counts["boxes sharing a component"] += len(claims)
            if outcome in CUT_METHODS:
                self._cut(component, windows[component - 1], claims, min_rest)
                continue
            if outcome == IGNORE:
                self._ignore(component)
            else:
                self._mark(component, max(claims, key=lambda box: self.match.fill[box]))
            self.label_of_box.update(dict.fromkeys(claims, component))

    def _cut(self, component: int, window: tuple[slice, slice], claims: list[int], min_rest: float) -> None:
        """Cut one component; the first piece keeps its label, the rests beyond the boxes stay unclaimed."""
        labels = self.labels[window]
        corners = self.boxes.corners[claims] - [window[1].start, window[0].start] * 2
        pieces = cut_by_boxes(labels == component, corners, self.table.shared, min_rest)
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

    def _take_pieces(self) -> None:
        outcome = self.table.pieces
        if self.match.pieces:
            self.counts[f"further components in a box: {outcome}"] += len(self.match.pieces)
        for component, box in self.match.pieces.items():
            if outcome == IGNORE:
                self._ignore(component)
            elif outcome == "join" and box in self.label_of_box:
                self.labels[self.labels == component] = self.label_of_box[box]
                self.unclaimed.discard(component)
            else:
                self._mark(component, box)

    def _take_missed(self, missed: NDArray[np.intp], image: ImageRecord) -> None:
        """Give boxes without component what the table says."""
        outcome = self.table.without_component
        if missed.size:
            self.counts[f"boxes without component: {outcome}"] += missed.size
        if missed.size and outcome == WEAK:
            guessed = guess_masks(read_image(image.path, "RGB"), self.boxes.corners[missed], self.labels > 0)
            for number in np.unique(guessed.labels[guessed.labels > 0]).tolist():
                label, box = self._new_label(), int(missed[number - 1])
                self.labels[guessed.labels == number] = label
                self._mark(label, box)
                self.assignment.weak.add(label)
                x0, y0, x1, y1 = self.boxes.corners[box].tolist()
                # What is known, not what was guessed.
                self.assignment.boxes[label] = [x0, y0, x1 - x0, y1 - y0]
            missed = missed[guessed.failed]
            if missed.size:
                self.counts["boxes without component for which no weak mask was found: ignore"] += missed.size
        if outcome != DROP:
            for box in missed.tolist():
                label = self._new_label()
                x0, y0, x1, y1 = self.boxes.corners[box]
                window = self.labels[y0:y1, x0:x1]
                window[window == 0] = label
                self._ignore(label)
