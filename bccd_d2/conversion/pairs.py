"""Which image belongs to which mask.

Pairs are found by the *stem* of the file name, never by the full name: the Kaggle set "BCCD Dataset with mask"
keeps 119 JPEG images whose masks are PNG, and a search for ``*.png`` loses them without a word.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bccd_d2.conversion.importers.common import PART_NAMES, ImportedImage
from bccd_d2.errors import InputError
from bccd_d2.io.find_images import SUFFIXES as IMAGE_SUFFIXES
from bccd_d2.io.find_images import is_clutter, report_passed_by
from bccd_d2.structures.names import stem_of

logger = logging.getLogger(__name__)
MASK_SUFFIXES = IMAGE_SUFFIXES | {".npy"}
PART_FIELD = "{part}"
MAX_NAMES_SHOWN = 5


@dataclass(frozen=True)
class ImageMaskPair:
    """One image with the mask drawn for it."""

    # What names the pair everywhere else (splits, class sources): the part of the file name that image and mask
    # share, with the folder in front (``train/0001``) where several folders hold the same.
    stem: str
    image: Path
    mask: Path  # the image itself in a data set without masks
    # The official part it lies in (``train``, ``val`` or ``test``), ``None`` in a flat layout.
    part: str | None = None
    annotations: ImportedImage | None = None  # what annotators say of it, beside the mask or in place of one


@dataclass(frozen=True)
class ImageRecord:
    """One image as the conversion knows it."""

    id: int  # COCO image id
    stem: str  # the pair's name, see :class:`ImageMaskPair`
    file_name: str  # POSIX path relative to the data root
    path: Path
    height: int  # native pixels
    width: int
    annotations: ImportedImage | None = None  # of the pair


@dataclass(frozen=True)
class FolderPair:
    """Where images and their masks lie, seen from a common parent folder."""

    image: str  # folder of the images, ``.`` for the parent itself; ``{part}`` stands for train, val or test
    mask: str | None = None  # folder of the masks; ``None`` where there are none, only images
    # File names of the images with one ``*``; what it stands for is the stem. Without an extension every image
    # format is taken.
    image_glob: str = "*"
    mask_glob: str = "*"  # the same for masks, for instance ``*_mask.png``

    def __post_init__(self) -> None:
        for key, value in (("image_glob", self.image_glob), ("mask_glob", self.mask_glob)):
            if value.count("*") != 1 or "/" in value:
                raise InputError(f"{key}: {value!r}, expected a file name with exactly one *")
        if self.mask is None:
            return
        if (PART_FIELD in self.image) != (PART_FIELD in self.mask):
            raise InputError(f"{PART_FIELD} in only one of image {self.image!r} and mask {self.mask!r}")
        if (self.image, self.image_glob) == (self.mask, self.mask_glob):
            raise InputError(f"image and mask are both {self.image}/{self.image_glob}, expected two places")


DEFAULT_FOLDERS = (FolderPair("original", "mask"), FolderPair("images", "masks"))


def find_pairs(
    root: Path | str, faults: list[str] | None = None, folders: tuple[FolderPair, ...] = DEFAULT_FOLDERS
) -> list[ImageMaskPair]:
    """Find every image/mask pair below ``root``, at every depth, sorted by stem whatever the order of the file
    system.

    ``folders`` says what to look for; case is ignored in folder names and extensions, and where several of them
    name the same folder of images, the first that finds something there counts. Raises InputError where there is no
    pair, and for an image without mask, a mask without image or a stem that occurs twice; with ``faults`` these are
    described there and left out.
    """
    root = Path(root)
    if not root.is_dir():
        found = "is a file" if root.exists() else "no such folder"
        raise InputError(f"{root}: {found}; expected the folder that holds the images and masks")
    problems: list[str] = []
    pairs: list[ImageMaskPair] = []
    used: set[Path] = set()
    for rule, image_folder, mask_folder, part in _folder_pairs(root, folders):
        if image_folder in used:
            continue
        images, masks = _images_and_masks(rule, image_folder, mask_folder, problems)
        if images or masks:
            used.add(image_folder)
        for stem in sorted(images.keys() | masks.keys()):
            of_stem = images.get(stem, []), masks.get(stem, [])
            if problem := _problem(stem, *of_stem):
                problems.append(problem)
            else:
                pairs.append(ImageMaskPair(stem, of_stem[0][0], of_stem[1][0], part))
    if faults is not None:
        faults += problems
    elif problems:
        headline = f"{root}: files that cannot be paired by their stem ({len(problems)})"
        raise InputError(list_names(headline, problems) + "\n--skip-bad leaves them out")
    if not pairs:
        wanted = " or ".join(f"{f.image}/" + (f" with {f.mask}/" if f.mask else "") for f in folders)
        raise InputError(f"{root}: no image with a mask; expected folders {wanted} and files of equal stems")
    return with_unique_stems(pairs, root)


def find_below(root: Path, path: str) -> Path:
    """The file or folder ``path`` in ``root`` or in the one folder below it that has it; raises InputError unless
    there is one.
    """
    if (root / path).exists():
        return root / path
    found = sorted(Path(folder, path) for folder, _, _ in os.walk(root) if Path(folder, path).exists())
    if len(found) != 1:
        what = list_names(f"{root}: {path} is there {len(found)} times", [str(p) for p in found])
        raise InputError(what if found else f"{root}: no {path} here or below")
    return found[0]


def take_parts(pairs: list[ImageMaskPair], part_of: Mapping[str, str]) -> list[ImageMaskPair]:
    """``pairs`` with the official part that lists name for their stem, ``None`` for those that are in no list."""
    missing = sorted(part_of.keys() - {pair.stem for pair in pairs})
    if missing:
        logger.warning("%s", list_names(f"listed images that are not here ({len(missing)})", missing))
    return [replace(pair, part=part_of.get(pair.stem)) for pair in pairs]


def list_names(headline: str, names: list[str]) -> str:
    """``headline`` with the first few of ``names`` below it."""
    shown = "".join(f"\n  {name}" for name in names[:MAX_NAMES_SHOWN])
    rest = len(names) - MAX_NAMES_SHOWN
    return f"{headline}:{shown}" + (f"\n  ... and {rest} more" if rest > 0 else "")


def _folder_pairs(
    root: Path, folders: tuple[FolderPair, ...]
) -> Iterator[tuple[FolderPair, Path, Path, str | None]]:
    """Every place below ``root`` where the two folders of a rule lie side by side, with the official part."""
    for name, below, _ in os.walk(root):
        below[:] = sorted(folder for folder in below if not is_clutter(folder))
        parent = Path(name)
        for rule in folders:
            for part in PART_NAMES if PART_FIELD in rule.image else [None]:
                image = _descend(parent, rule.image, part)
                mask = image if rule.mask is None else _descend(parent, rule.mask, part)
                if image is not None and mask is not None:
                    inside = image.relative_to(root).parts[:-1]
                    named = [PART_NAMES[p.lower()] for p in [*inside, part or ""] if p.lower() in PART_NAMES]
                    yield rule, image, mask, named[-1] if named else None


def _descend(parent: Path, folder: str, part: str | None) -> Path | None:
    """The folder ``folder`` below ``parent``, whatever its case, or ``None``."""
    for step in Path(folder.replace(PART_FIELD, part or "")).parts:
        alike = [p for p in parent.iterdir() if p.name.lower() == step.lower() and p.is_dir()]
        if not alike:
            return None
        parent = min(alike, key=lambda p: (p.name != step, p))
    return parent


def _images_and_masks(
    rule: FolderPair, image_folder: Path, mask_folder: Path, problems: list[str]
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Images and masks of one place by stem."""
    images = _files_by_stem(image_folder, rule.image_glob, IMAGE_SUFFIXES, problems)
    if rule.mask is None:
        return images, images
    masks = _files_by_stem(mask_folder, rule.mask_glob, MASK_SUFFIXES, problems)
    if image_folder == mask_folder:
        if not masks:  # with everything in one folder, a folder without masks is one that is not meant
            return {}, {}
        taken = {path for paths in masks.values() for path in paths}
        left = {stem: [path for path in paths if path not in taken] for stem, paths in images.items()}
        images = {stem: paths for stem, paths in left.items() if paths}
    return images, masks


def _files_by_stem(
    folder: Path, glob: str, suffixes: frozenset[str], problems: list[str]
) -> dict[str, list[Path]]:
    """Files directly in ``folder`` by stem."""
    before, after = glob.split("*")
    whole_name = Path(after).suffix.lower() in suffixes
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        name = path.name if whole_name else stem_of(path.name)
        if (
            path.suffix.lower() not in suffixes
            or is_clutter(path.name)
            or not (name.startswith(before) and name.lower().endswith(after.lower()))
            or len(name) <= len(before) + len(after)
            or not path.is_file()
        ):
            continue
        try:
            path.name.encode()
        except UnicodeEncodeError:
            problems.append(f"{folder}: file name {path.name!r} is not UTF-8, which JSON cannot hold")
            continue
        # Systems write accents in two ways, and images and masks may come from two systems.
        stem = unicodedata.normalize("NFC", name[len(before) : len(name) - len(after)])
        found.setdefault(stem, []).append(path)
    report_passed_by([path.name for path in folder.iterdir()], suffixes, str(folder))
    return found


def _problem(stem: str, images: list[Path], masks: list[Path]) -> str | None:
    """Why files of one stem make no pair."""
    for paths in (images, masks):
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            return f"{paths[0].parent}: {len(paths)} files for the stem {stem!r} ({names}), expected one"
    if not masks:
        return f"{images[0]}: image without mask"
    if not images:
        return f"{masks[0]}: mask without image"
    return None


def with_unique_stems(pairs: list[ImageMaskPair], root: Path) -> list[ImageMaskPair]:
    """Put the folder in front of stems that several folders share, and sort. Raises InputError if stems are not
    unique even so.
    """
    counts = Counter(pair.stem for pair in pairs)
    named = []
    for pair in pairs:
        if counts[pair.stem] > 1:
            folder = pair.image.parent.relative_to(root)
            where = folder.parent if pair.part is None or folder.name.lower() not in PART_NAMES else folder
            pair = replace(pair, stem=(where / pair.stem).as_posix())
        named.append(pair)
    repeated = [stem for stem, count in Counter(pair.stem for pair in named).items() if count > 1]
    if repeated:
        raise InputError(list_names(f"{root}: stems that several folders of one parent share", repeated))
    return sorted(named, key=lambda pair: pair.stem)
