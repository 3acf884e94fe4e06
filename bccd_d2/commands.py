"""What all commands share: how they are called, their parser, and how they end."""

from __future__ import annotations

import importlib
import re
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path

from bccd_d2.errors import InputError

_PREFIX = "bccd-"
_TOOLS = {
    "app": "app",
    "convert": "convert_bccd",
    "evaluate": "evaluate",
    "predict": "predict",
    "setup": "install_detectron2",
    "train": "train_net",
}
"""The modules of tools/ by the names, without prefix, that setup.py gives them in an installation."""


def as_called(text: str) -> str:
    """The text with the names that tools have here: ``bccd-predict`` and the like for installed commands."""
    if not Path(sys.argv[0]).name.startswith(_PREFIX):
        return text
    names = {tool: name for name, tool in _TOOLS.items()}

    def command(found: re.Match[str]) -> str:
        tool = found[1]
        return f"{_PREFIX}{names[tool]}" if tool in names else f"python -m bccd_d2.tools.{tool}"

    return re.sub(r"(?:python )?\btools/(\w+)\.py", command, text)


class CommandParser(ArgumentParser):
    """The parser of a tool, whose help calls the tools as they are called here."""

    def __init__(self, description: str | None, examples: str | None = None) -> None:
        super().__init__(
            description=description, epilog=examples, formatter_class=RawDescriptionHelpFormatter
        )

    def format_help(self) -> str:
        """The help."""
        return as_called(super().format_help())


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


def refuse_to_replace(path: Path, overwrite: bool, option: str = "--output") -> None:
    """Raise InputError where ``path`` is there and ``--overwrite`` is not given; ``option`` would name another one."""
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; give --overwrite to replace it, or another {option}")


def main() -> None:
    """Run the installed command that this process was started as, such as bccd-predict.

    One that lacks a package says which, and how to install it.
    """
    tool = _TOOLS[Path(sys.argv[0]).stem.removeprefix(_PREFIX)]

    def run() -> int | None:
        try:
            module = importlib.import_module(f"bccd_d2.tools.{tool}")
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("", "bccd_d2"):
                raise
            extra = "" if package == "detectron2" else "pip install 'bccd_d2[train]', then "
            raise InputError(f"{package} is not installed: {extra}run bccd-setup") from error
        function: Callable[[], int | None] = getattr(module, "run", None) or module.main
        return function()

    run_command(run)
