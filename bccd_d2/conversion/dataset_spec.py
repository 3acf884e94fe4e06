"""How a data set is laid out and what its masks mean, read from a small YAML file.

The files of ``configs/datasets`` describe the common cases; a user adds another beside them, or anywhere, without
code. Every key is optional::

    description: what this is
    folders:                     # places to look in, side by side anywhere below the root
      - {image: original, mask: mask, image_glob: "*", mask_glob: "*"}
    mask:                        # see bccd_d2.io.masks.MaskRule
      kind: classes              # binary, classes or instances
      values: {0: background, 128: WBC, 255: WBC}
      colours: {"#000000": background, "#ff0000": RBC}
    instances:                   # see bccd_d2.conversion.instances.InstanceRule; the command line overrules it
      min_area: 100
      cut: {method: h-maxima, distance: 0.01}
    image_sets: ImageSets/Main   # folder with lists train.txt, val.txt, test.txt of stems, the official split
    annotates: {RBC: partly, Platelets: none}   # complete (default), partly or none
    classes: {...}               # classes from boxes, see bccd_d2.conversion.classes.ClassTable
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bccd_d2.conversion.instances import CutRule, InstanceRule
from bccd_d2.conversion.layout import DEFAULT_FOLDERS, FolderPair
from bccd_d2.errors import InputError
from bccd_d2.files import read_yaml
from bccd_d2.io.masks import Colour, MaskRule

ANNOTATED = ("complete", "partly", "none")
SPEC_FOLDER = Path(__file__).resolve().parents[2] / "configs" / "datasets"
YAML_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
}
HEX_COLOUR = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")


@dataclass(frozen=True)
class DatasetSpec:
    """A data set's layout and the meaning of its masks.

    Attributes:
        description: in words.
        folders: where images and masks lie.
        mask: what the pixels of a mask mean.
        instances: how instances are made of it.
        classes: classes from boxes, as they stand in the file, see :class:`bccd_d2.conversion.classes.ClassTable`.
        annotates: how each class is annotated: ``complete``, ``partly`` (cells without annotation are not background)
            or ``none``; these classes are listed in the JSON in this order, those that are not complete in
            ``info.unlabeled_categories`` too, which tells a training not to learn from their absence.
        unlabeled_sizes: smallest and largest size, in pixels, of such cells; for ``info.unlabeled_sizes``.
        image_sets: folder with the lists of the official split, seen from the root or a folder below it; without it,
            folders named train and test tell the official part.
    """

    description: str = "two-valued masks, as in the Kaggle set 'BCCD Dataset with mask'"
    folders: tuple[FolderPair, ...] = DEFAULT_FOLDERS
    mask: MaskRule = field(default_factory=MaskRule)
    instances: InstanceRule = field(default_factory=InstanceRule)
    classes: Mapping[str, Any] | None = None
    image_sets: str | None = None
    annotates: Mapping[str, str] = field(default_factory=dict)
    unlabeled_sizes: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name, how in self.annotates.items():
            if how not in ANNOTATED:
                raise InputError(f"annotates: {name}: {how!r}, expected {', '.join(ANNOTATED)}")
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
    """Read a dataset spec by the name of a file in ``configs/datasets`` or by path.

    Raises:
        InputError: there is no such file, it is no YAML, or a key or value is not one a dataset spec has.
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
        return _spec(content if content is not None else {})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _spec(content: Any) -> DatasetSpec:
    given = _section("", content, DatasetSpec)
    if "folders" in given:
        entries = given["folders"]
        if not isinstance(entries, list) or not entries:
            raise InputError(f"folders: {entries!r}, expected a list of {{image: ..., mask: ...}}")
        given["folders"] = tuple(_build("folders", entry, FolderPair) for entry in entries)
    if "mask" in given:
        mask = _section("mask", given["mask"], MaskRule)
        for key, parse in (("values", _grey_value), ("colours", _colour)):
            if key in mask:
                if not isinstance(mask[key], Mapping):
                    raise InputError(f"mask: {key}: {mask[key]!r}, expected a mapping to class names")
                mask[key] = tuple((parse(value), str(meaning)) for value, meaning in mask[key].items())
        given["mask"] = _build("mask", mask, MaskRule)
    if "instances" in given:
        instances = _section("instances", given["instances"], InstanceRule)
        if instances.get("cut") is not None:
            instances["cut"] = _build("instances: cut", instances["cut"], CutRule)
        given["instances"] = _build("instances", instances, InstanceRule)
    if given.get("image_sets") is not None and not isinstance(given["image_sets"], str):
        raise InputError(f"image_sets: {given['image_sets']!r}, expected the path of a folder")
    if given.get("classes") is not None and not isinstance(given["classes"], Mapping):
        raise InputError(f"classes: {given['classes']!r}, expected a mapping")
    annotates = given.get("annotates") or {}
    if not isinstance(annotates, Mapping) or not all(isinstance(name, str) for name in annotates):
        raise InputError(
            f"annotates: {annotates!r}, expected a mapping of class names to {', '.join(ANNOTATED)}"
        )
    given["annotates"] = dict(annotates)
    if given.get("unlabeled_sizes") is not None:
        sizes = given["unlabeled_sizes"]
        if (
            not isinstance(sizes, list)
            or len(sizes) != 2
            or not all(type(size) in (int, float) for size in sizes)
            or not 0 <= sizes[0] <= sizes[1]
        ):
            raise InputError(f"unlabeled_sizes: {sizes!r}, expected [smallest, largest] in pixels")
        given["unlabeled_sizes"] = (sizes[0], sizes[1])
    return DatasetSpec(**given)


def _section(where: str, content: Any, kind: type) -> dict[str, Any]:
    """A mapping whose keys are fields of ``kind``."""
    prefix = f"{where}: " if where else ""
    if not isinstance(content, Mapping):
        raise InputError(f"{prefix}{content!r}, expected a mapping")
    known = [f.name for f in fields(kind)]
    for key in content:
        if key not in known:
            raise InputError(f"{prefix}unknown key {key!r}, expected some of {', '.join(known)}")
    return dict(content)


def _build(where: str, content: Any, kind: type) -> Any:
    """An instance of the dataclass ``kind``, values checked against its annotations as far as YAML goes."""
    given = _section(where, content, kind)
    for f in fields(kind):
        if f.name not in given:
            continue
        expected = YAML_TYPES.get(str(f.type).split(" |")[0])
        value = given[f.name]
        wrong_bool = isinstance(value, bool) and expected != (bool,)
        if expected and value is not None and (wrong_bool or not isinstance(value, expected)):
            raise InputError(f"{where}: {f.name}: {value!r}, expected {f.type}")
    try:
        return kind(**given)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except TypeError as error:
        raise InputError(f"{where}: {', '.join(given) or 'nothing'} given ({error})") from error


def _grey_value(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"mask: values: {value!r}, expected whole numbers")
    return value


def _colour(value: Any) -> Colour:
    match = HEX_COLOUR.fullmatch(str(value))
    if match is None:
        raise InputError(f"mask: colours: {value!r}, expected '#rrggbb' in quotes")
    red, green, blue = (int(digits, 16) for digits in match.groups())
    return red, green, blue
