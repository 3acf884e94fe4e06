"""Which classes there are, and how an instance gets one.

A class source is any picklable object with ``categories`` and ``info`` that can be called with an image and its label
map (:class:`ClassSource`). :mod:`bccd_d2.conversion.box_classes` takes classes from annotated boxes or points; without
a source, every instance is a ``cell``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.box_matching import CUT_METHODS
from bccd_d2.conversion.dataset_spec import ImageRecord
from bccd_d2.errors import InputError

ANNOTATION_FORMATS = ("voc", "bbbc041", "yolo", "points")
NUMBERED = ("yolo", "points")
"""Formats whose classes may be numbers."""
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


@dataclass
class ClassAssignment:
    """What a class source says about one image."""

    # int32 (height, width) label map; the one given, or a changed copy where the source split or joined components
    # or added regions
    labels: NDArray[np.int32]
    category_ids: dict[int, int]  # category id by label
    # Labels written with ``iscrowd`` 1; those without a category id once for each category. Labels that are in
    # neither are not written.
    ignored: set[int] = field(default_factory=set)
    # Labels written with ``"weak": true``, because their outline was guessed from a box.
    weak: set[int] = field(default_factory=set)
    # What happened, by name ("components without box", ...), summed and logged by the conversion.
    counts: Counter[str] = field(default_factory=Counter)
    # ``[x, y, width, height]`` in pixels by label, where it is written in place of the box around the mask
    boxes: dict[int, list[int]] = field(default_factory=dict)


class ClassSource(Protocol):
    """Anything that tells the class of each instance of an image."""

    @property
    def categories(self) -> list[dict[str, Any]]:
        """COCO categories, ids from 1."""

    @property
    def info(self) -> Mapping[str, Any]:
        """Settings to be kept in the JSON's ``info``; plain JSON values."""

    def __call__(self, image: ImageRecord, labels: NDArray[np.int32]) -> ClassAssignment:
        """Classes of the instances in ``labels``, int32 (height, width), 0 for background. Raises InputError where
        what the source knows of this image cannot be used; the image counts as bad input.
        """


@dataclass(frozen=True)
class SingleClass:
    """Every instance is of the one class ``name``."""

    name: str = "cell"

    @property
    def categories(self) -> list[dict[str, Any]]:
        """The one category."""
        return [{"id": 1, "name": self.name}]

    @property
    def info(self) -> Mapping[str, Any]:
        """The name."""
        return {"source": "single class", "name": self.name}

    def __call__(self, image: ImageRecord, labels: NDArray[np.int32]) -> ClassAssignment:
        """Category 1 for each label."""
        return ClassAssignment(labels, {int(label): 1 for label in range(1, int(labels.max(initial=0)) + 1)})


@dataclass(frozen=True)
class ClassTable:
    """The section ``classes`` of a data set's YAML."""

    # How the boxes are written, ``voc``, ``bbbc041`` or ``yolo``; or ``points``, files ``STEM.txt`` with a line ``x
    # y class`` for each cell, in pixels.
    format: str
    # Class by category of the box file (by class number where a YOLO set has no list of names); ``ignore`` makes an
    # ignore region (``iscrowd``) of what lies in the box, ``drop`` forgets the box. A category that is not listed
    # is an error.
    categories: Mapping[str, str]
    # Where they lie, seen from the root of the data or a folder below it; the command's ``--boxes`` overrules it.
    # For ``yolo`` the default is ``labels`` in place of ``images`` in the path of the image, or beside it.
    boxes: str | None = None
    default: str = "cell"  # class of instances that no box tells anything about
    # What becomes of a component that several boxes claim, or that reaches far out of its only box: ``nearest`` or
    # ``watershed`` cut it, see :func:`bccd_d2.conversion.box_splitting.cut_by_boxes`; ``whole`` keeps it as one
    # instance, with the class of the box that it fills best; ``ignore``.
    shared: str = "nearest"
    # What becomes of further components inside a box that has its cell: ``join`` adds them to that cell, ``keep``
    # makes each an instance of the box's class; ``ignore``.
    pieces: str = "join"
    # What becomes of a component that no box claims: ``keep`` as ``default``, ``ignore`` or ``drop``.
    without_box: str = "keep"
    # What becomes of a box with no component: ``drop``, ``ignore`` (its pixels become an ignore region, as far as
    # no instance has them), or ``weak`` (a mask is guessed from the image, see
    # :mod:`bccd_d2.conversion.weak_masks`, and where that fails, as ``ignore``).
    without_component: str = DROP
    # What becomes of boxes that a VOC file flags as difficult: as ``ignore`` or ``drop`` in ``categories``, or
    # ``keep`` to take them for what they are called.
    difficult: str = IGNORE
    # An image that the boxes do not know of at all is an ``error``, or has none (``keep``).
    image_without_boxes: str = "error"
    # Classes that come first, in this order, whether or not a category stands for them.
    order: tuple[str, ...] = ()
    class_ids: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        if self.format not in ANNOTATION_FORMATS:
            raise InputError(f"format: {self.format!r}, expected one of {', '.join(ANNOTATION_FORMATS)}")
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
        listed = dict.fromkeys([*self.order, *self.categories.values(), self.default])
        names = [name for name in listed if name not in (IGNORE, DROP)]
        object.__setattr__(self, "class_ids", {name: number for number, name in enumerate(names, start=1)})

    @classmethod
    def from_mapping(cls, content: Any, order: Iterable[str] = ()) -> ClassTable:
        """Make a table of what stands in the YAML. Raises InputError where it is no mapping, or a key or value is
        not one a table has.
        """
        known = [f.name for f in fields(cls) if f.init and f.name != "order"]
        if not isinstance(content, Mapping):
            raise InputError(f"classes: {content!r}, expected a mapping")
        for key in content:
            if key not in known:
                raise InputError(f"classes: unknown key {key!r}, expected some of {', '.join(known)}")
        for key in ("format", "categories"):
            if key not in content:
                raise InputError(f"classes: no key {key!r}, expected one")
        categories = content["categories"]
        if content["format"] in NUMBERED and isinstance(
            categories, Mapping
        ):  # numbers where there are no names
            categories = {str(key) if type(key) is int else key: value for key, value in categories.items()}
        try:
            return cls(**{**content, "categories": categories, "order": tuple(order)})
        except InputError as error:
            raise InputError(f"classes: {error}") from error

    @property
    def coco_categories(self) -> list[dict[str, Any]]:
        """COCO categories in the order the table names them, ids from 1."""
        return [{"id": number, "name": name} for name, number in self.class_ids.items()]

    def class_of(self, category: str, difficult: bool, source: str) -> str:
        """Class name, ``ignore`` or ``drop`` for a category in the words of ``source``, a file, that may flag the
        box as ``difficult``. Raises InputError for a category that the table does not list.
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
