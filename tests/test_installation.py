import csv
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from bccd_d2 import installation
from bccd_d2.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def foreign_wheel(tmp_path):
    """A wheel of another name and system, as the one on PyPI: Windows line ends, a binary, a RECORD that is wrong."""
    path = tmp_path / "geoai_detectron2-0.4-cp37-cp37m-win_amd64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("detectron2/__init__.py", b'__version__ = "0.4"\r\n')
        archive.writestr("detectron2/layers/nms.py", b"x = 1\r\n")
        archive.writestr("detectron2/_C.cp37-win_amd64.pyd", b"MZ")
        archive.writestr("geoai_detectron2-0.4.dist-info/LICENSE", b"Apache")
        archive.writestr("geoai_detectron2-0.4.dist-info/METADATA", b"Name: geoai-detectron2\r\n")
        archive.writestr("geoai_detectron2-0.4.dist-info/RECORD", b"wrong")
    return path


def test_the_wheel_holds_the_python_files_and_a_right_record(foreign_wheel, tmp_path):
    wheel = installation.build_wheel(foreign_wheel, tmp_path)
    info = f"detectron2-{installation.VERSION}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert sorted(files) == sorted(
        ["detectron2/__init__.py", "detectron2/layers/nms.py"]
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


def test_the_same_source_gives_the_same_bytes(foreign_wheel, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    first, second = (installation.build_wheel(foreign_wheel, folder).read_bytes() for folder in folders)
    assert first == second


def test_pip_installs_shows_and_uninstalls_it(foreign_wheel, tmp_path):
    wheel = installation.build_wheel(foreign_wheel, tmp_path)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(site)}
    shown = subprocess.run(
        [*pip, "list", "--path", str(site)], check=True, capture_output=True, text=True, env=environment
    ).stdout
    assert f"detectron2 {installation.VERSION}" in " ".join(shown.split())
    assert (site / "detectron2" / "__init__.py").read_text() == '__version__ = "0.4"\n'


def test_a_file_that_is_no_wheel_is_named(tmp_path):
    path = tmp_path / "x.whl"
    path.write_bytes(b"not a zip")
    with pytest.raises(InputError, match=r"x\.whl: expected a wheel, found a file that is no zip archive"):
        installation.build_wheel(path, tmp_path)


def test_a_wheel_without_detectron2_is_named(tmp_path):
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/__init__.py", b"")
    with pytest.raises(InputError, match="expected a wheel with the package detectron2"):
        installation.build_wheel(path, tmp_path)


def test_a_wrong_hash_is_refused_and_both_are_given(tmp_path):
    path = tmp_path / "x.whl"
    path.write_bytes(b"abc")
    found = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    installation.verify_sha256(path, found)
    with pytest.raises(InputError, match=f"expected sha256 {'0' * 64}, found {found}; nothing was installed"):
        installation.verify_sha256(path, "0" * 64)


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
        "error: downloading geoai-detectron2==0.4 (is the package index reachable?) failed"
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
