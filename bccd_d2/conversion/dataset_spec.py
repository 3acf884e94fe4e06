"""How a data set is laid out, read from a small YAML file; docs/conversion.md shows a complete one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bccd_d2.conversion.classes import WEAK, ClassTable
from bccd_d2.conversion.pairs import DEFAULT_FOLDERS, FolderPair
from bccd_d2.errors import InputError
from bccd_d2.files import read_yaml, shipped_folder
from bccd_d2.io.masks import Colour, MaskRule
from bccd_d2.segmentation.instances import InstanceRule

ANNOTATED = ("complete", "partly", "none")
SPEC_FOLDER = shipped_folder("configs") / "datasets"
HEX_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
YAML_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a text"),
    "Mapping": ((dict,), "a mapping"),
}


@dataclass(frozen=True)
class DatasetSpec:
    """A data set's layout and the meaning of its masks."""

    description: str = "two-valued masks, as in the Kaggle set 'BCCD Dataset with mask'"
    folders: tuple[FolderPair, ...] = DEFAULT_FOLDERS  # where images and masks lie
    mask: MaskRule = field(default_factory=MaskRule)  # what the pixels of a mask mean
    instances: InstanceRule = field(default_factory=InstanceRule)  # how instances are made of it
    classes: ClassTable | None = None  # classes from boxes or points
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

        if self.mask.kind == "none" and self.classes is not None and self.classes.without_component != WEAK:
            raise InputError(
                f"classes: without_component: {self.classes.without_component!r}, expected {WEAK!r}: without masks "
                "every box is one"
            )

    @property
    def class_names(self) -> list[str]:
        """Classes of the masks or of boxes and points, then those that only ``annotates`` names."""
        names = self.mask.class_names or (self.classes.class_ids if self.classes else ["cell"])
        return list(dict.fromkeys([*names, *self.annotates]))

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
    if given.get("classes") is not None:
        order = given["annotates"] if isinstance(given["annotates"], Mapping) else ()
        given["classes"] = ClassTable.from_mapping(given["classes"], order)
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
