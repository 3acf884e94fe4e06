"""``map`` over processes, in order and with bounded memory."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

import cv2

from bccd_d2.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
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
    try:
        for item in islice(remaining, workers * AHEAD):
            waiting.append(pool.submit(function, item))
        while waiting:
            result = waiting.popleft().result()
            for item in islice(remaining, 1):
                waiting.append(pool.submit(function, item))
            yield result
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, most likely for want of memory; give fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    # OpenCV's own threads on top of one process a core make everything slower.
    cv2.setNumThreads(1)
    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
