"""Keeps decoded images, in memory or in a folder, up to a limit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bccd_d2.files import replacing


class MemoryCache:
    """Values by key, until they take ``limit`` bytes; then the cache stays as it is.

    Images are drawn evenly, so a full cache of a third of them serves a third of the draws. Making room for the
    latest, as least-recently-used caches do, would serve fewer, and none where they come in the same order again.

    Args:
        limit: bytes that all values together may take; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._values: dict[str, Any] = {}

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """The value of ``key``; made by ``make()``, whose result has an ``nbytes``, where it is not there."""
        if key in self._values:
            return self._values[key]
        value = make()
        if self.size + value.nbytes <= self.limit:
            self._values[key] = value
            self.size += value.nbytes
        return value


class FolderCache:
    """Decoded images as files of a folder, memory-mapped: a crop reads only the rows it needs.

    All loader processes, and later runs, share the folder, and the operating system keeps in memory what
    fits. Once the folder holds ``limit`` bytes nothing is added; an image file that changes counts as another
    one.

    Args:
        folder: made where it is not there.
        limit: bytes that its files together may take.
        variant: what beside the file's content decides the pixels, for example their colour order.
    """

    def __init__(self, folder: Path, limit: int, variant: str) -> None:
        self.folder, self.limit, self.variant = folder, limit, variant

    def get(self, key: str, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The image in file ``key``, read-only where it was cached, decoded by ``make()`` where not."""
        state = Path(key).stat()
        identity = f"{Path(key).resolve()} {state.st_size} {state.st_mtime_ns} {self.variant}"
        path = self.folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npy"
        if path.is_file():
            return np.load(path, mmap_mode="r")
        image = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        used = sum(file.stat().st_size for file in self.folder.glob("*.npy"))
        if used + image.nbytes <= self.limit:
            with replacing(path) as temporary:
                np.save(temporary, image)
        return image
