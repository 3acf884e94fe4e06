"""Which image belongs to which mask.

Pairs are found by the *stem* of the file name, never by the full name: the Kaggle set "BCCD Dataset with
mask" keeps 119 JPEG images whose masks are PNG, and a search for ``*.png`` loses them without a word.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bccd_d2.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
FOLDER_PAIRS = (("original", "mask"), ("images", "masks"))
PART_NAMES = frozenset({"train", "val", "valid", "validation", "test"})
MAX_NAMES_SHOWN = 5


@dataclass(frozen=True)
class ImageMaskPair:
    """One image with the mask drawn for it.

    Attributes:
        stem: what names the pair everywhere else (splits, class sources): the file stem, with the part in
            front (``train/0001``) where two parts hold the same stem.
        image: path of the image file.
        mask: path of the mask file.
        part: the official part it lies in (``train``, ``test``, ...), ``None`` in a flat layout.
    """

    stem: str
    image: Path
    mask: Path
    part: str | None = None


def find_pairs(root: Path | str, faults: list[str] | None = None) -> list[ImageMaskPair]:
    """Find every image/mask pair below ``root``, sorted by stem whatever the order of the file system.

    Looked for are folders ``original`` and ``mask`` (or ``images`` and ``masks``) side by side, anywhere
    below ``root``, ``root`` included; case is ignored in folder names and extensions.

    Args:
        root: folder to search.
        faults: where given, an image without mask, a mask without image or a stem that occurs twice is
            described here and left out instead of raising.

    Raises:
        InputError: ``root`` is no folder, holds no pair, or (without ``faults``) a file has no partner.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected the folder that holds the images and masks")
    problems: list[str] = []
    pairs: list[ImageMaskPair] = []
    for parent, image_folder, mask_folder in _folder_pairs(root):
        part = parent.name.lower() if parent.name.lower() in PART_NAMES else None
        images = _files_by_stem(image_folder, problems)
        masks = _files_by_stem(mask_folder, problems)
        problems += [f"{images[stem]}: image without mask" for stem in sorted(images.keys() - masks.keys())]
        problems += [f"{masks[stem]}: mask without image" for stem in sorted(masks.keys() - images.keys())]
        pairs += [
            ImageMaskPair(stem, images[stem], masks[stem], part) for stem in images.keys() & masks.keys()
        ]
    if problems and faults is None:
        raise InputError(
            _list_names(f"{root}: {len(problems)} files cannot be paired by their stem", problems)
        )
    if faults is not None:
        faults += problems
    if not pairs:
        wanted = " or ".join(f"{image}/ and {mask}/" for image, mask in FOLDER_PAIRS)
        raise InputError(f"{root}: no image with a mask; expected folders {wanted} with files of equal stems")
    return _with_unique_names(pairs, root)


def relative_posix(path: Path, start: Path) -> str:
    """``path`` as seen from ``start``, with forward slashes; absolute where there is no such way."""
    try:
        return Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def _folder_pairs(root: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Parent, image folder and mask folder of every place below ``root`` where both lie side by side."""
    for parent, folders, _ in os.walk(root):
        folders.sort()
        by_name = {name.lower(): Path(parent, name) for name in folders}
        for image_name, mask_name in FOLDER_PAIRS:
            if image_name in by_name and mask_name in by_name:
                yield Path(parent), by_name[image_name], by_name[mask_name]


def _files_by_stem(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Image files directly in ``folder`` by stem; stems that occur twice go to ``problems`` instead."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file():
            found.setdefault(path.stem, []).append(path)
    for stem, paths in found.items():
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            problems.append(f"{folder}: {len(paths)} files for the stem {stem!r} ({names}), expected one")
    return {stem: paths[0] for stem, paths in found.items() if len(paths) == 1}


def _with_unique_names(pairs: list[ImageMaskPair], root: Path) -> list[ImageMaskPair]:
    """Put the folder in front of stems that several folders share, and sort."""
    counts: dict[str, int] = {}
    for pair in pairs:
        counts[pair.stem] = counts.get(pair.stem, 0) + 1
    named = []
    for pair in pairs:
        if counts[pair.stem] > 1:
            prefix = pair.image.parent.parent.relative_to(root).as_posix()
            pair = ImageMaskPair(f"{prefix}/{pair.stem}", pair.image, pair.mask, pair.part)
        named.append(pair)
    return sorted(named, key=lambda pair: pair.stem)


def _list_names(headline: str, names: list[str]) -> str:
    shown = "".join(f"\n  {name}" for name in names[:MAX_NAMES_SHOWN])
    rest = len(names) - MAX_NAMES_SHOWN
    return f"{headline}:{shown}" + (f"\n  ... and {rest} more" if rest > 0 else "")
