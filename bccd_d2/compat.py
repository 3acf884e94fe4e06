"""Adapts the installed torch, Pillow and NumPy to what the installed Detectron2 expects.

This is the only module that knows versions. Importing it is free: it imports nothing heavy, and the adapting happens
when Detectron2's first submodule is imported, so ``bccd_d2.conversion`` starts without torch.

The release 0.6 imports the compiled module ``detectron2._C`` unconditionally and uses names that Pillow 10 and NumPy
1.24 have dropped. The names are given back, and where no compiled module is installed, a stand-in takes its place:
only rotated boxes, deformable convolution and the C++ COCO evaluation need the compiled one, and each says so when it
is called. Upstream's main branch, whose version is 0.6 too, needs neither and is left alone.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

# torch's OpenMP threads wait for each other by spinning, and a second busy process on the same cores then makes
# both several times slower. Spinning a thousand times before they sleep costs nothing alone (61 ms for a step of ten
# convolutions on 2 cores, with either) and helps in company (152 ms against 187 to 1,250 ms). The OpenMP of torch's
# wheels for Linux reads this once, when torch is loaded; who sets a policy keeps it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_COMPILED_MODULE = "detectron2._C"
_MODEL_ZOO = "detectron2.model_zoo.model_zoo"


def _runs_as_plain_python() -> bool:
    """Whether this Detectron2 has the module from which it makes its own dummies of what is not compiled."""
    return any(Path(path, "utils", "develop.py").is_file() for path in sys.modules["detectron2"].__path__)


def _restore_dropped_names() -> None:
    """Give back the aliases that Detectron2 0.6 uses: Pillow dropped its in version 10, NumPy in 1.24."""
    import numpy
    import PIL.Image

    for owner, name, value in (
        (PIL.Image, "LINEAR", PIL.Image.Resampling.BILINEAR),
        (numpy, "int", int),
        (numpy, "float", float),
        (numpy, "str", str),
    ):
        if name not in vars(owner):
            setattr(owner, name, value)


def _missing(name: str) -> Callable[..., NoReturn]:
    """What the stand-in has for every function of the compiled module."""
    if name.startswith("__"):
        raise AttributeError(name)

    def raise_error(*_args: object, **_kwargs: object) -> NoReturn:
        raise RuntimeError(
            f"detectron2's _C.{name} needs the compiled build of Detectron2, but the plain Python one is installed: "
            "run 'python tools/install_detectron2.py --source git' (needs a C++ compiler)"
        )

    return raise_error


def _with_pkg_resources(
    spec: importlib.machinery.ModuleSpec | None,
) -> importlib.machinery.ModuleSpec | None:
    """Let the model zoo import ``pkg_resources``, which setuptools 82 dropped; no other module gets to see it."""
    if spec is None or spec.loader is None:
        return spec
    exec_module = spec.loader.exec_module

    def exec_with_stand_in(module: ModuleType) -> None:
        stand_in = ModuleType("pkg_resources")
        vars(stand_in)["resource_filename"] = lambda package, name: str(
            Path(str(sys.modules[package].__file__)).parent / name
        )
        sys.modules["pkg_resources"] = stand_in
        try:
            exec_module(module)
        finally:
            del sys.modules["pkg_resources"]

    vars(spec.loader)["exec_module"] = exec_with_stand_in
    return spec


class _Detectron2Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Adapts when a submodule of Detectron2 is first imported, and supplies ``detectron2._C`` where there is none."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith("detectron2."):
            return None
        # What Detectron2 calls and newer torch would rather it did not; no user can do anything about it.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", r"torch\.meshgrid: in an upcoming release", UserWarning)
        if _runs_as_plain_python():
            sys.meta_path.remove(self)
            return None
        _restore_dropped_names()
        if fullname == _COMPILED_MODULE and importlib.machinery.PathFinder.find_spec(fullname, path) is None:
            return importlib.machinery.ModuleSpec(fullname, self, origin="bccd_d2.compat")
        if fullname == _MODEL_ZOO and importlib.util.find_spec("pkg_resources") is None:
            return _with_pkg_resources(importlib.machinery.PathFinder.find_spec(fullname, path))
        return None

    def exec_module(self, module: ModuleType) -> None:
        # The first three are what detectron2.utils.collect_env prints at the start of every run.
        vars(module).update(
            get_compiler_version=lambda: "not compiled (stand-in of bccd_d2.compat)",
            get_cuda_version=lambda: "not compiled",
            has_cuda=lambda: False,
            __getattr__=_missing,
        )


def install() -> None:
    """Arrange for the adapting to happen when Detectron2 is first used. Calling it again changes nothing."""
    if not any(isinstance(finder, _Detectron2Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Detectron2Finder())


install()
