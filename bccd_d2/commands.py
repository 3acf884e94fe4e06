"""The commands of an installation, ``bccd-predict`` and others: the main functions of tools/ under one name each."""

from __future__ import annotations

import importlib
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from functools import partial

from bccd_d2.errors import InputError, as_called, run_command


class CommandParser(ArgumentParser):
    """The parser of a tool, whose help calls the tools as they are called here."""

    def __init__(self, description: str | None, examples: str | None = None) -> None:
        super().__init__(
            description=description, epilog=examples, formatter_class=RawDescriptionHelpFormatter
        )

    def format_help(self) -> str:
        """The help."""
        return as_called(super().format_help())


def _run(tool: str, function: str = "main") -> None:
    """Run a tool; one that lacks a package says which, and how to install it."""

    def run() -> int | None:
        try:
            module = importlib.import_module(f"bccd_d2.tools.{tool}")
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("", "bccd_d2"):
                raise
            extra = "" if package == "detectron2" else "pip install 'bccd_d2[train]', then "
            raise InputError(f"{package} is not installed: {extra}run bccd-setup") from error
        status: int | None = getattr(module, function)()
        return status

    run_command(run)


app = partial(_run, "app")
convert = partial(_run, "convert_bccd", "run")
evaluate = partial(_run, "evaluate")
predict = partial(_run, "predict")
setup = partial(_run, "install_detectron2")
train = partial(_run, "train_net", "run")
