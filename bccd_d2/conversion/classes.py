"""Which classes there are, and how an instance gets one: by a class source, or else every instance is a ``cell``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.pairs import ImageRecord
from bccd_d2.errors import InputError

ANNOTATION_FORMATS = ("voc", "bbbc041", "yolo", "points")
NUMBERED = ("yolo", "points")  # formats whose classes may be numbers
IGNORE = "ignore"
DROP = "drop"
WEAK = "weak"
OUTCOMES = {
    "shared": ("cut", "whole"),
    "without_box": ("keep", IGNORE, DROP),
    "without_component": (DROP, IGNORE, WEAK),
    "image_without_boxes": ("error", "keep"),
}


@dataclass
class ClassAssignment:
    """What a class source says about one image."""

    # int32 (height, width) label map; the one given, or a changed copy where the source split or joined components or
    # added regions.
    labels: NDArray[np.int32]
    category_ids: dict[int, int]  # by label
    # Labels written with ``iscrowd`` 1; those without a category id once for each category. Labels that are in neither
    # are not written.
    ignored: set[int] = field(default_factory=set)
    weak: set[int] = field(default_factory=set)  # labels whose outline was guessed from a box
    counts: Counter[str] = field(default_factory=Counter)  # what happened, by name; summed and logged
    # ``[x, y, width, height]`` in pixels by label, where it is written in place of the box around the mask.
    boxes: dict[int, list[int]] = field(default_factory=dict)


class ClassSource(Protocol):
    """Anything that tells the class of each instance of an image; picklable, for worker processes."""

    @property
    def class_names(self) -> list[str]:
        """Names in the order of their category ids from 1."""

    @property
    def info(self) -> Mapping[str, Any]:
        """Settings to be kept in the JSON's ``info``; plain JSON values."""

    def __call__(self, image: ImageRecord, labels: NDArray[np.int32]) -> ClassAssignment:
        """Classes of the instances in ``labels``, int32 (height, width), 0 for background, without gaps. Raises
        InputError where what the source knows of this image cannot be used; the image counts as bad input.
        """


@dataclass(frozen=True)
class ClassTable:
    """The section ``classes`` of a data set's YAML, see docs/conversion.md."""

    # ``voc``, ``bbbc041``, ``yolo``, or ``points``: files ``STEM.txt`` with a line ``x y class`` for each cell.
    format: str
    # Class by category of the box file (by class number where a YOLO set has no list of names); ``ignore`` makes a
    # region to ignore (``iscrowd``) of what lies in the box, ``drop`` forgets it. Others are an error.
    categories: Mapping[str, str]
    # Where they lie, seen from the root of the data or a folder below it; of ``yolo`` the default is ``labels`` in
    # place of ``images`` in the path of the image, or beside it.
    boxes: str | None = None
    default: str = "cell"  # class of instances that no box tells anything about
    # A component that several boxes claim, or that reaches far out of its only one: ``cut`` by the boxes, or ``whole``.
    shared: str = "cut"
    without_box: str = (
        "keep"  # a component that no box claims: ``keep`` as ``default``, ``ignore`` or ``drop``
    )
    # A box with no component: ``drop``, ``ignore`` (its free pixels become a region to ignore), or ``weak`` (a mask is
    # guessed from the image, and where that fails, as ``ignore``).
    without_component: str = DROP
    image_without_boxes: str = "error"  # an image that the boxes do not know at all; ``keep``: it has none
    order: tuple[str, ...] = ()  # classes that come first, whether or not a category stands for them

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

    @cached_property
    def class_ids(self) -> dict[str, int]:
        """Category id from 1 by class name: ``order``, the categories, then the default."""
        listed = dict.fromkeys([*self.order, *self.categories.values(), self.default])
        names = [name for name in listed if name not in (IGNORE, DROP)]
        return {name: number for number, name in enumerate(names, start=1)}

    @classmethod
    def from_mapping(cls, content: Any, order: Iterable[str] = ()) -> ClassTable:
        """Make a table of what stands in the YAML. Raises InputError where it is no mapping, or a key or value is
        not one a table has.
        """
        known = [f.name for f in fields(cls) if f.name != "order"]
        if not isinstance(content, Mapping):
            raise InputError(f"classes: {content!r}, expected a mapping")
        for key in content:
            if key not in known:
                raise InputError(f"classes: unknown key {key!r}, expected some of {', '.join(known)}")
        for key in ("format", "categories"):
            if key not in content:
                raise InputError(f"classes: no key {key!r}, expected one")
        categories = content["categories"]
        if content["format"] in NUMBERED and isinstance(categories, Mapping):
            categories = {str(key) if type(key) is int else key: value for key, value in categories.items()}
        try:
            return cls(**{**content, "categories": categories, "order": tuple(order)})
        except InputError as error:
            raise InputError(f"classes: {error}") from error

    def class_of(self, category: str, source: str) -> str:
        """Class name, ``ignore`` or ``drop`` for a category in the words of ``source``, a file. Raises InputError for
        one that the table does not list.
        """
        if category not in self.categories:
            listed = ", ".join(map(repr, self.categories))
            raise InputError(
                f"{source}: category {category!r}, expected one that the table 'classes' lists ({listed})"
            )
        return self.categories[category]
