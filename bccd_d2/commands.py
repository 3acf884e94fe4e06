"""The commands of an installation, ``bccd-predict`` and others: the main functions of tools/ under one name each."""

from __future__ import annotations

import importlib
from functools import partial

from bccd_d2.errors import InputError, run_command


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
