"""Files that others read, written whole or not at all; safe readers of JSON, XML, YAML and pickles; locked folders."""

from __future__ import annotations

import errno
import importlib.resources
import json
import logging
import os
import pickle
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

import yaml
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from bccd_d2.errors import InputError
from bccd_d2.system import at_fork, delete_locked, lock_file, move_into_place, signals_held_back

logger = logging.getLogger(__name__)
_UNFINISHED = ".unfinished-"
LOCK_FILE = ".lock"
_MAX_ALIASES = 20
_held: set[IO[str]] = set()
"""Files whose locks this process holds."""


def shipped_folder(name: str) -> Path:
    """Folder ``configs``, ``tools`` or ``weights``: inside the installed package, or beside it in a checkout."""
    package = Path(str(importlib.resources.files("bccd_d2")))
    return package / name if (package / name).is_dir() else package.parent / name


def shipped_file(path: str | Path) -> str:
    """``path``, or the shipped file of that name where nothing is there and it begins with configs/ or weights/."""
    folder, *rest = Path(path).parts or ("",)
    if folder in ("configs", "weights") and not Path(path).exists():
        shipped = shipped_folder(folder).joinpath(*rest)
        return str(shipped if shipped.is_file() else path)
    return str(path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the file system that does not say where, such as that of a full disk, say ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to, and move it into place when the block ends without an error.

    Its folder is made, the suffix stays. A crash or an error leaves the old file, or none; never a half-written one.
    Raises OSError, which names ``path``, where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        move_into_place(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def clear_partial(folder: Path) -> None:
    """Delete what :func:`replacing` had to leave in a folder when its process was killed; nobody may be writing."""
    for path in folder.glob(".*.partial*"):
        path.unlink(missing_ok=True)


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write ``content`` as JSON, whole or not at all; NaN is refused because no JSON reader must accept it."""
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False), encoding="utf-8"
        )


def read_json(path: Path | str) -> Any:
    """Read JSON in UTF-8 or UTF-16, with a byte order mark or without, or in the cp1252 of Windows. Raises InputError
    where there is none.
    """
    try:
        content = Path(path).read_bytes()
        try:
            return json.loads(content)
        except UnicodeDecodeError:
            document = json.loads(content.decode("cp1252"))
            logger.warning("%s: not UTF-8, read as cp1252", path)
            return document
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    # ValueError: no JSON, no UTF-8, or a number of 10,000 digits
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error


def read_xml(path: Path, expected: str) -> Element:
    """Root of an XML file, which messages call ``expected``. Raises InputError for a file that is empty, no XML, or
    declares entities (which can expand to gigabytes).
    """
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty file, expected {expected}")
    try:
        root = parse(path, forbid_dtd=False).getroot()
    except DefusedXmlException as error:
        raise InputError(
            f"{path}: XML that declares entities or fetches files, refused ({error!r})"
        ) from error
    except (ParseError, ValueError, LookupError) as error:  # the last two: unknown encodings
        raise InputError(f"{path}: not XML ({error})") from error
    if root is None:
        raise InputError(f"{path}: nothing at the top, expected {expected}")
    return root


def read_lines(path: Path, expected: str) -> list[str]:
    """Lines of a text file in UTF-8, a byte order mark left out; InputError, which says what was ``expected``."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, expected {expected}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error}), expected {expected}") from error


_ARRAY_BUILDERS = {
    *(("numpy", name) for name in ("ndarray", "dtype")),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    *((builtins, "bytes") for builtins in ("builtins", "__builtin__")),
    ("_codecs", "encode"),  # how Python 3 pickles the bytes of an array for Python 2
    ("collections", "OrderedDict"),
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle without running what its author wrote: builds NumPy arrays in plain containers, and text of paths;
    raises pickle.UnpicklingError, "GLOBAL name", for anything else.
    """

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may call."""
        if module.startswith("pathlib") and name.endswith("Path"):
            return _as_text
        if (module, name) not in _ARRAY_BUILDERS:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return super().find_class(module, name)


def _as_text(*parts: str) -> str:
    return "/".join(map(str, parts))


class _YamlLoader(yaml.SafeLoader):
    """Refuses aliases beyond a few: ten lines of ten each stand for 10^10 values."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > _MAX_ALIASES:
                raise yaml.YAMLError(f"more than {_MAX_ALIASES} aliases")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


def read_yaml(path: Path) -> Any:
    """Read YAML of plain values in UTF-8; InputError for other content, such as Python objects or endless nesting."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _YamlLoader)
        json.dumps(content, default=str)  # fails on a value that contains itself
    # Beside YAML's own: not UTF-8, an impossible date, a number of 10,000 digits, nesting too deep.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: not YAML ({error})") from error
    return content


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold a folder, so that no second process writes to it; the system releases it however the process ends.

    It is made where it is missing, and removed at the end if it was and nothing came into it. Raises InputError where
    another process holds it; the message names the option or key ``name`` that chose the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    path = folder / LOCK_FILE
    folder.mkdir(parents=True, exist_ok=True)
    try:
        while True:
            with path.open("a+", encoding="utf-8") as file:
                try:
                    lock_file(file)
                except BlockingIOError as error:
                    file.seek(0)
                    raise InputError(
                        f"{name}: {folder} is in use by {file.read().strip() or 'another run'}; wait for it, or give "
                        f"this run another folder with {name}"
                    ) from error
                if not _is_at(path, file.fileno()):
                    continue  # its last holder has deleted it since it was opened
                _held.add(file)
                try:
                    with suppress(OSError):  # a full disk; who holds the folder is told to people only
                        os.ftruncate(file.fileno(), 0)
                        os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
                    yield
                finally:
                    _held.discard(file)
                    delete_locked(file, path)
                return
    finally:
        for parent in made:
            with suppress(OSError):  # there is something in it
                parent.rmdir()


def _leave_locks() -> None:
    """In a forked process, such as one that loads data: else it would hold its parent's locks when that is killed."""
    for file in _held:
        file.close()
    _held.clear()


at_fork(after_in_child=_leave_locks)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one at ``path``."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def staged_output(out: Path, targets: Sequence[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder in ``out``; what is written there moves to ``out`` if the block ends well.

    No other process writes to ``out`` meanwhile. SIGINT and SIGTERM wait while the files are moved. What a killed
    process left unfinished is deleted, and a folder that was made for a block that fails. Raises InputError where one
    of ``targets``, paths relative to ``out``, exists and ``overwrite`` is not set, ``out`` is no folder, or another
    process writes to it.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, expected an output folder")
    _refuse_to_replace(out, targets, overwrite)
    with locked(out, "--output"), naming(out):
        _refuse_to_replace(out, targets, overwrite)  # which another process may have written since
        for left in out.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=out) as name:
            staging = Path(name)
            yield staging
            with signals_held_back():
                for path in sorted(staging.rglob("*")):
                    if path.is_file():
                        target = out / path.relative_to(staging)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        move_into_place(path, target)


def _refuse_to_replace(out: Path, targets: Sequence[str], overwrite: bool) -> None:
    there = [name for name in targets if (out / name).exists()]
    if there and not overwrite:
        raise InputError(f"{out / there[0]}: exists already; give --overwrite to replace it")
