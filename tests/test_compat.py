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


@pytest.fixture
def release(tmp_path):
    """A package that, as release 0.6 does, imports detectron2._C and uses names which Pillow and NumPy have dropped."""
    package = tmp_path / "detectron2"
    (package / "utils").mkdir(parents=True)
    (package / "utils" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from . import utils\n__version__ = '0.6'\n")
    (package / "layers.py").write_text(
        "import numpy as np\nfrom PIL import Image\nfrom detectron2 import _C\n"
        "names = [Image.LINEAR, np.int, np.float, np.str]\n"
    )
    return tmp_path


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


@pytest.mark.skipif(importlib.util.find_spec("detectron2") is None, reason="detectron2 is not installed")
def test_the_installed_detectron2_imports_and_reports_its_environment():
    assert "detectron2" in run(
        "import bccd_d2, detectron2.engine, detectron2.evaluation, detectron2.modeling\n"
        "from detectron2.utils.collect_env import collect_env_info\nprint(collect_env_info())"
    )


def test_functions_of_the_stand_in_say_that_they_need_the_compiled_build(release):
    out = run(
        "import bccd_d2, detectron2.layers\n"
        "try:\n    detectron2._C.deform_conv_forward()\nexcept RuntimeError as error:\n    print(error)",
        release,
    )
    assert out.startswith("detectron2's _C.deform_conv_forward needs the compiled build")
    assert "--source git" in out


def test_a_compiled_module_that_is_there_wins_and_dropped_names_are_given_back(release):
    (release / "detectron2" / "_C.py").write_text("compiled = True\n")
    out = run(
        "import bccd_d2, detectron2.layers as d\nprint(d._C.compiled, d.names[0].name, d.names[1:])", release
    )
    assert out == "True BILINEAR [<class 'int'>, <class 'float'>, <class 'str'>]"


def test_a_detectron2_that_runs_as_plain_python_is_left_alone(release):
    # Upstream's main branch calls itself 0.6 too; it makes dummies of what is not compiled.
    (release / "detectron2" / "utils" / "develop.py").write_text("")
    (release / "detectron2" / "layers.py").write_text(
        "import PIL.Image\ntry:\n    from detectron2 import _C\nexcept ImportError:\n    _C = None\n"
    )
    out = run(
        "import bccd_d2, detectron2.layers as d\nprint(d._C, hasattr(d.PIL.Image, 'LINEAR'))",
        release,
    )
    assert out == "None False"


def test_importing_detectron2_first_works_too(release):
    out = run(
        "import detectron2, bccd_d2, detectron2.layers\nprint(detectron2._C.get_cuda_version())", release
    )
    assert out == "not compiled"


def test_installing_the_hook_twice_changes_nothing():
    assert (
        run("import bccd_d2.compat as c\nn = len(sys.meta_path); c.install(); print(len(sys.meta_path) - n)")
        == "0"
    )
