"""The one error that stands for bad input, and how commands end with it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something a user gave cannot be used; the message names it, says what was found and what was expected."""


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's ``main`` and leave the process with its status, without a traceback for what users can fix.

    Args:
        main: returns the exit status, or ``None`` for 0.

    Raises:
        SystemExit: always; status 1 for :class:`InputError` and for errors of the file system, 130 after Ctrl-C.
    """
    try:
        status = main()
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted; finished files are intact", file=sys.stderr)
        status = 130
    raise SystemExit(status or 0)
