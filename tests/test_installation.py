import csv
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from bccd_d2 import installation
from bccd_d2.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent


SETUP = """
import pathlib, setuptools
pathlib.Path({marker!r}).touch()
setuptools.setup(name="pb1-detectron2", version="0.6", packages=["detectron2"])
"""


@pytest.fixture
def sdist(tmp_path):
    """A source distribution of another name as the one on the package index; its setup.py leaves ``was_run``."""
    path = tmp_path / "pb1-detectron2-0.6.tar.gz"
    contents = {
        "LICENSE": "Apache",
        "README.md": "",
        "setup.py": SETUP.format(marker=str(tmp_path / "was_run")),
        "PKG-INFO": "Metadata-Version: 2.1\nName: pb1-detectron2\nVersion: 0.6\n",
        "detectron2/__init__.py": '__version__ = "0.6"\n',
        "detectron2/layers/nms.py": "x = 1\n",
        "projects/PointRend/point_rend/__init__.py": "",
        "projects/PointRend/train_net.py": "",
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, text in contents.items():
            member = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_the_wheel_holds_the_python_files_and_a_right_record_the_same_bytes_each_time(sdist, tmp_path):
    wheel = installation.build_wheel(sdist, tmp_path)
    assert wheel.name == "detectron2-0.6-py3-none-any.whl"
    info = "detectron2-0.6.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    packages = ["__init__.py", "layers/nms.py", "projects/point_rend/__init__.py"]
    assert sorted(files) == sorted(
        [f"detectron2/{name}" for name in packages]
        + [f"{info}/{name}" for name in ("LICENSE", "METADATA", "WHEEL", "top_level.txt", "RECORD")]
    )
    assert files["detectron2/layers/nms.py"] == b"x = 1\n"
    record = list(csv.reader(io.StringIO(files[f"{info}/RECORD"].decode())))
    assert {row[0] for row in record} == set(files)
    for name, digest, size in record:
        if name.endswith("RECORD"):
            continue
        expected = urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
        assert (digest, int(size)) == (f"sha256={expected}", len(files[name]))
    assert not (tmp_path / "was_run").exists()
    first = wheel.read_bytes()
    assert installation.build_wheel(sdist, tmp_path).read_bytes() == first


def test_pip_installs_and_shows_it(sdist, tmp_path):
    wheel = installation.build_wheel(sdist, tmp_path)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    shown = subprocess.run(
        [*pip, "list", "--path", str(site)], check=True, capture_output=True, text=True
    ).stdout
    assert "detectron2 0.6" in " ".join(shown.split())
    assert (site / "detectron2" / "__init__.py").read_text() == '__version__ = "0.6"\n'


def test_a_file_that_is_no_source_distribution_is_named(tmp_path):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"not an archive")
    with pytest.raises(InputError, match=r"x\.tar\.gz: expected a source distribution"):
        installation.build_wheel(path, tmp_path)
    with tarfile.open(path, "w:gz"):
        pass
    with pytest.raises(InputError, match=r"x\.tar\.gz: expected the package detectron2 in it, found none"):
        installation.build_wheel(path, tmp_path)


@pytest.mark.parametrize("right", [False, True])
def test_nothing_of_a_download_runs_before_its_hash_is_checked(sdist, tmp_path, monkeypatch, right):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    monkeypatch.setattr(installation, "PYPI_SHA256", found if right else "0" * 64)
    (tmp_path / "downloads").mkdir()
    if right:
        downloaded = installation._download(tmp_path / "downloads")
        assert downloaded.read_bytes() == sdist.read_bytes()
    else:
        with pytest.raises(InputError, match=f"(?s)Expected sha256 {'0' * 64}.*Got +{found}"):
            installation._download(tmp_path / "downloads")
    assert (tmp_path / "was_run").exists() == right


def run_without_site(*arguments: str, paths: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The command in an interpreter that sees nothing installed but ``paths``."""
    script = (
        f"import sys; sys.path[:0] = {[str(p) for p in paths]!r}\n"
        f"sys.argv = ['install_detectron2.py', *{list(arguments)!r}]\n"
        f"import runpy; runpy.run_path({str(REPOSITORY / 'tools' / 'install_detectron2.py')!r}, run_name='__main__')"
    )
    environment = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, env=environment
    )


def test_no_torch_is_one_clear_line():
    result = run_without_site()
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: torch is not installed, and Detectron2 needs it: run 'pip install torch torchvision' first\n"
    )


def test_no_network_is_one_clear_line(tmp_path):
    (tmp_path / "torch.py").write_text("")
    result = run_without_site(paths=(tmp_path,))
    assert result.returncode == 1
    assert result.stderr.startswith(
        "error: downloading pb1-detectron2==0.6 (is the package index reachable?) failed"
    )
    assert len(result.stderr.splitlines()) == 1


def test_a_source_folder_without_detectron2_is_named(tmp_path):
    (tmp_path / "torch.py").write_text("")
    result = run_without_site("--source", str(tmp_path), paths=(tmp_path,))
    assert result.returncode == 1
    assert "expected 'pypi', 'git' or a folder with detectron2/__init__.py" in result.stderr


def test_an_importable_detectron2_is_kept():
    pytest.importorskip("detectron2")
    result = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "install_detectron2.py")], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("kept detectron2 ")


ONLY_INSTALLED = """
import importlib, importlib.metadata as metadata, pathlib, sys
from packaging.requirements import Requirement

installed, waiting = {"detectron2", "setuptools"}, [("bccd_d2", ("train", "app"))]
while waiting:
    name, extras = waiting.pop()
    try:
        required = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # for another system
        continue
    installed.add(name.lower().replace("_", "-"))
    for requirement in map(Requirement, required):
        marker = requirement.marker
        wanted = marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, ""))
        if wanted and requirement.name.lower().replace("_", "-") not in installed:
            waiting.append((requirement.name, tuple(requirement.extras)))
own = {"bccd_d2", "tools", "tests", "benchmarks"}
for module, names in metadata.packages_distributions().items():
    if module not in own and not {name.lower().replace("_", "-") for name in names} & installed:
        sys.modules[module] = None  # importing it raises ImportError
for path in sorted(pathlib.Path("tools").glob("*.py")):
    importlib.import_module(f"tools.{path.stem}")
"""


def test_every_tool_starts_with_what_setup_installs():
    """Without the packages that only tests and further extras need."""
    process = subprocess.run(
        [sys.executable, "-c", ONLY_INSTALLED], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-2000:]
