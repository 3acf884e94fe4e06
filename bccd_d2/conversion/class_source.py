"""How the class of an instance gets into the conversion.

A class source is any picklable object with ``categories`` and ``info`` that can be called with an image and its label
map (:class:`ClassSource`). :class:`bccd_d2.conversion.box_assignment.BoxClasses` takes classes, and at need the masks,
from hand-drawn boxes; without a source, every instance is a ``cell``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageRecord:
    """One image as the conversion knows it.

    Attributes:
        id: COCO image id.
        stem: the pair's name, see :class:`bccd_d2.conversion.layout.ImageMaskPair`.
        file_name: POSIX path relative to the data root.
        path: where the file lies.
        height: in pixels, native.
        width: in pixels, native.
    """

    id: int
    stem: str
    file_name: str
    path: Path
    height: int
    width: int


@dataclass
class ClassAssignment:
    """What a class source says about one image.

    Attributes:
        labels: int32 (height, width) label map; the one given, or a changed copy where the source split or joined
            components or added regions.
        category_ids: category id by label.
        ignored: labels written with ``iscrowd`` 1; those without a category id once for each category. Labels that
            are in neither are not written.
        weak: labels written with ``"weak": true``, because their outline was guessed from a box.
        counts: what happened, by name ("components without box", ...), summed and logged by the conversion.
        boxes: ``[x, y, width, height]`` in pixels by label, where it is written in place of the box around the mask.
    """

    labels: NDArray[np.int32]
    category_ids: dict[int, int]
    ignored: set[int] = field(default_factory=set)
    weak: set[int] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
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
        """Classes of the instances in ``labels``, int32 (height, width), 0 for background.

        Raises:
            InputError: what the source knows of this image cannot be used; the image counts as bad input.
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
