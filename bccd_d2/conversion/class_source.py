"""How the class of an instance gets into the conversion.

A class source is any picklable object with ``categories`` that can be called with an image and its label map
(:class:`ClassSource`). Sources for boxes live in ``classes.py``; without one, every instance is a ``cell``.
"""

from __future__ import annotations

from collections import Counter
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
        labels: int32 (height, width) label map; the one given, or a changed copy where the source split
            components.
        category_ids: category id by label; labels not named here are not written.
        ignored: labels written with ``iscrowd`` 1.
        counts: what happened, by name ("box without component", ...), summed and logged by the conversion.
    """

    labels: NDArray[np.int32]
    category_ids: dict[int, int]
    ignored: set[int] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)


class ClassSource(Protocol):
    """Anything that tells the class of each instance of an image.

    ``str(source)`` is written to the JSON's ``info``, so it says what the source is and is the same in every
    run (that of a dataclass does). Where a source cannot use a file, it raises :class:`bccd_d2.errors.InputError`.
    """

    @property
    def categories(self) -> list[dict[str, Any]]:
        """COCO categories, ids from 1."""

    def __call__(self, image: ImageRecord, labels: NDArray[np.int32]) -> ClassAssignment:
        """Classes of the instances in ``labels``, int32 (height, width), 0 for background."""


@dataclass(frozen=True)
class SingleClass:
    """Every instance is of the one class ``name``."""

    name: str = "cell"

    @property
    def categories(self) -> list[dict[str, Any]]:
        """The one category."""
        return [{"id": 1, "name": self.name}]

    def __call__(self, image: ImageRecord, labels: NDArray[np.int32]) -> ClassAssignment:
        """Category 1 for each label."""
        return ClassAssignment(labels, {int(label): 1 for label in range(1, int(labels.max(initial=0)) + 1)})
