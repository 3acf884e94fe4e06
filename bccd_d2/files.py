"""Writing files that others read: whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, and move it into place when the block ends without an error.

    A crash or an error leaves the old file, or none; never a half-written one.

    Args:
        path: where the file shall be; its folder is made.

    Yields:
        A path in the same folder with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write ``content`` as JSON, whole or not at all; NaN is refused because no JSON reader must accept it."""
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False), encoding="utf-8"
        )
