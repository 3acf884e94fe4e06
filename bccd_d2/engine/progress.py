"""Console progress of a training: one short line now and then; log.txt has the rest."""

from __future__ import annotations

import datetime
import logging
from contextlib import suppress

from detectron2.utils.events import EventWriter, get_event_storage

from bccd_d2.errors import InputError

# Detectron2 logs the configuration, the environment and the model, which are hundreds of lines.
_LONGEST_MESSAGE = 20
# Its long progress line, and lines of metrics made for pasting into spreadsheets.
_NOT_FOR_THE_CONSOLE = ("detectron2.utils.events", "detectron2.evaluation.testing")
# What a terminal's output and that of a notebook call themselves; the other handler is log.txt.
_CONSOLES = ("<stdout>", "stdout")
_WINDOW = 20


class ProgressLine(EventWriter):
    """Prints "iteration 120/1600 loss 1.234 lr 0.0005 0.45 s/it ETA 0:11:06".

    The loss is the median of the last 20 iterations, the time the median of all; evaluations are not in it.
    """

    def __init__(self, max_iter: int) -> None:
        self._max_iter = max_iter
        self._last = -1

    def write(self) -> None:
        """Print the line, unless nothing has happened since the last one."""
        storage = get_event_storage()
        latest = storage.latest()
        iteration = latest["total_loss"][1] if "total_loss" in latest else -1
        if iteration <= self._last:
            return
        self._last = iteration
        words = [f"iteration {iteration + 1}/{self._max_iter}"]
        words.append(f"loss {storage.history('total_loss').median(_WINDOW):.3f}")
        if "lr" in latest:
            words.append(f"lr {latest['lr'][0]:.2g}")
        if "time" in latest:
            seconds = storage.history("time").median(1000)
            remaining = datetime.timedelta(seconds=round(seconds * (self._max_iter - iteration - 1)))
            words += [f"{seconds:.2f} s/it", f"ETA {remaining}"]
        # A full disk or a closed pipe is no reason to end a training, nor to hide what ended it.
        with suppress(OSError):
            print("  ".join(words), flush=True)


def quiet_console() -> None:
    """Keep Detectron2's long progress line, dumps and tracebacks of bad input out of the console; log.txt has them."""
    for name in ("detectron2", "fvcore", "bccd_d2"):
        for handler in logging.getLogger(name).handlers:
            if getattr(getattr(handler, "stream", None), "name", None) in _CONSOLES:
                handler.addFilter(_is_for_the_console)


def _is_for_the_console(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], InputError | OSError):
        return False  # the command ends with its message
    return record.name not in _NOT_FOR_THE_CONSOLE and record.getMessage().count("\n") < _LONGEST_MESSAGE
