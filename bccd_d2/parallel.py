"""``map`` over processes, in order and with bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from tqdm import tqdm

from bccd_d2.errors import InputError
from bccd_d2.system import leave_interrupts_to_parent, signals_held_back

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


def _start_worker() -> None:
    import cv2  # which only workers need, and takes a while to load

    # OpenCV's own threads on top of one process a core make everything slower.
    cv2.setNumThreads(1)
    leave_interrupts_to_parent()
    # Of a first process that was killed they would hear nothing, and wait for their next item for ever.
    threading.Thread(target=_end_with_the_first_process, daemon=True).start()


def _end_with_the_first_process() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
