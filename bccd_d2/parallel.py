"""``map`` over processes, in order and with bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from tqdm import tqdm

from bccd_d2.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
AHEAD = 4
"""Items a process that are under way or wait to be taken: enough to keep all busy, few enough to stay small."""


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Results of ``function`` in the order of ``items``, computed by ``workers`` processes where more than one.

    Args:
        function: picklable, as are items and results.
        items: taken as results are taken, so that neither pile up.
        workers: processes; 1 computes in this one.

    Raises:
        InputError: ``workers`` is below 1, or a process died (out of memory, for instance).
    """
    if workers < 1:
        raise InputError(f"workers {workers}, expected at least 1")
    if workers == 1:
        yield from map(function, items)
        return
    # Spawned, not forked: a fork copies the locks of OpenCV's threads without the threads, and waits on them.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker)
    remaining = iter(items)
    waiting: deque[Future[Result]] = deque()

    def submit(count: int) -> None:
        for item in islice(remaining, count):
            with signals_held_back():
                waiting.append(pool.submit(function, item))

    try:
        submit(workers * AHEAD)
        while waiting:
            result = waiting.popleft().result()
            submit(1)
            yield result
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, most likely for want of memory; give fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def map_files(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    label: str,
    faults: list[str] | None = None,
    advice: str = "",
) -> Iterator[tuple[Item, Result]]:
    """Items and their results as from :func:`map_in_order`, with a progress bar.

    What ``function`` raises as InputError or OSError goes to ``faults`` as text, and its item is left out; where there
    is no such list, it raises InputError with ``advice`` behind the text.
    """
    results = map_in_order(_Tried(function), items, workers)
    for item, result in zip(items, tqdm(results, label, len(items), unit="image", disable=None)):
        if not isinstance(result, _Fault):
            yield item, result
        elif faults is None:
            raise InputError(f"{result.text}{advice}")
        else:
            faults.append(result.text)


@dataclass(frozen=True)
class _Fault:
    text: str


@dataclass(frozen=True)
class _Tried(Generic[Item, Result]):
    """Returns what ``function`` returns, or the text of its error, so that one bad file need not end all."""

    function: Callable[[Item], Result]

    def __call__(self, item: Item) -> Result | _Fault:
        try:
            return self.function(item)
        except (InputError, OSError) as error:
            return _Fault(str(error))


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM when the block ends.

    Files that belong together are moved inside such a block, and workers started: submitting starts threads and
    processes, and a pool that is interrupted half-way through that can neither go on nor be shut down. Processes that
    are started inside the block hold both signals back, until :func:`_start_worker`.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone receives signals
        yield
        return
    received: list[int] = []
    previous = {
        number: signal.signal(number, lambda got, _frame: received.append(got)) for number in _SIGNALS
    }
    _mask("SIG_BLOCK")
    try:
        yield
    finally:
        _mask("SIG_UNBLOCK")
        for number, handler in previous.items():
            signal.signal(number, handler)
        for got in received:
            signal.raise_signal(got)


def _mask(how: str) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(getattr(signal, how), _SIGNALS)


def _start_worker() -> None:
    import cv2  # which only workers need, and takes a while to load

    # OpenCV's own threads on top of one process a core make everything slower.
    cv2.setNumThreads(1)
    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _mask("SIG_UNBLOCK")
    # Of a first process that was killed they would hear nothing, and wait for their next item for ever.
    threading.Thread(target=_end_with_the_first_process, daemon=True).start()


def _end_with_the_first_process() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
