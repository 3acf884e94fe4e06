"""Finds and reads the images of a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

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


def read_image(path: Path) -> np.ndarray:
    """Read an image as (height, width, 3) uint8, BGR; greyscale, alpha and 16 bits are converted.

    Raises:
        InputError: the file is empty, truncated or no image.
    """
    data = np.fromfile(path, dtype=np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        raise InputError(f"{path}: cannot be decoded as an image ({error.err})") from error
    if image is None:
        raise InputError(f"{path}: expected an image, found {data.size} bytes that are none")
    return image
