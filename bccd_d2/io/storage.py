"""Folders on this machine or in a bucket, by one set of calls."""

from __future__ import annotations

import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from bccd_d2.errors import InputError
from bccd_d2.files import locked, naming
from bccd_d2.system import move_into_place

# Below an output folder, for files that are not whole yet.
_PARTIAL = ".partial"


def is_url(path: str | Path) -> bool:
    """Whether a path names a file system, such as ``s3://bucket/folder``, and not a place on this machine."""
    return "://" in str(path)


def open_filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of an address or a path of this machine, and the path on it. Raises InputError where
    no package for this kind of address is installed.
    """
    if not is_url(url):
        return LocalFileSystem(), Path(url).absolute().as_posix()
    try:
        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url}: this kind of address cannot be used ({error})") from error


@contextmanager
def local_copy(path: str | Path) -> Iterator[Path]:
    """A path on this machine with the content of ``path``: itself, or a copy that is deleted again, as image
    readers need a file they can move about in.
    """
    if not is_url(path):
        yield Path(path)
        return
    filesystem, remote = open_filesystem(str(path))
    if isinstance(filesystem, LocalFileSystem):
        yield Path(remote)
        return
    with tempfile.TemporaryDirectory(prefix="bccd_d2-") as folder:
        copy = Path(folder) / posixpath.basename(remote)
        filesystem.get_file(remote, str(copy))
        try:
            yield copy
        except InputError as error:
            raise InputError(str(error).replace(str(copy), str(path))) from error


def fingerprint(path: str | Path) -> str:
    """Size and time of the last change of a file in words; another text means another file."""
    filesystem, remote = open_filesystem(str(path))
    size = filesystem.info(remote)["size"]
    try:
        changed = filesystem.modified(remote).isoformat()
    except (NotImplementedError, KeyError):
        changed = "an unknown time"
    return f"{size} bytes of {changed}"


@dataclass(frozen=True)
class Storage:
    """A folder that files are published to, whole or not at all.

    A file is written on this machine first and moved into place; on an object store the upload is that move, since
    nothing is seen there before it is whole.
    """

    url: str  # of the folder: a path, or an address that fsspec knows

    def _locate(self, name: str) -> tuple[Any, str]:
        filesystem, root = open_filesystem(self.url)
        return filesystem, posixpath.join(root, name) if name else root

    @property
    def local_root(self) -> Path | None:
        """The folder, if it is on this machine."""
        filesystem, root = self._locate("")
        return Path(root) if isinstance(filesystem, LocalFileSystem) else None

    def path(self, name: str) -> str:
        """How messages and other programs call a file of the folder."""
        return posixpath.join(self.url, name)

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        filesystem, path = self._locate(name)
        return bool(filesystem.isfile(path))

    def read(self, name: str) -> bytes | None:
        """Content of a file, ``None`` if it is not there."""
        filesystem, path = self._locate(name)
        try:
            return bytes(filesystem.cat_file(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def find(self, folder: str) -> list[str]:
        """Names of all files below a folder of this folder, sorted; none if it is not there."""
        filesystem, path = self._locate(folder)
        _, root = self._locate("")
        return sorted(posixpath.relpath(file, root) for file in filesystem.find(path))

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        filesystem, path = self._locate(name)
        if filesystem.isfile(path):
            filesystem.rm_file(path)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A new folder on this machine for files that :meth:`publish` moves; it is deleted with what is left in it."""
        root = self.local_root
        if root is not None:
            # On the same disk, so that moving is one step that either happens or not.
            (root / _PARTIAL).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=root / _PARTIAL if root is not None else None, prefix="bccd_d2-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, staged: Path, name: str) -> None:
        """Move a staged file into place; what was there is replaced."""
        filesystem, path = self._locate(name)
        if isinstance(filesystem, LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            move_into_place(staged, Path(path))
        else:
            filesystem.makedirs(posixpath.dirname(path), exist_ok=True)
            filesystem.put_file(str(staged), path)

    def write(self, name: str, fill: Callable[[Path], object]) -> str:
        """Let ``fill`` write a staged file, move it into place and return its :meth:`path`; an OSError says where."""
        with naming(Path(self.url)), self.staging() as folder:
            fill(folder / posixpath.basename(name))
            self.publish(folder / posixpath.basename(name), name)
        return self.path(name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, so that no second process writes to it (InputError); object stores know no such thing."""
        root = self.local_root
        with locked(root, "--output") if root is not None else nullcontext():
            yield

    def clear_staging(self) -> None:
        """Delete what processes that were killed have left half-written; no other process may be writing."""
        root = self.local_root
        if root is not None:
            shutil.rmtree(root / _PARTIAL, ignore_errors=True)
