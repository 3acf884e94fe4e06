"""Writes COCO JSON as it is made, so that memory does not grow with the number of instances."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class CocoWriter:
    """A COCO document whose annotations go to the file at once; a context manager.

    The file is valid JSON only once the block has ended, so write to a place nobody reads yet.

    Args:
        path: file to write; its folder is made.
        info: the document's ``info``.
        categories: the document's ``categories``.
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
