"""The one error that stands for bad input, and how commands end with it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path


class InputError(ValueError):
    """Something a user gave cannot be used; the message names it, says what was found and what was expected."""


_COMMANDS = {
    **{name: name for name in ("app", "evaluate", "predict")},
    "convert_bccd": "convert",
    "install_detectron2": "setup",
    "train_net": "train",
}


def as_called(text: str) -> str:
    """The text with the names that tools have here: ``bccd-predict`` and the like for installed commands."""
    if not Path(sys.argv[0]).name.startswith("bccd-"):
        return text

    def command(found: re.Match[str]) -> str:
        name = found[1]
        return f"bccd-{_COMMANDS[name]}" if name in _COMMANDS else f"python -m bccd_d2.tools.{name}"

    return re.sub(r"(?:python )?\btools/(\w+)\.py", command, text)


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's ``main`` and leave the process with its status, without a traceback for what users can fix.

    Raises SystemExit always; status 1 for :class:`InputError` and for errors of the file system, 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console may lack letters of a file name
    try:
        status = main()
    except (InputError, OSError) as error:
        print(f"error: {as_called(str(error))}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted; finished files are intact", file=sys.stderr)
        status = 130
    raise SystemExit(status or 0)
