"""Adapts the installed torch, Pillow and NumPy to what the installed Detectron2 expects.

This is the only module that knows versions. Importing it is free: it imports nothing heavy, and the adapting happens
when Detectron2's first submodule is imported, so ``bccd_d2.conversion`` starts without torch.

Detectron2 0.6 and later runs as plain Python and is left alone. Earlier versions import the compiled module
``detectron2._C`` unconditionally and use names that Pillow and NumPy have dropped; where no compiled module is
installed, a stand-in takes its place. Only rotated boxes, deformable convolution and the C++ COCO evaluation need
the compiled one, and each says so when it is called.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

# torch's OpenMP threads wait for each other by spinning, and a second busy process on the same cores then makes
# both several times slower. Spinning a thousand times before they sleep costs nothing alone (61 ms for a step of ten
# convolutions on 2 cores, with either) and helps in company (152 ms against 187 to 1,250 ms). The OpenMP of torch's
# wheels for Linux reads this once, when torch is loaded; who sets a policy keeps it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_COMPILED_MODULE = "detectron2._C"
_FIRST_PLAIN_PYTHON_VERSION = (0, 6)
# detectron2/__init__.py imports these before it has set its __version__; they need no adapting.
_EARLY_SUBMODULES = ("detectron2.utils",)
_ROTATED_OPERATORS = (
    "nms_rotated(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor",
    "box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor",
)


def _needs_compiled_build(name: str) -> Callable[..., NoReturn]:
    def raise_error(*_args: object, **_kwargs: object) -> NoReturn:
        raise RuntimeError(
            f"detectron2's {name} needs the compiled build of Detectron2, but the plain Python one is installed: "
            "run 'python tools/install_detectron2.py --source git' (needs a C++ compiler)"
        )

    return raise_error


class _CompiledModuleStandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Supplies ``detectron2._C`` when no other finder has one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _COMPILED_MODULE:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin="bccd_d2.compat")

    def exec_module(self, module: ModuleType) -> None:
        def missing(name: str) -> Callable[..., NoReturn]:
            if name.startswith("__"):
                raise AttributeError(name)
            return _needs_compiled_build(f"_C.{name}")

        # What detectron2.utils.collect_env prints at the start of every run.
        vars(module).update(
            get_compiler_version=lambda: "not compiled (stand-in of bccd_d2.compat)",
            get_cuda_version=lambda: "not compiled",
            has_cuda=lambda: False,
            __getattr__=missing,
        )
        _define_rotated_operators()


def _define_rotated_operators() -> None:
    """Make ``torch.ops.detectron2.<name>`` resolve; calling one raises."""
    import torch

    for schema in _ROTATED_OPERATORS:
        name = schema.partition("(")[0]
        if hasattr(torch.ops.detectron2, name):
            continue
        torch.library.define(f"detectron2::{name}", schema[len(name) :])
        torch.library.impl(f"detectron2::{name}", "default", _needs_compiled_build(name))


def _restore_dropped_names() -> None:
    """Give back the aliases that Detectron2 before 0.6 uses: Pillow dropped its in version 10, NumPy in 1.24."""
    import numpy
    import PIL.Image

    for owner, name, value in (
        (PIL.Image, "LINEAR", PIL.Image.Resampling.BILINEAR),
        (numpy, "int", int),
        (numpy, "float", float),
    ):
        if name not in vars(owner):
            setattr(owner, name, value)


def _adapt(version: str) -> None:
    # What Detectron2 calls and newer torch would rather it did not; no user can do anything about it.
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", r"torch\.meshgrid: in an upcoming release", UserWarning)
    if tuple(int(part) for part in version.split(".")[:2]) >= _FIRST_PLAIN_PYTHON_VERSION:
        return
    _restore_dropped_names()
    # Last in line, so that a compiled module that is really there wins.
    sys.meta_path.append(_CompiledModuleStandIn())


class _FirstSubmodule(importlib.abc.MetaPathFinder):
    """Adapts just before the first submodule of Detectron2 that needs it; finds nothing itself."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if not fullname.startswith("detectron2.") or fullname.startswith(_EARLY_SUBMODULES):
            return
        version = getattr(sys.modules.get("detectron2"), "__version__", None)
        if version is not None:
            sys.meta_path.remove(self)
            _adapt(version)


def install() -> None:
    """Arrange for the adapting to happen when Detectron2 is first used. Calling it again changes nothing."""
    if any(isinstance(finder, _FirstSubmodule | _CompiledModuleStandIn) for finder in sys.meta_path):
        return
    detectron2 = sys.modules.get("detectron2")
    if detectron2 is not None and hasattr(detectron2, "__version__"):
        _adapt(detectron2.__version__)
    else:
        sys.meta_path.insert(0, _FirstSubmodule())


install()
