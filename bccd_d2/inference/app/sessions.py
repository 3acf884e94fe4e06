"""Who uses the page: sessions with a folder and fields of their own, their limits, and the thread that predicts."""

from __future__ import annotations

import logging
import lzma
import math
import re
import secrets
import shutil
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath

from bccd_d2.cell_types.typer import CellTyper
from bccd_d2.errors import InputError
from bccd_d2.inference.app.fields import Field
from bccd_d2.inference.finder import CellFinder
from bccd_d2.io.find_images import is_clutter
from bccd_d2.io.images import page_count, page_name

_CHUNK = 2**20
_LONGEST_PART, _LONGEST_NAME = 100, 150  # in characters; in bytes, as names of results are longer


class LimitError(InputError):
    """Too much of something: files, sessions, requests."""


@dataclass(frozen=True)
class Limits:
    """What the page accepts."""

    megabytes: float = 50  # of an image file, also of one in a zip
    megapixels: float = 40  # of an image
    fields: int = 200  # of a session
    session_megabytes: float = 1000  # of the files of a session, unpacked; also of a zip
    sessions: int = 32  # of all clients
    sessions_per_client: int = 8  # of one address
    requests_per_minute: int = 1200  # of one address; a quarter of them may come at once
    minutes_kept: float = 60  # of a session that is not used

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise InputError(f"{name}: expected a number above 0, found {value}")


class Session:
    """What one client has uploaded into ``folder``."""

    def __init__(self, client: str, folder: Path, limits: Limits) -> None:
        self.key = secrets.token_urlsafe(32)  # unguessable, known to the client alone
        self.client, self.folder, self.limits = client, folder, limits
        self.fields: dict[int, Field] = {}  # by number, in the order of the upload
        self.used = time.monotonic()
        self.served = 0.0  # when one of its fields was last predicted
        self._lock = threading.Lock()
        self._bytes, self._next = 0, 1

    def new_folder(self) -> Path:
        """An empty folder for one uploaded file."""
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(parents=True)
        return folder

    @staticmethod
    def discard(file: Path) -> None:
        """Delete an uploaded file with its folder."""
        shutil.rmtree(file.parent, ignore_errors=True)

    def add(self, file: Path, name: str) -> list[int]:
        """Add the pages of an uploaded image, or of the images of a zip; numbers of the new fields.

        ``file`` lies alone in a :meth:`new_folder`, ``name`` is what the client calls it. A file that is no image has
        one field, which says so when its turn comes. Raises :class:`InputError` for a zip that is damaged, encrypted,
        empty or too large or holds a zip, :class:`LimitError` for too many fields or bytes; the file is deleted then.
        """
        try:
            parts = list(self._unpack(file)) if _is_zip(file) else [(file, name)]
            pages = [_pages(part) for part, _ in parts]
            size = sum(part.stat().st_size for part, _ in parts)
            with self._lock:
                limits = self.limits
                if len(self.fields) + sum(pages) > limits.fields:
                    raise LimitError(f"this page accepts {limits.fields} fields at a time: remove some first")
                if self._bytes + size > limits.session_megabytes * 1e6:
                    raise LimitError(
                        f"this page keeps {limits.session_megabytes:g} MB at a time: remove some fields first"
                    )
                self._bytes += size
                first = self._next
                for (part, part_name), number in zip(parts, pages):
                    for page, field_name in enumerate(self._free_names(clean_name(part_name), number)):
                        which = page if number > 1 else None
                        self.fields[self._next] = Field(field_name, part, which, limits.megapixels)
                        self._next += 1
                return list(range(first, self._next))
        except (InputError, OSError):
            self.discard(file)
            raise

    def _free_names(self, stem: str, pages: int) -> list[str]:
        """Names of the pages of a file that no other field has, in whatever case: files are named so."""
        taken = {field.name.lower() for field in self.fields.values()}
        for number in count(1):
            free = stem if number == 1 else f"{stem} ({number})"
            names = [page_name(free, page, pages) for page in range(pages)]
            if taken.isdisjoint(name.lower() for name in names):
                break
        return names

    def _unpack(self, file: Path) -> Iterator[tuple[Path, str]]:
        """Path and name of each file of a zip. What its table says of sizes is not believed: the bytes are counted."""
        limits, left = self.limits, self.limits.session_megabytes * 1e6
        try:
            with zipfile.ZipFile(file) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
                for entry in entries:
                    if ".." in PurePosixPath(entry.filename).parts:
                        raise InputError(f"{entry.filename}: a path out of the zip")
                inner = [entry for entry in entries if not is_clutter(entry.filename)]
                if not inner:
                    raise InputError("the zip holds no files")
                if len(inner) > limits.fields:
                    raise LimitError(
                        f"the zip holds {len(inner)} files, this page accepts {limits.fields} fields"
                    )
                for index, entry in enumerate(inner):
                    part = file.parent / str(index) / f"image{safe_suffix(entry.filename)}"
                    part.parent.mkdir()
                    most = round(min(left, limits.megabytes * 1e6))
                    with archive.open(entry) as source, part.open("wb") as target:
                        while (chunk := source.read(_CHUNK)) and target.tell() <= most:
                            target.write(chunk)
                        size = target.tell()
                    if size > most:
                        raise LimitError(
                            f"{entry.filename}: this page accepts images of {limits.megabytes:g} MB, and "
                            f"{limits.session_megabytes:g} MB in a zip"
                        )
                    left -= size
                    if _is_zip(part):
                        raise InputError(f"{entry.filename}: a zip in a zip; expected images")
                    yield part, entry.filename
        # A RuntimeError says that it is encrypted.
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError) as error:
            raise InputError(f"the zip cannot be read ({error})") from error
        file.unlink()

    def remove(self, number: int) -> None:
        """Remove a field, if it is still there, with its files."""
        with self._lock:
            field = self.fields.pop(number, None)
            if field is None:
                return
            field.removed = True
            if all(other.file != field.file for other in self.fields.values()):
                if field.file.exists():
                    self._bytes -= field.file.stat().st_size
                self.discard(field.file)

    def delete(self) -> None:
        """Remove everything."""
        for number in list(self.fields):
            self.remove(number)
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_zip(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _pages(file: Path) -> int:
    try:
        return max(1, page_count(file))
    except (InputError, OSError):
        return 1


def clean_name(name: str) -> str:
    """A file name for all systems without its suffix, folders in front of it; never one that leads elsewhere."""
    parts = PurePosixPath(name.replace("\\", "/")).with_suffix("").parts if name.strip("./\\ ") else ()
    clean = [re.sub(r"[^\w\-+()., ]", "_", part)[:_LONGEST_PART].strip(". ") for part in parts[-3:]]
    name = " - ".join(part for part in clean if part)
    return name.encode()[-_LONGEST_NAME:].decode(errors="ignore").strip(". ") or "image"


def safe_suffix(name: str) -> str:
    """Suffix of a file name, in lower case; empty where it is no ordinary one."""
    suffix = PurePosixPath(name.replace("\\", "/")).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ""


class Sessions:
    """All sessions; their files lie in ``folder``."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self._sessions: dict[str, Session] = {}
        self._changed = threading.Condition()

    def get(self, key: str | None) -> Session | None:
        """The session with this key, used now."""
        session = self._sessions.get(key or "")
        if session is not None:
            session.used = time.monotonic()
        return session

    def create(self, client: str) -> Session:
        """A new session; a :class:`LimitError` if there are too many with fields, of this client or of all."""
        with self._changed:
            for own, most in ((True, self.limits.sessions_per_client), (False, self.limits.sessions)):
                found = [one for one in self._sessions.values() if not own or one.client == client]
                if len(found) >= most:
                    idle = [session for session in found if not session.fields]
                    if not idle:
                        raise LimitError("too many people use this page now; try again later")
                    self.drop(min(idle, key=lambda session: session.used))
            session = Session(client, self.folder / secrets.token_hex(8), self.limits)
            self._sessions[session.key] = session
            return session

    def drop(self, session: Session) -> None:
        """End a session and delete its files."""
        with self._changed:
            self._sessions.pop(session.key, None)
        session.delete()

    def expire(self) -> None:
        """End the sessions that were not used for as long as the limits say."""
        oldest = time.monotonic() - 60 * self.limits.minutes_kept
        with self._changed:
            old = [session for session in self._sessions.values() if session.used < oldest]
        for session in old:
            self.drop(session)

    def notify(self) -> None:
        """Tell :meth:`next_field` that there are new fields."""
        with self._changed:
            self._changed.notify()

    def next_field(self, seconds: float) -> Field | None:
        """The next field to predict: of the session that was served longest ago; ``None`` after a time without any."""
        with self._changed:
            field = self._take()
            if field is None:
                self._changed.wait(seconds)
                field = self._take()
            return field

    def _take(self) -> Field | None:
        for session in sorted(self._sessions.values(), key=lambda session: session.served):
            for field in list(session.fields.values()):
                if field.state == "waiting":
                    session.served = session.used = time.monotonic()
                    field.state = "running"
                    return field
        return None


class RemovedError(Exception):
    """A field was removed while it was predicted."""


class PredictionThread(threading.Thread):
    """Predicts the fields of all sessions, one after the other; without ``typer`` cells have no types.

    The predictor's score threshold should be :data:`bccd_d2.inference.app.fields.LOWEST_THRESHOLD`.
    """

    def __init__(self, sessions: Sessions, predictor: CellFinder, typer: CellTyper | None) -> None:
        super().__init__(daemon=True, name="prediction")
        self.sessions, self.predictor, self.typer = sessions, predictor, typer
        self._stop_asked = threading.Event()

    def stop(self) -> None:
        """End after the field that is being predicted."""
        self._stop_asked.set()
        self.sessions.notify()

    def run(self) -> None:
        """Predict until :meth:`stop`."""
        while not self._stop_asked.is_set():
            field = self.sessions.next_field(1.0)
            if field is not None:
                self._predict(field)

    def _predict(self, field: Field) -> None:
        def progress(done: int, tiles: int) -> None:
            field.progress = done / tiles
            if field.removed:
                raise RemovedError

        try:
            field.predict(self.predictor, self.typer, progress)
            field.state = "done"
            return
        except RemovedError:
            return
        except (InputError, OSError) as error:
            field.error = str(error)
        except MemoryError:
            field.error = f"{field.name}: not enough memory"
        except Exception:
            # The next visitor must not wait for a thread that has ended.
            logging.getLogger(__name__).exception("%s: prediction failed", field.name)
            field.error = f"{field.name}: the prediction failed; the server's log says why"
        field.state = "failed"
