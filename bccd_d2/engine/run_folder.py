"""The folder of a run: what an earlier run left in it, and run.json, which says what was run on what."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from bccd_d2.errors import InputError
from bccd_d2.files import clear_partial, locked, naming, read_json, replacing, write_json

_PACKAGES = (
    "bccd_d2",
    "torch",
    "torchvision",
    "detectron2",
    "numpy",
    "opencv-python-headless",
    "albumentations",
)


@contextmanager
def run_folder(folder: Path) -> Iterator[Path]:
    """Hold the ``OUTPUT_DIR`` of a run (of several processes the first does), cleaned up after an earlier run.

    Raises InputError where another run holds it, OSError where it cannot be written; the error names a path.
    """
    if not comm.is_main_process():
        yield folder
        return
    with locked(folder, "OUTPUT_DIR"), naming(folder):
        clean_up(folder)
        yield folder


def clean_up(folder: Path) -> None:
    """Clean up what a run that was killed, or whose disk was full, has left in its folder, which must be locked.

    Half-written files that nobody reads are deleted, and of metrics.json, which is written line by line, a last line
    that is not whole.
    """
    for place in (folder, *(folder / "inference").glob("*/")):
        clear_partial(place)
    path = folder / "metrics.json"
    if path.is_file():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with replacing(path) as temporary:
                temporary.write_bytes(whole)


def refuse_mixing(folder: Path, resume: bool) -> None:
    """InputError for a new training in the folder of an old one, whose checkpoints and metrics it would mix with."""
    if not resume and (folder / "last_checkpoint").is_file():
        raise InputError(f"OUTPUT_DIR: {folder} holds a training already; give --resume or another folder")


def record_run(folder: Path, seed: int, annotations: dict[str, Path], resumed: bool) -> dict[str, Any]:
    """Write run.json, and return its content: seed, SHA-256 of the annotation files, commit, versions and command line.

    ``annotations`` are the JSON files by the name of the data set. Raises InputError where a training is ``resumed``
    with other annotations, or its record cannot be read.
    """
    path = folder / "run.json"
    hashes = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in annotations.items()}
    if resumed and path.is_file():
        record = read_json(path)
        before = record.get("annotations") if isinstance(record, dict) else None
        if not isinstance(before, dict):
            raise InputError(f"{path}: expected the record of a run with the key 'annotations', found none")
        for name, value in hashes.items():
            if before.get(name, value) != value:
                raise InputError(
                    f"{annotations[name]} is not the file that {folder} was trained on; --resume needs the same data"
                )
    content = {
        "seed": seed,
        "annotations": hashes,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "command": sys.argv,
        "resumed": resumed,
    }
    write_json(path, content, indent=2)
    return content


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of this repository, with "+" where files differ from it; None where there is no repository."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed, maybe inside somebody else's repository
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
