"""What differs between Linux, macOS and Windows: signals, locks, forks, and the replacing of files in use.

No other module imports ``signal``, ``fcntl`` or ``msvcrt``, forks, or asks which system it runs on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

Handler = Callable[[int, "FrameType | None"], Any]
WINDOWS = sys.platform == "win32"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what ``kill`` and schedulers send."""
# Windows locks a range of bytes, which nobody else can read then: one far behind the content.
_LOCKED_BYTE = 2**30
# Windows replaces no file that is open elsewhere; virus scanners and indexers open a new file for moments.
_SECONDS_IN_USE, _SECONDS_BETWEEN = 2.0, 0.05


def receive_stop_signals(handler: Handler) -> dict[int, Any]:
    """Let ``handler`` receive :data:`STOP_SIGNALS`; returns what did before, for :func:`restore_signals`.

    Raises ValueError outside the main thread, which alone receives signals.
    """
    return {number: signal.signal(number, handler) for number in STOP_SIGNALS}


def restore_signals(handlers: Mapping[int, Any]) -> None:
    """Undo :func:`receive_stop_signals`."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def raise_signal(number: int) -> None:
    """Send a signal to this process."""
    signal.raise_signal(number)


def signal_name(number: int) -> str:
    """Such as ``"SIGINT"``."""
    return signal.Signals(number).name


def terminate_like_interrupt() -> None:
    """Let SIGTERM raise ``KeyboardInterrupt``, as Ctrl-C does, so that unfinished files are cleared away."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pass_on(number: int, process: int) -> None:
    """Send a signal to a child process; on Windows Ctrl-C has reached it already, and SIGTERM ends it at once."""
    if not (WINDOWS and number == signal.SIGINT):
        os.kill(process, number)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Deliver :data:`STOP_SIGNALS` when the block ends.

    Files that belong together are moved inside such a block, and workers started: submitting starts threads and
    processes, and a pool that is interrupted half-way through that can neither go on nor be shut down. Processes that
    are started inside the block hold both signals back, until :func:`leave_interrupts_to_parent`.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone receives signals
        yield
        return
    received: list[int] = []
    previous = receive_stop_signals(lambda number, _frame: received.append(number))
    _mask("SIG_BLOCK")
    try:
        yield
    finally:
        _mask("SIG_UNBLOCK")
        restore_signals(previous)
        for number in received:
            signal.raise_signal(number)


def leave_interrupts_to_parent() -> None:
    """In a worker: Ctrl-C reaches all processes of a terminal, and the first one ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _mask("SIG_UNBLOCK")


def leave_stop_to_parent(seconds: int) -> None:
    """In a worker that its parent ends: ignore Ctrl-C, and let SIGTERM end this process after ``seconds`` only.

    Schedulers and ``timeout`` send SIGTERM to all processes of a job, and the parent needs its workers until it has
    stopped. On Windows no such signal comes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(seconds))


def _mask(how: str) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(getattr(signal, how), STOP_SIGNALS)


def at_fork(**functions: Callable[[], None]) -> None:
    """Call functions when this process forks: ``before``, ``after_in_parent``, ``after_in_child``."""
    if hasattr(os, "register_at_fork"):  # Windows has no forks
        os.register_at_fork(**functions)


def lock_file(file: IO[str]) -> None:
    """Lock an open file until this process ends, however it does; BlockingIOError where another holds it."""
    if sys.platform == "win32":
        file.seek(_LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from error
        finally:
            file.seek(0)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def delete_locked(file: IO[str], path: Path) -> None:
    """Close a locked file and delete it, without deleting what another process has locked meanwhile."""
    if WINDOWS:  # which deletes no open file: neither this one, nor another process's
        file.close()
    with suppress(OSError):
        path.unlink()
    file.close()


def move_into_place(source: Path, target: Path) -> None:
    """Move a file over another in one step; OSError on Windows also if another program keeps ``target`` open."""
    end = time.monotonic() + _SECONDS_IN_USE
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if not WINDOWS or time.monotonic() > end:
                raise
            time.sleep(_SECONDS_BETWEEN)
