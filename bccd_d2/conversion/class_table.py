"""Which of our classes the categories of a box file are, and what becomes of what does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from bccd_d2.conversion.box_splitting import CUT_METHODS
from bccd_d2.conversion.boxes import BoxFile, ImageBoxes, fit_boxes, make_boxes
from bccd_d2.conversion.class_source import ImageRecord
from bccd_d2.errors import InputError

BOX_FORMATS = ("voc", "bbbc041")
IGNORE = "ignore"
DROP = "drop"
WEAK = "weak"
OUTCOMES = {
    "shared": (*CUT_METHODS, "whole", IGNORE),
    "pieces": ("join", "keep", IGNORE),
    "without_box": ("keep", IGNORE, DROP),
    "without_component": (DROP, IGNORE, WEAK),
    "difficult": (IGNORE, "keep", DROP),
    "image_without_boxes": ("error", "keep"),
}


@dataclass(frozen=True)
class ClassTable:
    """The section ``classes`` of a data set's YAML.

    Attributes:
        format: how the boxes are written, ``voc`` or ``bbbc041``.
        boxes: where they lie, seen from the root of the data or a folder below it; the command's ``--boxes`` overrules
            it.
        categories: class by category of the box file; ``ignore`` makes an ignore region (``iscrowd``) of what lies
            in the box, ``drop`` forgets the box. A category that is not listed is an error.
        default: class of instances that no box tells anything about.
        shared: what becomes of a component that several boxes claim, or that reaches far out of its only box:
            ``nearest`` or ``watershed`` cut it, see :func:`bccd_d2.conversion.box_splitting.cut_by_boxes`; ``whole``
            keeps it as one instance, with the class of the box that it fills best; ``ignore``.
        pieces: what becomes of further components inside a box that has its cell: ``join`` adds them to that cell,
            ``keep`` makes each an instance of the box's class; ``ignore``.
        without_box: what becomes of a component that no box claims: ``keep`` as ``default``, ``ignore`` or ``drop``.
        without_component: what becomes of a box with no component: ``drop``, ``ignore`` (its pixels become an ignore
            region, as far as no instance has them), or ``weak`` (a mask is guessed from the image, see
            :mod:`bccd_d2.conversion.weak_masks`, and where that fails, as ``ignore``).
        difficult: what becomes of boxes that a VOC file flags as difficult: as ``ignore`` or ``drop`` in
            ``categories``, or ``keep`` to take them for what they are called.
        image_without_boxes: an image that the boxes do not know of at all is an ``error``, or has none (``keep``).
    """

    format: str
    categories: Mapping[str, str]
    boxes: str | None = None
    default: str = "cell"
    shared: str = "nearest"
    pieces: str = "join"
    without_box: str = "keep"
    without_component: str = DROP
    difficult: str = IGNORE
    image_without_boxes: str = "error"
    class_ids: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        if self.format not in BOX_FORMATS:
            raise InputError(f"format: {self.format!r}, expected {' or '.join(BOX_FORMATS)}")
        if self.boxes is not None and (not isinstance(self.boxes, str) or not self.boxes):
            raise InputError(f"boxes: {self.boxes!r}, expected the path of a file or folder")
        if not isinstance(self.categories, Mapping) or not self.categories:
            raise InputError(f"categories: {self.categories!r}, expected a mapping to class names")
        for category, name in self.categories.items():
            if not isinstance(category, str) or not isinstance(name, str) or not name:
                raise InputError(f"categories: {category!r}: {name!r}, expected a class name")
        if not isinstance(self.default, str) or self.default in ("", IGNORE, DROP):
            raise InputError(f"default: {self.default!r}, expected a class name")
        for key, outcomes in OUTCOMES.items():
            if getattr(self, key) not in outcomes:
                raise InputError(f"{key}: {getattr(self, key)!r}, expected one of {', '.join(outcomes)}")
        names = [name for name in dict.fromkeys(self.categories.values()) if name not in (IGNORE, DROP)]
        if self.default not in names:
            names.append(self.default)
        object.__setattr__(self, "class_ids", {name: number for number, name in enumerate(names, start=1)})

    @classmethod
    def from_mapping(cls, content: Any) -> ClassTable:
        """Make a table of what stands in the YAML.

        Raises:
            InputError: it is no mapping, or a key or value is not one a table has.
        """
        known = [f.name for f in fields(cls) if f.init]
        if not isinstance(content, Mapping):
            raise InputError(f"classes: {content!r}, expected a mapping")
        for key in content:
            if key not in known:
                raise InputError(f"classes: unknown key {key!r}, expected some of {', '.join(known)}")
        for key in ("format", "categories"):
            if key not in content:
                raise InputError(f"classes: no key {key!r}, expected one")
        try:
            return cls(**content)
        except InputError as error:
            raise InputError(f"classes: {error}") from error

    @property
    def coco_categories(self) -> list[dict[str, Any]]:
        """COCO categories in the order the table names them, ids from 1."""
        return [{"id": number, "name": name} for name, number in self.class_ids.items()]

    def class_of(self, category: str, difficult: bool, source: str) -> str:
        """Class name, ``ignore`` or ``drop``.

        Args:
            category: of a box, in the words of its file.
            difficult: whether the file flags the box as difficult.
            source: name of the file, for messages.

        Raises:
            InputError: the table does not list the category.
        """
        if category not in self.categories:
            listed = ", ".join(map(repr, self.categories))
            raise InputError(
                f"{source}: category {category!r}, expected one that the table 'classes' lists ({listed})"
            )
        if difficult and self.difficult != "keep":
            return self.difficult
        return self.categories[category]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the JSON's ``info``."""
        values = asdict(self)
        del values["class_ids"]
        return values


class NamedBoxes(NamedTuple):
    """Boxes of one image that the table keeps, the class or ``ignore`` of each, and what happened to the others."""

    boxes: ImageBoxes
    classes: list[str]
    counts: Counter[str]


def named_boxes(file: BoxFile, table: ClassTable, image: ImageRecord) -> NamedBoxes:
    """Find the boxes of an image, fit them to it and look up their classes.

    Raises:
        InputError: the boxes are broken or belong to another image; a category is not listed; or there are none and
            the table calls that an error.
    """
    found = file.find(image)
    if found is None:
        if table.image_without_boxes == "error":
            raise InputError(
                f"{image.path}: nobody drew boxes for it; expected some, or 'image_without_boxes: keep' in the table"
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
