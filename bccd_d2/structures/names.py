"""Joins images and classes of two sources by name, never by position.

File names come from other tools and systems: with folders in front or without, with backslashes, with another
suffix, with accents composed (NFC) or not (NFD).
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from bccd_d2.errors import InputError

T = TypeVar("T")
K = TypeVar("K")

# An extension starts with a letter: "slide.1" is a whole name. ".ome.tif" is one extension.
_EXTENSION = re.compile(r"(?<=.)(\.ome)?\.[a-z][a-z0-9]{0,7}$", re.IGNORECASE)
_SHOWN = 5  # names that a message lists


def normalise_path(name: str) -> str:
    """A file name as POSIX path in NFC, without ``./`` and repeated separators; backslashes are separators."""
    parts = [part for part in unicodedata.normalize("NFC", name).replace("\\", "/").split("/") if part != "."]
    root = "/" if parts and parts[0] == "" else ""
    return root + "/".join(part for part in parts if part)


def stem_of(name: str) -> str:
    """File name without folders and extension: ``smears/a.ome.tif`` and ``smears\\a.png`` give ``a``."""
    return _EXTENSION.sub("", _file_name(name))


def match_images(
    names: Iterable[str],
    candidates: Iterable[str],
    *,
    where: str,
    required: bool = True,
) -> dict[str, str]:
    """The candidate that each name means, as a dict of names and candidates as they were given.

    Tried in this order, each for all names before the next: the whole path; one path being the end of the other
    (``smears/a.png`` and ``a.png``); the file name; the file name with another extension behind it (``a.png.tif``
    and ``a.png``); the stem (``a.json`` and ``a.png``). Of several candidates the one is taken that has most of the
    name's last folders. A candidate that one name means in an earlier step is not taken by another in a later one.

    Raises InputError, which names ``where`` the names come from, if a name means several candidates, several names
    mean one, or (if ``required``) a name means none.
    """
    wanted, known = list(dict.fromkeys(names)), list(dict.fromkeys(candidates))
    found: dict[str, str] = {}
    for name_key, candidate_key, same in _STEPS:
        taken = set(found.values())
        by_key = _grouped(known, candidate_key)
        step: dict[str, str] = {}
        for name in (name for name in wanted if name not in found):
            alike = [c for c in by_key.get(name_key(name), ()) if same(name, c) and c not in taken]
            matches = _nearest(name, alike)
            if len(matches) > 1:
                raise InputError(
                    f"{where}: image {name!r} can be any of {_listed(matches)}; give its path as it is there"
                )
            if matches:
                step[name] = matches[0]
        for candidate, claims in _grouped(step, step.__getitem__).items():
            if len(claims) > 1:
                raise InputError(f"{where}: the images {_listed(claims)} all match {candidate!r}")
        found.update(step)
    missing = [name for name in wanted if name not in found]
    if required and missing:
        raise InputError(
            f"{where}: {_listed(missing)}: no such image (of {len(wanted)} names, {len(missing)} are not found); "
            f"expected names as {_listed(known) or 'none'}"
        )
    return {name: found[name] for name in wanted if name in found}


def match_classes(
    found: Mapping[int, str] | Iterable[int],
    known: Mapping[int, str],
    *,
    where: str,
    required: bool = True,
) -> dict[int, int]:
    """The number in ``known`` of each class in ``found``, names by number or numbers alone.

    Classes are joined by name, whatever their numbers; upper and lower case are told apart only where ``known``
    does. Numbers count only where ``found`` has no names. Raises InputError, which names ``where`` they come from,
    if a name is there twice or (if ``required``) a class is not found.
    """
    listing = ", ".join(f"{number} {name}" for number, name in known.items())
    if not isinstance(found, Mapping):
        found = {number: known.get(number, str(number)) for number in found}
    exact = _grouped(known, lambda number: class_key(known[number]))
    folded = _grouped(known, lambda number: class_key(known[number]).casefold())
    result: dict[int, int] = {}
    for number, name in found.items():
        matches = exact.get(class_key(name)) or folded.get(class_key(name).casefold(), [])
        if len(matches) > 1:
            raise InputError(f"{where}: class {name!r} can be any of {listing}")
        if matches:
            result[number] = matches[0]
    for number, claims in _grouped(result, result.__getitem__).items():
        if len(claims) > 1:
            raise InputError(
                f"{where}: the classes {_listed([found[c] for c in claims])} all match {known[number]!r}"
            )
    missing = [name for number, name in found.items() if number not in result]
    if required and missing:
        raise InputError(f"{where}: class {_listed(missing)}, expected one of {listing}")
    return result


def _file_name(name: str) -> str:
    return normalise_path(name).rpartition("/")[2]


def _one_ends_the_other(name: str, candidate: str) -> bool:
    a, b = "/" + normalise_path(name).lstrip("/"), "/" + normalise_path(candidate).lstrip("/")
    return a.endswith(b) or b.endswith(a)


def _nearest(name: str, candidates: list[str]) -> list[str]:
    """Those that have most of the last folders of ``name``."""
    folders = [normalise_path(path).split("/")[-2::-1] for path in (name, *candidates)]
    alike = [[a == b for a, b in zip(folders[0], others)] + [False] for others in folders[1:]]
    shared = [same.index(False) for same in alike]
    return [candidate for candidate, length in zip(candidates, shared) if length == max(shared)]


_Key = Callable[[str], str]
_STEPS: Sequence[tuple[_Key, _Key, Callable[[str, str], bool]]] = (
    (normalise_path, normalise_path, lambda name, candidate: True),
    (_file_name, _file_name, _one_ends_the_other),
    (_file_name, _file_name, lambda name, candidate: True),
    (stem_of, _file_name, lambda name, candidate: True),
    (_file_name, stem_of, lambda name, candidate: True),
    (stem_of, stem_of, lambda name, candidate: True),
)


def class_key(name: str) -> str:
    """A class name in NFC, without spaces around it."""
    return unicodedata.normalize("NFC", name).strip()


def _grouped(values: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for value in values:
        groups[key(value)].append(value)
    return groups


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (
        f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    )
