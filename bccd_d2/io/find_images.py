"""Finds the images of a prediction."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from bccd_d2.errors import InputError
from bccd_d2.io.storage import is_url, open_filesystem

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})

_WILDCARDS = "*?["


def find_images(
    inputs: Sequence[str | Path], suffixes: Collection[str] = SUFFIXES
) -> list[tuple[Path | str, str]]:
    """Image files named by ``inputs``.

    Args:
        inputs: files, folders that are searched at every depth, and patterns with ``*``, ``**`` or ``?`` that files
            are taken by; each on this machine or an address that fsspec knows, such as ``s3://bucket/folder``.
        suffixes: of the files that are taken from a folder, in lower case.

    Returns:
        Path (or address) of each image, and its name for the results: its file name, or its POSIX path below the
        folder it was found in, which for a pattern is the part before its first wildcard. Sorted within each input.

    Raises:
        InputError: an input is not there, nothing was found, or two images have one name.
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


def _local(given: Path, suffixes: Collection[str]) -> Iterator[tuple[str, Path]]:
    if given.is_dir():
        paths = sorted(p for p in given.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
        folder = given
    elif given.is_file():
        paths, folder = [given], given.parent
    elif (folder := _fixed_part(given)) != given:
        paths = sorted(p for p in folder.glob(str(given.relative_to(folder))) if p.is_file())
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
        paths = [p for p in filesystem.find(place) if posixpath.splitext(p)[1].lower() in suffixes]
        folder = place
    else:
        folder = str(_fixed_part(Path(place)))
        paths = filesystem.glob(place) if folder != place else []
        if not paths:
            raise InputError(f"--input: {given} is neither a file nor a folder, and no file is named like it")
    return (
        (posixpath.relpath(path, folder), str(filesystem.unstrip_protocol(path))) for path in sorted(paths)
    )
