"""Output folders that appear whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bccd_d2.conversion.pool import signals_held_back
from bccd_d2.errors import InputError
from bccd_d2.files import locked, naming

_PREFIX = ".unfinished-"


@contextmanager
def staged_output(out: Path, targets: Sequence[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder in ``out``; what is written there moves to ``out`` if the block ends well.

    Nobody else writes to ``out`` meanwhile. SIGINT and SIGTERM wait while the files are moved. What a killed process
    left unfinished is deleted.

    Args:
        out: output folder, made where missing (and removed again if the block fails and it was not there
            before).
        targets: paths relative to ``out`` that the block writes.
        overwrite: whether targets that exist are replaced.

    Raises:
        InputError: a target exists and ``overwrite`` is false, ``out`` is no folder, or another process writes to it.
        OSError: it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, expected an output folder")
    _refuse_to_replace(out, targets, overwrite)
    with locked(out, "--output"), naming(out):
        _refuse_to_replace(out, targets, overwrite)  # which another process may have written since
        for left in out.glob(f"{_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=out) as name:
            staging = Path(name)
            yield staging
            with signals_held_back():
                for path in sorted(staging.rglob("*")):
                    if path.is_file():
                        target = out / path.relative_to(staging)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        path.replace(target)


def _refuse_to_replace(out: Path, targets: Sequence[str], overwrite: bool) -> None:
    there = [name for name in targets if (out / name).exists()]
    if there and not overwrite:
        raise InputError(f"{out / there[0]}: exists already; give --overwrite to replace it")
