"""COCO instance JSON: read, and written as it is made."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, cast

from bccd_d2.errors import InputError
from bccd_d2.files import read_json
from bccd_d2.structures.coco_repair import log_repairs, refuse_faults, repair_coco

logger = logging.getLogger(__name__)


def read_coco(path: Path | str) -> dict[str, Any]:
    """Read a COCO instance document; what annotation tools are known to get wrong is repaired, and said in the log.

    In the document returned ids are whole numbers, each once; every annotation has a box, an area, ``iscrowd``, and
    an outline of at least one pixel that decodes to the size of its image. The file is checked once per process: until
    it changes, later calls return copies of the document. Raises InputError with a list of all faults that cannot be
    repaired, or for a file that is no JSON.
    """
    digest = hashlib.blake2b(Path(path).read_bytes()).digest() if Path(path).is_file() else b""
    return cast("dict[str, Any]", pickle.loads(_checked(str(path), digest)))


@functools.lru_cache(maxsize=32)
def _checked(path: str, digest: bytes) -> bytes:
    """The document of a file with this ``digest``, pickled: a caller's changes stay its own, and forked workers do not
    copy it by counting references.
    """
    document, repairs, faults = repair_coco(read_json(path))
    log_repairs(path, repairs)
    refuse_faults(path, faults)
    return pickle.dumps(document, pickle.HIGHEST_PROTOCOL)


def unlabeled_categories(document: Mapping[str, Any], image: Mapping[str, Any], where: str) -> list[str]:
    """Names of the classes that are not annotated in an image, or not completely; what the image says wins over
    ``info``. Raises InputError where that is no list of names of categories.
    """
    listed = [category["name"] for category in document["categories"]]
    names = {**(document.get("info") or {}), **image}.get("unlabeled_categories", [])
    if not isinstance(names, list) or not all(name in listed for name in names):
        raise InputError(
            f"{where}, image {image.get('file_name')!r}: unlabeled_categories {names!r}, expected a list of names "
            f"among {', '.join(listed)}"
        )
    return names


def subset(document: Mapping[str, Any], images: Sequence[Mapping[str, Any]], root: Path) -> dict[str, Any]:
    """A COCO document with ``images``, whose file names are relative to ``root``, and their annotations alone."""
    kept = {image["id"] for image in images}
    annotations = [one for one in document["annotations"] if one["image_id"] in kept]
    info = {**document.get("info", {}), "image_root": str(root.resolve())}
    return {**document, "info": info, "images": images, "annotations": annotations}


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class CocoWriter:
    """A COCO document whose annotations go to the file at once, so that memory does not grow with their number.

    A context manager. The file is valid JSON only once the block has ended, so write to a place that is not read yet.
    """

    def __init__(self, path: Path, info: Mapping[str, Any], categories: Sequence[Mapping[str, Any]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w", encoding="utf-8")
        self._images: list[str] = []
        self._separator = "\n"
        self._file.write(f'{{"info":{_dump(info)},\n"categories":{_dump(categories)},\n"annotations":[')

    def add(self, image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> None:
        """Add an image and its annotations, ids included."""
        self._images.append(_dump(image))
        for annotation in annotations:
            self._file.write(self._separator + _dump(annotation))
            self._separator = ",\n"

    def __enter__(self) -> CocoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._file.write('],\n"images":[\n' + ",\n".join(self._images) + "]}\n")
