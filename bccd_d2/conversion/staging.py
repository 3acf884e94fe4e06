"""Output folders that appear whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bccd_d2.errors import InputError


@contextmanager
def staged_output(out: Path, targets: Sequence[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder in ``out``; what is written there moves to ``out`` if the block ends well.

    Args:
        out: output folder, made where missing (and removed again if the block fails and it was not there
            before).
        targets: paths relative to ``out`` that the block writes.
        overwrite: whether targets that exist are replaced.

    Raises:
        InputError: a target exists and ``overwrite`` is false, or ``out`` is not a folder.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, expected an output folder")
    there = [name for name in targets if (out / name).exists()]
    if there and not overwrite:
        raise InputError(f"{out / there[0]}: exists already; give --overwrite to replace it")
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=out) as name:
            staging = Path(name)
            yield staging
            for path in sorted(staging.rglob("*")):
                if path.is_file():
                    target = out / path.relative_to(staging)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
    except BaseException as error:
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            # A full disk does not say which.
            raise OSError(error.errno, error.strerror, str(out)) from error
        raise
