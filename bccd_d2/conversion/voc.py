"""Boxes and split lists in the layout of the Pascal VOC challenges (Everingham et al. 2010)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from bccd_d2.conversion.boxes import ImageBoxes, make_boxes, parse_coordinate, shared_stem_error
from bccd_d2.conversion.class_source import ImageRecord
from bccd_d2.errors import InputError

CORNERS = ("xmin", "ymin", "xmax", "ymax")
LISTS = ("train", "val", "test")


@dataclass(frozen=True)
class VocFolder:
    """A folder of VOC annotations, one ``STEM.xml`` an image.

    Attributes:
        folder: where the files lie; those of images whose stem carries a folder (``train/0001``) in such folders.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder}: no such folder; expected VOC annotations, one STEM.xml an image"
            )

    def find(self, image: ImageRecord) -> ImageBoxes | None:
        """Boxes of the image, ``None`` where it has no file.

        Raises:
            InputError: there is one file for a stem that several images share; or see :func:`read_voc`.
        """
        path = self.folder / f"{image.stem}.xml"
        if path.is_file():
            return read_voc(path)
        flat = self.folder / f"{Path(image.stem).name}.xml"
        if flat.is_file():
            raise shared_stem_error(image, str(flat))
        return None


def read_voc(path: Path | str) -> ImageBoxes:
    """Read one VOC annotation.

    VOC counts pixels from 1 and includes the last one; the boxes returned count from 0 and are half-open.

    Raises:
        InputError: the file is empty, no XML, declares entities (which can blow up to gigabytes), or has another
            shape than VOC.
    """
    path = Path(path)
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty file, expected a VOC annotation")
    try:
        root = parse(path, forbid_dtd=False).getroot()
    except DefusedXmlException as error:
        raise InputError(
            f"{path}: XML that declares entities or fetches files, refused ({error!r})"
        ) from error
    except (ParseError, ValueError, LookupError) as error:  # the last two: encodings that are none
        raise InputError(f"{path}: not XML ({error})") from error
    if root is None or root.tag != "annotation":
        found = "nothing" if root is None else f"<{root.tag}>"
        raise InputError(f"{path}: {found} at the top, expected a VOC <annotation>")
    corners, names, difficult = [], [], []
    for number, element in enumerate(root.findall("object"), start=1):
        where = f"{path}: object {number}"
        name = (element.findtext("name") or "").strip()
        if not name:
            raise InputError(f"{where}: no <name>, expected a category")
        corners.append(_corners(element, where))
        names.append(name)
        difficult.append((element.findtext("difficult") or "").strip() in ("1", "true", "True"))
    return make_boxes(str(path), corners, names, difficult, _size(root, path))


def read_image_sets(folder: Path | str) -> dict[str, str]:
    """Official part of each stem from lists ``train.txt``, ``val.txt`` and ``test.txt``.

    Args:
        folder: usually ``ImageSets/Main``; one stem a line, which may hold spaces. A list that is absent names nobody.

    Raises:
        InputError: there is no list, none names an image, a list is not UTF-8, or a stem is in two lists.
    """
    folder = Path(folder)
    part_of: dict[str, str] = {}
    for part in LISTS:
        path = folder / f"{part}.txt"
        if not path.is_file():
            continue
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 ({error}), expected one stem a line") from error
        for stem in filter(None, map(str.strip, lines)):
            if part_of.setdefault(stem, part) != part:
                raise InputError(f"{path}: {stem!r} is in {part_of[stem]}.txt too, expected one part")
    if not part_of:
        names = ", ".join(f"{part}.txt" for part in LISTS)
        raise InputError(f"{folder}: no image named in lists {names}; expected one stem a line")
    return part_of


def _corners(element: Element, where: str) -> tuple[int, int, int, int]:
    box = element.find("bndbox")
    if box is None:
        raise InputError(f"{where}: no <bndbox>, expected one")
    x0, y0, x1, y1 = (
        parse_coordinate((box.findtext(key) or "").strip(), f"{where}: {key}") for key in CORNERS
    )
    if x1 < x0 or y1 < y0:
        raise InputError(
            f"{where}: box from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}), expected minimum before maximum"
        )
    return math.floor(x0) - 1, math.floor(y0) - 1, math.ceil(x1), math.ceil(y1)


def _size(root: Element, path: Path) -> tuple[int, int] | None:
    """``(height, width)``; ``None`` where the file has no size, or 0 as some tools write for not known."""
    size = root.find("size")
    if size is None:
        return None
    height, width = (
        int(parse_coordinate((size.findtext(key) or "0").strip(), f"{path}: size: {key}"))
        for key in ("height", "width")
    )
    return (height, width) if height and width else None
