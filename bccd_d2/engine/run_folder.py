"""The folder of a run: only one run at a time, and run.json, which says what was run on what."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from bccd_d2.errors import InputError
from bccd_d2.files import write_json

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
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock file; the system releases it when the process ends, however it ends.

    Args:
        folder: is made where it is missing.

    Raises:
        InputError: another process holds it.
    """
    import fcntl  # not on Windows, where Detectron2 does not run either

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise InputError(
                f"OUTPUT_DIR: {folder} is in use by {file.read().strip() or 'another run'}; wait for it, or give this "
                "run another one with 'OUTPUT_DIR FOLDER'"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def refuse_mixing(folder: Path, resume: bool) -> None:
    """A new training does not go into the folder of an old one, whose checkpoints and metrics it would mix with.

    Raises:
        InputError: ``folder`` holds a training and ``resume`` is false.
    """
    if not resume and (folder / "last_checkpoint").is_file():
        raise InputError(
            f"OUTPUT_DIR: {folder} holds a training already; go on with --resume, or give another folder"
        )


def record_run(folder: Path, seed: int, annotations: dict[str, Path], resumed: bool) -> dict[str, Any]:
    """Write run.json: seed, SHA-256 of the annotation files, commit, versions and command line.

    Args:
        folder: ``OUTPUT_DIR``.
        seed: of the run.
        annotations: the JSON file by the name of the data set.
        resumed: whether a training goes on, whose data must be the same.

    Returns:
        The content of the file.

    Raises:
        InputError: a training goes on with other annotations.
    """
    path = folder / "run.json"
    hashes = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in annotations.items()}
    if resumed and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))["annotations"]
        for name, value in hashes.items():
            if before.get(name, value) != value:
                raise InputError(
                    f"{annotations[name]} is not the file that {folder} was trained on: expected SHA-256 "
                    f"{before[name][:12]}..., found {value[:12]}...; --resume goes on with the same data only"
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
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
