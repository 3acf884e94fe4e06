"""Finds the images of a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bccd_d2.errors import InputError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})


def find_images(inputs: Sequence[str | Path]) -> list[tuple[Path, str]]:
    """Image files named by ``inputs``.

    Args:
        inputs: files, and folders that are searched at every depth.

    Returns:
        Path of each image, and its name for the results: its file name, or its POSIX path below the folder it was found
        in. Sorted within each input.

    Raises:
        InputError: an input is not there, nothing was found, or two images have one name.
    """
    found: dict[str, Path] = {}
    for given in map(Path, inputs):
        if given.is_dir():
            paths = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            named = [(path.relative_to(given).as_posix(), path) for path in paths]
        elif given.is_file():
            named = [(given.name, given)]
        else:
            raise InputError(f"--input: {given} is neither a file nor a folder")
        for name, path in named:
            if found.setdefault(name, path) != path:
                raise InputError(
                    f"--input: {found[name]} and {path} have the same name {name}; predict them apart"
                )
    if not found:
        raise InputError(
            f"--input: no image ({', '.join(sorted(SUFFIXES))}) in {', '.join(str(given) for given in inputs)}"
        )
    return [(path, name) for name, path in found.items()]
