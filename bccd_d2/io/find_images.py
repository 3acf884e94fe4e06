"""Finds image files among all that folders hold."""

from __future__ import annotations

import logging
import posixpath
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from bccd_d2.errors import InputError
from bccd_d2.io.file_kinds import MICROSCOPE_FORMATS
from bccd_d2.io.slide_source import SLIDE_SUFFIXES
from bccd_d2.io.storage import is_url, open_filesystem

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
OTHER_IMAGES = frozenset(
    {
        *MICROSCOPE_FORMATS, *SLIDE_SUFFIXES, *SUFFIXES, ".webp", ".jp2", ".j2k", ".jpx", ".gif", ".jfif", ".heic",
        ".avif", ".jxl", ".lsm", ".stk", ".btf", ".exr", ".pgm", ".ppm", ".pnm", ".fits", ".mrc", ".nef", ".cr2",
        ".dng",
    }
)  # fmt: skip
"""Suffixes of files that could be images; those that are not taken from a folder are counted."""
_CLUTTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"})
_logger = logging.getLogger(__name__)
_WILDCARDS = "*?["


def find_images(
    inputs: Sequence[str | Path], suffixes: Collection[str] = SUFFIXES
) -> list[tuple[Path | str, str]]:
    """Path (or address) of each image named by ``inputs``, and its name for the results.

    Inputs are files, folders that are searched at every depth for ``suffixes`` (lower case), and patterns with
    ``*``, ``**`` or ``?``; each on this machine or an address that fsspec knows, such as ``s3://bucket/folder``.
    The name is the POSIX path below the folder that was searched, of a pattern below the part before its first
    wildcard. Sorted within each input. Raises InputError if an input is not there, nothing was found, or two images
    have one name.
    """
    found: dict[str, Path | str] = {}
    for given in inputs:
        for name, path in _remote(str(given), suffixes) if is_url(given) else _local(Path(given), suffixes):
            if found.setdefault(name, path) != path:
                raise InputError(
                    f"--input: {found[name]} and {path} have the same name {name}; predict them apart"
                )
    if not found:
        raise InputError(
            f"--input: no image ({', '.join(sorted(suffixes))}) in {', '.join(str(given) for given in inputs)}"
        )
    return [(path, name) for name, path in found.items()]


def is_clutter(path: PurePath | str) -> bool:
    """Whether a path, relative to the folder searched, is what systems leave: hidden files, ``._name``,
    ``__MACOSX``, ``Thumbs.db``.
    """
    return any(part.startswith(".") or part.lower() in _CLUTTER for part in PurePath(path).parts)


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Files in a folder at every depth with ``suffixes`` (lower case), sorted, without clutter."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes and not is_clutter(path.relative_to(folder)) and path.is_file()
    )


def report_passed_by(names: Iterable[PurePath | str], suffixes: Collection[str], where: str) -> None:
    """Log one line about files ``where`` that could be images and are not read, by suffix; ``suffixes`` are those
    that are.
    """
    passed = Counter(
        suffix
        for name in names
        if not is_clutter(name) and (suffix := PurePath(name).suffix.lower()) in OTHER_IMAGES - set(suffixes)
    )
    if passed:
        listing = ", ".join(f"{suffix} {count}" for suffix, count in sorted(passed.items()))
        _logger.warning(
            "%s: %d files passed by: %s; read are %s",
            where,
            passed.total(),
            listing,
            ", ".join(sorted(suffixes)),
        )


def _local(given: Path, suffixes: Collection[str]) -> Iterator[tuple[str, Path]]:
    if given.is_dir():
        folder, files = given, [path for path in given.rglob("*") if path.is_file()]
        paths = sorted(
            p for p in files if p.suffix.lower() in suffixes and not is_clutter(p.relative_to(folder))
        )
        report_passed_by([path.relative_to(folder) for path in files], suffixes, str(given))
    elif given.is_file():
        paths, folder = [given], given.parent
    elif (folder := _fixed_part(given)) != given:
        paths = sorted(
            p for p in folder.glob(str(given.relative_to(folder))) if p.is_file() and not is_clutter(p.name)
        )
        if not paths:
            raise InputError(f"--input: no file is named like {given}")
    else:
        raise InputError(f"--input: {given} is neither a file nor a folder")
    return ((path.relative_to(folder).as_posix(), path) for path in paths)


def _fixed_part(pattern: Path) -> Path:
    """What stands before the first part of a path that holds a wildcard; the path itself if none does."""
    for parent in [*reversed(pattern.parents), pattern]:
        if any(wildcard in parent.name for wildcard in _WILDCARDS):
            return parent.parent
    return pattern


def _remote(given: str, suffixes: Collection[str]) -> Iterator[tuple[str, str]]:
    filesystem, place = open_filesystem(given)
    if filesystem.isfile(place):
        paths, folder = [place], posixpath.dirname(place)
    elif filesystem.isdir(place):
        folder, files = place, {p: posixpath.relpath(p, place) for p in filesystem.find(place)}
        paths = [
            p for p, name in files.items() if PurePath(p).suffix.lower() in suffixes and not is_clutter(name)
        ]
        report_passed_by(files.values(), suffixes, given)
    else:
        folder = str(_fixed_part(Path(place)))
        paths = filesystem.glob(place) if folder != place else []
        if not paths:
            raise InputError(f"--input: {given} is neither a file nor a folder, and no file is named like it")
    return (
        (posixpath.relpath(path, folder), str(filesystem.unstrip_protocol(path))) for path in sorted(paths)
    )
