"""What every importer gives: images with their cells, in pixels of the image."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.io.find_images import SUFFIXES, files_below
from bccd_d2.io.images import read_image_size
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.names import match_images
from bccd_d2.structures.polygons import fill_rings
from bccd_d2.structures.rle import MAX_SIDE, decode_columns

ELLIPSE_POINTS = 64
PART_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded image."""
Ring = NDArray[np.float64]


@dataclass
class ImportedCell:
    """One cell, by the first of rings, mask, segmentation and box that is given."""

    class_name: str | None = None  # ``None`` where the file names no class
    score: float | None = None  # in [0, 1], of a prediction
    # Closed outlines, each (P, 2) x and y in pixels; (0, 0) is the upper left corner of the first pixel. What lies
    # in an odd number of rings is inside.
    rings: Sequence[Ring] = ()
    # bool (height, width) of a window, and (x, y) of its upper left pixel in the image
    mask: tuple[NDArray[np.bool_], tuple[int, int]] | None = None
    segmentation: Any = None  # in COCO's form
    # X0, y0, x1, y1 in pixels, half-open, of a cell without an outline.
    box: tuple[float, float, float, float] | None = None
    ignored: bool = False  # a region that is neither cell of this class nor background
    unsure: bool = False  # its annotator could not tell: a region to ignore whatever the class

    @property
    def has_outline(self) -> bool:
        """Whether there is more than a box."""
        return self.box is None or bool(self.rings or self.mask or self.segmentation)

    def extent(self) -> tuple[float, float, float, float]:
        """The box, or that around the rings."""
        points = np.concatenate([*self.rings, np.zeros((0 if any(map(len, self.rings)) else 1, 2))])
        return self.box or (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())

    def pixels(self, height: int, width: int) -> tuple[NDArray[Any], tuple[int, int]]:
        """What of the cell lies in an image of ``height`` and ``width``, (h, w), not 0 inside, and the (x, y) of its
        upper left pixel. Raises InputError for a segmentation that is not of that size.
        """
        if self.segmentation is not None:
            columns, x = decode_columns(self.segmentation, height, width)
            return columns, (x, 0)
        if rings := [ring for ring in self.rings if len(ring)]:
            return fill_rings(rings, height, width)
        mask, (x, y) = self.mask or (np.zeros((0, 0), bool), (0, 0))
        top, left = max(0, -y), max(0, -x)
        return mask[top : max(top, height - y), left : max(left, width - x)], (max(0, x), max(0, y))


def outlined(cells: Sequence[ImportedCell], height: int, width: int) -> Cells:
    """The cells cut to an image, with their scores (1 where there is none); of no pixel where they lie outside."""
    parts = [cell.pixels(height, width) for cell in cells]
    return Cells.from_masks(
        height,
        width,
        [mask for mask, _ in parts],
        origins=[origin for _, origin in parts],
        scores=[1.0 if cell.score is None else cell.score for cell in cells],
    )


@dataclass
class ImportedImage:
    """One image with its cells."""

    name: str  # file name in the words of the annotation file, with or without folders and extension
    source: Path  # the annotation file; the image where it needs none for want of cells
    cells: list[ImportedCell] = field(default_factory=list)  # may be none
    # (height, width) as the annotation file says, ``None`` where it does not
    size: tuple[int, int] | None = None
    part: str | None = None  # official part (``train``, ``val`` or ``test``)


def leave_out_repeats(image: ImportedImage) -> int:
    """Leave out boxes that are there twice; returns how many."""
    cells = {id(c) if c.has_outline else (c.class_name, c.box): c for c in image.cells}
    repeated = len(image.cells) - len(cells)
    image.cells = list(cells.values())
    return repeated


@dataclass
class Imported:
    """All images of the annotation files."""

    images: list[ImportedImage] = field(default_factory=list)  # in the order of the files
    # Names in the order of the files, where they list classes; others follow as they occur.
    classes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # what was repaired or left out
    # What is said of files that cannot be used, which are left out; ``None``: they are errors.
    faults: list[str] | None = None
    unread: list[Path] = field(default_factory=list)  # such files

    def class_names(self, default: str) -> list[str]:
        """Names of all classes, cells without one being of ``default``."""
        names = [cell.class_name or default for image in self.images for cell in image.cells]
        return list(dict.fromkeys([*self.classes, *names])) or [default]

    @contextmanager
    def reading(self, path: Path, kind: str) -> Iterator[None]:
        """As :func:`reading`, where files that cannot be used are errors."""
        try:
            with reading(path, kind):
                yield
        except (InputError, OSError) as error:
            if self.faults is None:
                raise
            self.faults.append(str(error))
            self.unread.append(path)


class ImageFiles:
    """The images that annotations can belong to, by their paths below a folder: all that are there at any depth, or
    those of ``names``. With ``sizes``, (height, width) by name, they need not be files.
    """

    def __init__(
        self,
        folder: Path,
        names: Iterable[str] | None = None,
        sizes: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self.folder = folder
        self._sizes = sizes
        found = (
            [path.relative_to(folder).as_posix() for path in files_below(folder, SUFFIXES)]
            if names is None
            else []
        )
        self.only = found[0] if len(found) == 1 else None  # name of the only image there is
        self.paths = {name: folder / name for name in names or found}

    def match(self, names: Iterable[str], where: str) -> dict[str, str]:
        """The image that each name in the annotations means; those that are not here are left out. Raises InputError
        where a name can be several images, or two names are one image.
        """
        names = list(names)
        found = match_images(names, self.paths, where=where, required=False)
        without_prefix = {
            name: short
            for name in names
            if name not in found
            and (short := _UPLOAD_PREFIX.sub("", name.replace("\\", "/").rpartition("/")[2]))
        }
        if without_prefix:
            more = match_images(without_prefix.values(), self.paths, where=where, required=False)
            found.update({name: more[short] for name, short in without_prefix.items() if short in more})
        return found

    def join(self, annotated: Sequence[ImportedImage], where: str) -> dict[str, ImportedImage]:
        """The annotations whose image is here, by its name. Raises InputError as :meth:`match`, or where two belong to
        one image.
        """
        found = self.match([image.name for image in annotated], where)
        joined: dict[str, ImportedImage] = {}
        for image in annotated:
            if image.name not in found:
                continue
            other = joined.setdefault(found[image.name], image)
            if other is not image:
                raise InputError(
                    f"{found[image.name]}: annotated in {other.source} and in {image.source}, expected one"
                )
        return joined

    def beside(self, place: Path, name: str) -> str:
        """The name seen from the folder of images, where the file lies in ``place`` or is named from there."""
        try:
            relative = (
                (place / name.replace("\\", "/")).resolve().relative_to(self.folder.resolve()).as_posix()
            )
        except (ValueError, OSError):
            return name
        return relative if relative in self.paths else name

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) of an image; raises InputError where it cannot be read."""
        return read_image_size(self.paths[name]) if self._sizes is None else self._sizes[name]


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn what a file of another shape makes of a reader into one InputError that names it and what was expected."""
    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error
    except KeyError as error:
        raise InputError(f"{path}: no key {error}, expected {kind}") from error
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: not {kind} ({error})") from error


def parse_coordinate(value: Any, where: str) -> float:
    """A finite number of a sensible size from JSON or text; raises InputError for anything else."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= MAX_SIDE:
        raise InputError(f"{where}: {str(value)[:40]!r}, expected a number of pixels")
    return number


def ring(xs: Iterable[Any], ys: Iterable[Any]) -> Ring:
    """A closed outline; fewer than three points give an empty array. Raises InputError for a coordinate that is no
    number, ValueError for more of one than of the other.
    """
    pairs = [[parse_coordinate(x, "x"), parse_coordinate(y, "y")] for x, y in zip(xs, ys, strict=True)]
    points = np.array(pairs, np.float64).reshape(-1, 2)
    return points if len(points) >= 3 else np.empty((0, 2))


def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> Ring:
    """Outline of an ellipse; a polygon of the same area."""
    angles = np.arange(ELLIPSE_POINTS) * 2 * np.pi / ELLIPSE_POINTS
    # A polygon inscribed in the ellipse has a little less area.
    grow = math.sqrt(2 * np.pi / (ELLIPSE_POINTS * math.sin(2 * np.pi / ELLIPSE_POINTS)))
    points = np.stack([rx * grow * np.cos(angles), ry * grow * np.sin(angles)], axis=1)
    return points @ _rotation(degrees) + [cx, cy]


def rectangle(
    x: float, y: float, width: float, height: float, degrees: float = 0.0
) -> tuple[float, float, float, float]:
    """The box around a rectangle turned clockwise about its upper left corner."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float) @ _rotation(degrees) + [
        x,
        y,
    ]
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _rotation(degrees: float) -> NDArray[np.float64]:
    """To be multiplied from the right; clockwise in image coordinates, with y downwards."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cosine, sine], [-sine, cosine]])


def label_cells(labels: NDArray[np.integer]) -> list[ImportedCell]:
    """One cell for each value above 0 of a label map (height, width)."""
    if not labels.size:
        return []
    cells = Cells.from_label_image(labels)
    return [
        ImportedCell(mask=(mask, (x, y))) for mask, (x, y, *_) in zip(cells.masks, cells.windows.tolist())
    ]


def part_of(name: str) -> str | None:
    """Official part that a folder or a file such as ``instances_train2017`` is named after."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((PART_NAMES[word] for word in reversed(words) if word in PART_NAMES), None)


def class_of_attributes(attributes: Any, where: str) -> str | None:
    """The class among the attributes of a region: the only one, or that with a usual name; raises InputError if
    there is none such among several.
    """
    if not isinstance(attributes, Mapping):
        return None
    found: dict[str, str | int] = {}
    several = []
    for key, value in attributes.items():
        if isinstance(value, Mapping):  # of a checkbox: the options that are ticked
            ticked = [option for option, on in value.items() if on]
            several += [f"{key} {', '.join(ticked)}"] if len(ticked) > 1 else []
            value = ticked[0] if len(ticked) == 1 else None
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            found[str(key)] = value
    texts = {key: value for key, value in found.items() if isinstance(value, str)}
    values = {key: str(value).strip() for key, value in (texts or found).items()}
    if several and not values:
        raise InputError(f"{where}: {several[0]}, expected one class of a region")
    usual = [key for key in values if key.lower() in ("class", "label", "type", "name", "category", "cell")]
    if len(values) > 1 and len(usual) != 1:
        raise InputError(f"{where}: attributes {', '.join(values)}, expected one of them named 'class'")
    return values[usual[0]] if usual else next(iter(values.values()), None)
