"""How a data set is laid out, read from a small YAML file, and which image belongs to which mask.

Pairs are found by the *stem* of the file name, never by the full name: the Kaggle set "BCCD Dataset with mask"
keeps 119 JPEG images whose masks are PNG, and a search for ``*.png`` loses them without a word. docs/conversion.md
shows a complete file.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bccd_d2.conversion.instances import InstanceRule
from bccd_d2.errors import InputError
from bccd_d2.files import read_yaml, shipped_folder
from bccd_d2.io.find_images import SUFFIXES as IMAGE_SUFFIXES
from bccd_d2.io.find_images import is_clutter, report_passed_by
from bccd_d2.io.masks import Colour, MaskRule

logger = logging.getLogger(__name__)
ANNOTATED = ("complete", "partly", "none")
SPEC_FOLDER = shipped_folder("configs") / "datasets"
HEX_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
MASK_SUFFIXES = IMAGE_SUFFIXES | {".npy"}
PART_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
PART_FIELD = "{part}"
MAX_NAMES_SHOWN = 5
YAML_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a text"),
    "Mapping": ((dict,), "a mapping"),
}


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


@dataclass(frozen=True)
class ImageRecord:
    """One image as the conversion knows it."""

    id: int  # COCO image id
    stem: str  # the pair's name, see :class:`ImageMaskPair`
    file_name: str  # POSIX path relative to the data root
    path: Path
    height: int  # native pixels
    width: int

    @property
    def as_coco(self) -> dict[str, Any]:
        """Entry of COCO's ``images``."""
        return {"id": self.id, "file_name": self.file_name, "height": self.height, "width": self.width}


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


@dataclass(frozen=True)
class DatasetSpec:
    """A data set's layout and the meaning of its masks."""

    description: str = "two-valued masks, as in the Kaggle set 'BCCD Dataset with mask'"
    folders: tuple[FolderPair, ...] = DEFAULT_FOLDERS  # where images and masks lie
    mask: MaskRule = field(default_factory=MaskRule)  # what the pixels of a mask mean
    instances: InstanceRule = field(default_factory=InstanceRule)  # how instances are made of it
    # Classes from boxes, as they stand in the file, see :class:`bccd_d2.conversion.classes.ClassTable`.
    classes: Mapping[str, Any] | None = None
    # Folder with the lists of the official split, seen from the root or a folder below it; without it, folders
    # named train and test tell the official part.
    image_sets: str | None = None
    # How each class is annotated: ``complete``, ``partly`` (cells without annotation are not background) or
    # ``none``; these classes are listed in the JSON in this order, those that are not complete in
    # ``info.unlabeled_categories`` too, which tells a training not to learn from their absence.
    annotates: Mapping[str, str] = field(default_factory=dict)
    # Smallest and largest size, in pixels, of such cells; for ``info.unlabeled_sizes``.
    unlabeled_sizes: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name, how in self.annotates.items():
            if not isinstance(name, str) or how not in ANNOTATED:
                raise InputError(
                    f"annotates: {name}: {how!r}, expected a class name and one of {', '.join(ANNOTATED)}"
                )
        sizes = self.unlabeled_sizes
        if sizes is not None and not (
            isinstance(sizes, (list, tuple))
            and [type(size) in (int, float) for size in sizes] == [True, True]
            and 0 <= sizes[0] <= sizes[1]
        ):
            raise InputError(f"unlabeled_sizes: {sizes!r}, expected [smallest, largest] in pixels")
        for folder in self.folders:
            if (folder.mask is None) != (self.mask.kind == "none"):
                raise InputError(
                    f"folders: {folder.image!r} {'without' if folder.mask is None else 'with'} masks, "
                    f"but mask: kind: {self.mask.kind}; expected 'none' just where folders name no masks"
                )

    @property
    def unlabeled(self) -> dict[str, Any]:
        """What ``info`` says of classes that are not annotated completely."""
        names = [name for name, how in self.annotates.items() if how != "complete"]
        found: dict[str, Any] = {"unlabeled_categories": names} if names else {}
        if names and self.unlabeled_sizes is not None:
            found["unlabeled_sizes"] = list(self.unlabeled_sizes)
        return found


def known_specs() -> list[str]:
    """Names of the dataset specs that come with the project."""
    return sorted(path.stem for path in SPEC_FOLDER.glob("*.yaml"))


def read_spec(name: str | Path) -> DatasetSpec:
    """Read a dataset spec by the name of a file in ``configs/datasets`` or by path. Raises InputError where there
    is no such file, it is no YAML, or a key or value is not one a dataset spec has.
    """
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml"):
        path = SPEC_FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise InputError(
            f"dataset spec {str(name)!r}: no such file; expected a YAML file or one of {', '.join(known_specs())}"
        )
    content = read_yaml(path)
    try:
        return _spec({} if content is None else content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _spec(content: Any) -> DatasetSpec:
    given = _section("", content, DatasetSpec)
    if "folders" in given:
        if not isinstance(given["folders"], list) or not given["folders"]:
            raise InputError(f"folders: {given['folders']!r}, expected a list of {{image: ..., mask: ...}}")
        given["folders"] = tuple(_build("folders: ", entry, FolderPair) for entry in given["folders"])
    if "mask" in given:
        mask = _section("mask: ", given["mask"], MaskRule)
        for key, parse in (("values", _grey_value), ("colours", _colour)):
            if key in mask:
                if not isinstance(mask[key], Mapping):
                    raise InputError(f"mask: {key}: {mask[key]!r}, expected a mapping to class names")
                mask[key] = tuple((parse(value), str(meaning)) for value, meaning in mask[key].items())
        given["mask"] = _build("mask: ", mask, MaskRule)
    if "instances" in given:
        given["instances"] = _build("instances: ", given["instances"], InstanceRule)
    given["annotates"] = given.get("annotates") or {}
    return _build("", given, DatasetSpec)


def _section(where: str, content: Any, kind: type) -> dict[str, Any]:
    """A mapping whose keys are fields of ``kind``."""
    if not isinstance(content, Mapping):
        raise InputError(f"{where}{content!r}, expected a mapping")
    known = [f.name for f in fields(kind)]
    for key in content:
        if key not in known:
            raise InputError(f"{where}unknown key {key!r}, expected some of {', '.join(known)}")
    return dict(content)


def _build(where: str, content: Any, kind: type) -> Any:
    """An instance of the dataclass ``kind``, values checked against its annotations as far as YAML goes."""
    given = _section(where, content, kind)
    for f in fields(kind):
        value = given.get(f.name)
        types, expected = YAML_TYPES.get(re.split(r"[ \[]", str(f.type))[0], ((), ""))
        if types and value is not None and type(value) not in types:
            raise InputError(f"{where}{f.name}: {value!r}, expected {expected}")
    try:
        return kind(**given)
    except InputError as error:
        raise InputError(f"{where}{error}") from error
    except TypeError as error:
        raise InputError(f"{where}{', '.join(given) or 'nothing'} given ({error})") from error


def _grey_value(value: Any) -> int:
    if type(value) is not int:
        raise InputError(f"mask: values: {value!r}, expected whole numbers")
    return value


def _colour(value: Any) -> Colour:
    if HEX_COLOUR.fullmatch(str(value)) is None:
        raise InputError(f"mask: colours: {value!r}, expected '#rrggbb' in quotes")
    red, green, blue = bytes.fromhex(value[1:])
    return red, green, blue


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
        name = path.name if whole_name else path.stem
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
