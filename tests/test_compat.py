import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def run(code: str, *paths: Path) -> str:
    """Standard output of ``code`` in a fresh interpreter, with ``paths`` before everything else."""
    prelude = f"import sys; sys.path[:0] = {[str(p) for p in (*paths, REPOSITORY)]!r}\n"
    result = subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def fake_detectron2(folder: Path, version: str) -> Path:
    """A package that, as the old one does, imports detectron2._C when detectron2.layers is imported."""
    package = folder / "detectron2"
    (package / "utils").mkdir(parents=True)
    (package / "utils" / "__init__.py").write_text("")
    (package / "__init__.py").write_text(f"from . import utils\n__version__ = {version!r}\n")
    (package / "layers.py").write_text("from detectron2 import _C\n")
    return folder


def test_importing_the_package_stays_free_of_torch():
    heavy = run(
        "import bccd_d2, bccd_d2.conversion\n"
        "print([name for name in ('torch', 'detectron2', 'numpy', 'PIL') if name in sys.modules])"
    )
    assert heavy == "[]"


def test_waiting_threads_soon_sleep_unless_the_user_says_otherwise(monkeypatch):
    code = "import bccd_d2, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert run(code) == "1000"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert run(code) == "None"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert run(code) == "7"


def test_detectron2_imports_and_names_are_there():
    out = run(
        "import bccd_d2, detectron2.engine, detectron2.evaluation, detectron2.modeling, torch, PIL.Image\n"
        "print(bool(torch.ops.detectron2) if detectron2.__version__ >= '0.6' else\n"
        "      callable(torch.ops.detectron2.nms_rotated) and PIL.Image.LINEAR == PIL.Image.BILINEAR)"
    )
    assert out == "True"


def test_the_rotated_operators_say_that_they_need_the_compiled_build(tmp_path):
    fake_detectron2(tmp_path, "0.4")
    out = run(
        "import bccd_d2, torch, detectron2.layers\n"
        "for call in (\n"
        "    lambda: torch.ops.detectron2.nms_rotated(torch.zeros(1, 5), torch.zeros(1), 0.5),\n"
        "    lambda: torch.ops.detectron2.box_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5)),\n"
        "    lambda: detectron2._C.deform_conv_forward(),\n"
        "):\n"
        "    try:\n        call()\n"
        "    except RuntimeError as error:\n        print(error)",
        tmp_path,
    )
    lines = out.splitlines()
    assert [line.split(" needs the compiled build")[0] for line in lines] == [
        "detectron2's nms_rotated",
        "detectron2's box_iou_rotated",
        "detectron2's _C.deform_conv_forward",
    ]
    assert all("--source git" in line for line in lines)


def test_a_compiled_module_that_is_there_wins(tmp_path):
    fake_detectron2(tmp_path, "0.4")
    (tmp_path / "detectron2" / "_C.py").write_text("compiled = True\n")
    assert run("import bccd_d2, detectron2.layers\nprint(detectron2.layers._C.compiled)", tmp_path) == "True"


def test_a_newer_detectron2_is_left_alone(tmp_path):
    fake_detectron2(tmp_path, "0.6")
    out = run(
        "import bccd_d2\n"
        "try:\n    import detectron2.layers\n"
        "except ImportError as error:\n    print(error.name, 'torch' in sys.modules)",
        tmp_path,
    )
    assert out == "detectron2 False"


def test_importing_detectron2_first_works_too(tmp_path):
    fake_detectron2(tmp_path, "0.4")
    out = run(
        "import detectron2, bccd_d2, detectron2.layers\nprint(detectron2._C.get_cuda_version())", tmp_path
    )
    assert out == "not compiled"


def test_installing_the_hook_twice_changes_nothing():
    assert (
        run("import bccd_d2.compat as c\nn = len(sys.meta_path); c.install(); print(len(sys.meta_path) - n)")
        == "0"
    )


@pytest.mark.skipif(importlib.util.find_spec("detectron2") is None, reason="detectron2 is not installed")
def test_the_environment_report_of_every_run_works():
    assert "detectron2" in run(
        "import bccd_d2, detectron2.layers\n"
        "from detectron2.utils.collect_env import collect_env_info\nprint(collect_env_info())"
    )
