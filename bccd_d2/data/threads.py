"""OpenCV's threads in the processes of a data loader."""

from __future__ import annotations

import functools
import os

import cv2
from torch.utils.data import get_worker_info

_threads_before_fork = 0


@functools.cache
def stop_opencv_threads_at_fork() -> None:
    """Let no forked process inherit OpenCV's thread pool; further calls do nothing.

    Threads do not survive a fork, but the pool believes that they do: in the child, ``cv2.setNumThreads`` waits
    for them forever. So they end before the fork, start again in the parent, and the child has none.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_stop, after_in_parent=_start)


def use_one_opencv_thread_in_workers() -> None:
    """In a loader's worker, leave OpenCV one thread: pools of several workers would fight for the same cores."""
    if get_worker_info() is not None and cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)


def _stop() -> None:
    global _threads_before_fork
    _threads_before_fork = cv2.getNumThreads()
    cv2.setNumThreads(1)


def _start() -> None:
    cv2.setNumThreads(_threads_before_fork)
