"""Installs Detectron2, which no package index carries under its own name, without a compiler.

PyPI holds the Python files of the last release, 0.6 (upstream tag v0.6, commit d1e04565, 2021-10-25), as a source
distribution of another name, of which :func:`build_wheel` makes a ``detectron2`` that runs as plain Python;
:mod:`bccd_d2.compat` supplies the rest at run time. Only the standard library is used, because this runs before
anything else is installed.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from bccd_d2.errors import InputError

VERSION = "0.6"
PYPI_REQUIREMENT = f"pb1-detectron2=={VERSION}"
PYPI_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
# Run-time requirements, without the upper bounds of 2021 and without what only its development tools import.
REQUIREMENTS = (
    "Pillow>=7.1",
    "cloudpickle",
    "fvcore>=0.1.5",
    "hydra-core>=1.1",
    "iopath>=0.1.7",
    "matplotlib",
    "numpy>=2",  # NumPy 1.24 to 1.26 lack numpy.bool, which 0.6 uses
    "omegaconf>=2.1",
    "pycocotools>=2.0.2",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "tqdm>4.29.0",
    "yacs>=0.1.6",
)
UPSTREAM_URL = "https://github.com/facebookresearch/detectron2.git"
UPSTREAM_COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
# Where the packages of the wheel lie in the source distribution, as in upstream's setup.py.
_PACKAGES = {
    "detectron2/": "detectron2/",
    "projects/PointRend/point_rend/": "detectron2/projects/point_rend/",
    "projects/DeepLab/deeplab/": "detectron2/projects/deeplab/",
    "projects/Panoptic-DeepLab/panoptic_deeplab/": "detectron2/projects/panoptic_deeplab/",
}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: same input, same bytes


def build_wheel(sdist: Path, folder: Path) -> Path:
    """Make a ``detectron2`` wheel for any system from its source distribution, a ``.tar.gz``, and return its path.

    Nothing of it is run; the same source gives the same bytes. Raises InputError where ``sdist`` is no ``.tar.gz`` file
    or holds no ``detectron2`` package.
    """
    info = f"detectron2-{VERSION}.dist-info"
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(sdist, "r:gz") as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is None:
                    continue
                name = member.name.partition("/")[2]  # without the top folder
                for prefix, package in _PACKAGES.items():
                    if name.startswith(prefix):
                        files[package + name.removeprefix(prefix)] = stream.read()
                if name == "LICENSE":
                    files[f"{info}/LICENSE"] = stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{sdist}: expected a source distribution (.tar.gz): {error}") from error
    if "detectron2/__init__.py" not in files:
        raise InputError(f"{sdist}: expected the package detectron2 in it, found none")
    metadata = [
        "Metadata-Version: 2.1",
        "Name: detectron2",
        f"Version: {VERSION}",
        f"Summary: Detectron2 {VERSION}, Python files only, for use with bccd_d2.compat",
        "Home-page: https://github.com/facebookresearch/detectron2",
        "Author: FAIR",
        "License: Apache-2.0",
        "License-File: LICENSE",
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS),
    ]
    wheel = ["Wheel-Version: 1.0", "Generator: bccd_d2", "Root-Is-Purelib: true", "Tag: py3-none-any"]
    files[f"{info}/METADATA"] = ("\n".join(metadata) + "\n").encode()
    files[f"{info}/WHEEL"] = ("\n".join(wheel) + "\n").encode()
    files[f"{info}/top_level.txt"] = b"detectron2\n"
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow([name, f"sha256={digest}", len(data)])
    rows.writerow([f"{info}/RECORD", "", ""])
    files[f"{info}/RECORD"] = record.getvalue().encode()

    target = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return target


def installed_version() -> str | None:
    """Version of the ``detectron2`` that ``import`` would find, ``"unknown"`` without metadata; ``None`` for none."""
    if importlib.util.find_spec("detectron2") is None:
        return None
    try:
        return importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def install(source: str = "pypi") -> str:
    """Install Detectron2 into the running interpreter's environment, and return one line that says what was done.

    ``"pypi"`` keeps an importable detectron2 and otherwise installs the verified Python files; ``"git"`` compiles
    upstream at the pinned commit; anything else is the path of a local checkout. Raises InputError where torch is
    missing, the network or the checkout is not there, a hash is wrong, or the result cannot be imported.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            "torch is not installed, and Detectron2 needs it: run 'pip install torch torchvision' first"
        )
    if source == "pypi":
        version = installed_version()
        if version is not None:
            _check_import()
            return f"kept detectron2 {version}, which is already installed"
        with tempfile.TemporaryDirectory() as folder:
            wheel = build_wheel(_download(Path(folder)), Path(folder))
            _pip(["install", str(wheel)], "installing the detectron2 wheel")
        done = f"installed detectron2 {VERSION}: the release's Python files, checked against their sha256"
    elif source == "git":
        if _installed_commit() == UPSTREAM_COMMIT:
            return f"kept detectron2 at upstream commit {UPSTREAM_COMMIT[:8]}, which is already installed"
        target = f"git+{UPSTREAM_URL}@{UPSTREAM_COMMIT}"
        _pip(["install", "--no-build-isolation", target], f"building {UPSTREAM_URL} (needs a compiler)")
        done = f"installed detectron2 from upstream commit {UPSTREAM_COMMIT[:8]}, compiled"
    else:
        checkout = Path(source)
        if not (checkout / "detectron2" / "__init__.py").is_file():
            raise InputError(
                f"--source {source}: expected 'pypi', 'git' or a folder with detectron2/__init__.py"
            )
        _pip(["install", "--no-build-isolation", str(checkout)], f"building {checkout} (needs a compiler)")
        done = f"installed detectron2 from {checkout}, compiled"
    _check_import()
    return done


def _download(folder: Path) -> Path:
    """Fetch the source distribution. pip checks the hash before it runs the archive's setup.py for the metadata."""
    options = ["--no-binary=:all:", "--no-build-isolation"]
    return download_pinned(PYPI_REQUIREMENT, PYPI_SHA256, folder, options)


def download_pinned(requirement: str, sha256: str, folder: Path, options: Sequence[str] = ()) -> Path:
    """Fetch one file from the package index into ``folder`` with pip, which checks its hash, and return its path.

    ``requirement`` is ``NAME==VERSION``, ``options`` are those of ``pip download``, such as ``--only-binary=:all:``.
    Raises InputError where the index cannot be reached, or the hash is wrong.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        new = Path(name)
        listed = new / "requirement.txt"
        listed.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
        arguments = ["download", "--require-hashes", "--no-deps", *options, "--dest", str(new)]
        _pip(
            [*arguments, "--requirement", str(listed)],
            f"downloading {requirement} (is the package index reachable?)",
        )
        (file,) = (path for path in new.iterdir() if path != listed)
        return file.replace(folder / file.name)


def _pip(arguments: list[str], doing: str) -> None:
    """Run pip, its progress on standard output; what it says on standard error becomes the reason of an error."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
    if result.returncode:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        first = next((k for k, line in enumerate(lines) if line.startswith("ERROR")), len(lines))
        reason = " ".join(lines[first:]) or f"pip ended with status {result.returncode}"
        raise InputError(f"{doing} failed: {reason}")


def _installed_commit() -> str | None:
    try:
        text = importlib.metadata.distribution("detectron2").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    return json.loads(text).get("vcs_info", {}).get("commit_id") if text else None


def _check_import() -> None:
    """Import what this project uses in a fresh interpreter, with :mod:`bccd_d2.compat` in place."""
    code = "import bccd_d2, detectron2.engine, detectron2.evaluation, detectron2.modeling"
    root = Path(__file__).resolve().parent.parent
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, errors="replace", cwd=root
    )
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1]
        raise InputError(
            f"detectron2 is installed but cannot be imported: {reason}; to replace it, run "
            "'pip uninstall detectron2' and this command again"
        )
