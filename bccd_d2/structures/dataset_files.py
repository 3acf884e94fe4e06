"""From the name of a data set to its COCO JSON.

A root holds ``annotations/instances_{train,val,test}.json``, the data sets ``bccd_train``, ``bccd_val`` and
``bccd_test``; or one folder per source with the same files, the data sets ``FOLDER_train`` and so on; or both.
"""

from __future__ import annotations

import os
from pathlib import Path

from bccd_d2.errors import InputError

PARTS = ("train", "val", "test")  # what a data set is split into; each has a COCO JSON of its own
ROOT_SOURCE = "bccd"  # of the data sets whose files lie in the root itself


def default_root() -> Path:
    """``bccd`` below ``$DETECTRON2_DATASETS``, or below ``datasets`` in the working directory when it is not set."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / "bccd"


def annotation_file(folder: Path, part: str) -> Path:
    """Path of the COCO JSON of ``part`` in the folder of one source."""
    return folder / "annotations" / f"instances_{part}.json"


def dataset_files(root: Path, root_source: str = ROOT_SOURCE) -> dict[str, Path]:
    """COCO JSON files below ``root`` by the name of their data set: those of the root itself, then of its folders.

    Raises InputError where there is none.
    """
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []
    found: dict[str, Path] = {}
    for source, folder in [(root_source, root), *((folder.name, folder) for folder in folders)]:
        for part in PARTS:
            file = annotation_file(folder, part)
            if file.is_file():
                found.setdefault(f"{source}_{part}", file)
    if not found:
        raise InputError(
            f"{root}: expected annotations/instances_train.json (or val, test) in it or in its folders, found none; "
            "--data-root is a folder that tools/convert_bccd.py wrote"
        )
    return found


def dataset_file(root: Path, name: str) -> Path:
    """The COCO JSON of one data set; of those of the root itself the part, such as ``val``, is name enough.

    Raises InputError where it is not there.
    """
    files = dataset_files(root)
    file = files.get(name) or files.get(f"{ROOT_SOURCE}_{name}") or annotation_file(root, name)
    if not file.is_file():
        raise InputError(f"{root}: found the data sets {', '.join(files)}, expected {name}")
    return file
