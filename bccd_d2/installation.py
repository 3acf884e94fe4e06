"""Installs Detectron2, which no package index carries under its own name, without a compiler.

PyPI holds one wheel of another name and for another system whose Python files are those of Detectron2 at commit
133d22ed (2021-05-25, between 0.4.1 and 0.5). :func:`build_wheel` makes a proper ``detectron2`` distribution of them:
its own name and metadata, any system, no binary, a correct RECORD. :mod:`bccd_d2.compat` supplies the rest at run
time. Only the standard library is used, because this runs before anything else is there.
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
import tempfile
import zipfile
from pathlib import Path

from bccd_d2.errors import InputError

PYPI_REQUIREMENT = "geoai-detectron2==0.4"
PYPI_WHEEL_SHA256 = "6eb280a50dbc3536caa9dc73229dfbbe0bda4fea6692c17803584dda680fad8d"
PYPI_PLATFORM = ("--platform=win_amd64", "--python-version=3.7", "--implementation=cp", "--abi=cp37m")
VERSION = "0.4+133d22ed"
# The run-time needs of the wheel, without the upper bounds of 2021 and without what only its tools import.
REQUIREMENTS = (
    "Pillow>=7.1",
    "cloudpickle",
    "fvcore>=0.1.5",
    "hydra-core>=1.1",
    "iopath>=0.1.7",
    "matplotlib",
    "numpy>=2",  # NumPy 1.24 to 1.26 lack numpy.bool, which the Python files use
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
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: same input, same bytes


def build_wheel(source: Path, folder: Path) -> Path:
    """Make a ``detectron2`` wheel for any system from the Python files of another wheel that contains them.

    Args:
        source: a wheel file with a ``detectron2`` package in it.
        folder: where the new wheel is written.

    Returns:
        The path of the new wheel; the same source gives the same bytes.

    Raises:
        InputError: ``source`` is no zip file or holds no ``detectron2`` package.
    """
    info = f"detectron2-{VERSION}.dist-info"
    try:
        with zipfile.ZipFile(source) as archive:
            names = sorted(name for name in archive.namelist() if not name.endswith("/"))
            files = {name: archive.read(name) for name in names if name.startswith("detectron2/")}
            licences = {f"{info}/LICENSE": archive.read(n) for n in names if n.endswith(".dist-info/LICENSE")}
    except zipfile.BadZipFile as error:
        raise InputError(f"{source}: expected a wheel, found a file that is no zip archive") from error
    if "detectron2/__init__.py" not in files:
        raise InputError(f"{source}: expected a wheel with the package detectron2, found none in it")
    # Binaries of the other system go; the text files get upstream's line ends back.
    files = {
        name: data.replace(b"\r\n", b"\n")
        for name, data in files.items()
        if not name.endswith((".pyd", ".so", ".dll"))
    }
    metadata = [
        "Metadata-Version: 2.1",
        "Name: detectron2",
        f"Version: {VERSION}",
        "Summary: Detectron2 at commit 133d22ed, Python files only, for use with bccd_d2.compat",
        "Home-page: https://github.com/facebookresearch/detectron2",
        "Author: FAIR",
        "License: Apache-2.0",
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS),
    ]
    wheel = ["Wheel-Version: 1.0", "Generator: bccd_d2", "Root-Is-Purelib: true", "Tag: py3-none-any"]
    files |= licences
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
    """Version of the ``detectron2`` that ``import`` would find, ``None`` where there is none.

    A folder on the path without metadata counts: its version is then given as ``"unknown"``.
    """
    if importlib.util.find_spec("detectron2") is None:
        return None
    try:
        return importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def verify_sha256(path: Path, expected: str) -> None:
    """Check a file's SHA-256.

    Raises:
        InputError: the digest differs; the message gives both.
    """
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise InputError(f"{path.name}: expected sha256 {expected}, found {found}; nothing was installed")


def install(source: str = "pypi") -> str:
    """Install Detectron2 into the running interpreter's environment.

    Args:
        source: ``"pypi"`` keeps an importable detectron2 and otherwise installs the verified Python files;
            ``"git"`` compiles upstream at the pinned commit; anything else is the path of a local checkout.

    Returns:
        One line that says what was done.

    Raises:
        InputError: torch is missing, the network or the checkout is not there, a hash is wrong, or the result
            cannot be imported.
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
            downloaded = _download(Path(folder))
            verify_sha256(downloaded, PYPI_WHEEL_SHA256)
            _pip(["install", str(build_wheel(downloaded, Path(folder)))], "installing the detectron2 wheel")
        done = (
            f"installed detectron2 {VERSION}: Python files of commit 133d22ed, checked against their sha256"
        )
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
    arguments = ["download", "--no-deps", "--only-binary=:all:", *PYPI_PLATFORM, "--dest", str(folder)]
    _pip([*arguments, PYPI_REQUIREMENT], f"downloading {PYPI_REQUIREMENT} (is the package index reachable?)")
    return next(folder.glob("*.whl"))


def _pip(arguments: list[str], doing: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        errors = [line.strip() for line in result.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else f"pip ended with status {result.returncode}"
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
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1]
        raise InputError(f"detectron2 is installed but cannot be imported: {reason}")
