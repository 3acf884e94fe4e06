"""The wheel, installed away from the repository: its commands, and what they find there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from bccd_d2.files import shipped_file, shipped_folder
from bccd_d2.synthetic import draw_smear

REPOSITORY = Path(__file__).resolve().parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def run(*command: str | Path, folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(site)}
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder that the wheel is installed into; commands are in its ``bin``."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("bccd_d2", "configs", "tools", "weights"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    install = [*PIP, "install", "--no-deps", "--no-index", "--target", folder / "site"]
    subprocess.run([*install, next(folder.glob("*.whl"))], check=True, capture_output=True)
    return folder / "site"


def command(site: Path, name: str) -> Path:
    return next((site / "bin").glob(f"{name}*"))


def test_the_shipped_model_predicts_in_another_folder(site, tmp_path):
    cv2.imwrite(str(tmp_path / "smear.png"), draw_smear(21, 400, 300).image)
    arguments = ("--input", "smear.png", "--output", "results")
    done = run(command(site, "bccd-predict"), *arguments, folder=tmp_path, site=site)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "results" / "predictions.json").read_text())
    assert (tmp_path / "results" / "overlays").is_dir()


def test_converting_training_and_evaluating_find_the_shipped_configurations(site, tmp_path):
    smears = (sys.executable, "-m", "bccd_d2.tools.make_synthetic", "--output", "smears", "--images", "6")
    config = (
        "--config-file",
        "configs/mask_rcnn_R_18_FPN_lite.yaml",
        "--data-root",
        "data",
        "--fast-dev-run",
    )
    convert = ("--root", "smears", "--output", "data", "--workers", "1")
    for line in (
        (*smears, "--size", "320x240"),
        (command(site, "bccd-convert"), *convert),
        (command(site, "bccd-train"), *config, "OUTPUT_DIR", "run"),
        (command(site, "bccd-evaluate"), "--run", "run/fast_dev_run", "--overwrite"),
    ):
        done = run(*line, folder=tmp_path, site=site)
        assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "run" / "fast_dev_run" / "run.json").read_text())
    assert record["commit"] is None
    assert (tmp_path / "run" / "fast_dev_run" / "evaluation" / "report.html").is_file()


@pytest.mark.parametrize(
    ("name", "missing", "how"),
    [
        ("predict", "torch", "pip install 'bccd_d2[train]', then run bccd-setup"),
        ("train", "detectron2", "run bccd-setup"),
    ],
)
def test_a_missing_package_is_one_clear_line(site, tmp_path, name, missing, how):
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['bccd-{name}']; "
    code += "import bccd_d2.commands; bccd_d2.commands.main()"
    done = run(sys.executable, "-c", code, folder=tmp_path, site=site)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {missing} is not installed: {how}\n"


def test_converting_needs_no_more_than_the_base_installation(site, tmp_path):
    """Nor do auditing and evaluating; packages of the extra ``train`` and what comes with them are hidden."""
    hidden = ("torch", "torchvision", "detectron2", "fvcore", "timm", "albumentations")
    tools = "from bccd_d2.tools import audit_dataset, convert_bccd, make_synthetic"
    code = f"import sys; sys.modules.update(dict.fromkeys({(*hidden, 'typing_extensions')})); {tools}"
    done = run(sys.executable, "-c", code, folder=tmp_path, site=site)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_file_of_the_working_directory_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "configs/datasets/palette.yaml"
    assert shipped_file(name) == str(shipped_folder("configs") / "datasets" / "palette.yaml")
    assert shipped_file("configs/none.yaml") == "configs/none.yaml"
    assert shipped_file("") == ""
    assert shipped_file("detectron2://a/b.pkl") == "detectron2://a/b.pkl"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    assert shipped_file(name) == name
