"""tools/predict.py with a tiny model of random weights: what it says, how it ends, what it leaves."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from bccd_d2.commands import run_command
from bccd_d2.inference.writers import FORMATS, format_files
from bccd_d2.synthetic import draw_smear
from tests.conftest import REPOSITORY
from tests.inference.tiny_network import write_tiny_run

TOOL = REPOSITORY / "tools" / "predict.py"


@pytest.fixture(scope="module")
def predict():
    """The module of the command."""
    spec = importlib.util.spec_from_file_location("predict_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A training run's folder: config.yaml and model_final.pth."""
    folder = tmp_path_factory.mktemp("run")
    write_tiny_run(folder, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0")
    return folder


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), np.roll(noise, index, axis=1))
    return folder


def arguments(images, model, *more):
    fixed = ["--input", str(images), "--output", str(images.parent / "out"), "--score-threshold", "0"]
    return [*fixed, "--run", str(model), *map(str, more)]


def status(main, *given):
    """How the process of a command would end."""
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: main(list(given)))
    return caught.value.code


def test_every_format_of_every_image_and_a_bad_file(predict, model, images, capsys):
    (images / "bad.png").write_bytes(b"\x89PNG")
    given = arguments(images, model, "--formats", ",".join(FORMATS))
    assert status(predict.main, *given) == 1
    captured = capsys.readouterr()
    assert "cells in 3 images" in captured.out
    assert "bad.png" in captured.err.splitlines()[-1] and captured.err.splitlines()[-1].startswith(
        "skipped: "
    )
    out = images.parent / "out"
    for index in range(3):
        for file in format_files(f"{index}.png", FORMATS):
            assert (out / file).stat().st_size > 0, file
    (images / "bad.png").unlink()
    assert status(predict.main, *given) == 0
    assert "3 of 3 files are finished already" in capsys.readouterr().out


class Runs:
    """A pickle that would make a file when it is loaded carelessly."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_weights_that_would_run_code_are_refused(predict, model, images, tmp_path, capsys):
    torch.save({"model": Runs(tmp_path / "it ran")}, tmp_path / "evil.pth")
    assert status(predict.main, *arguments(images, model, "--weights", tmp_path / "evil.pth")) == 1
    error = capsys.readouterr().err
    assert "error: MODEL.WEIGHTS: " in error and "evil.pth" in error
    assert not (tmp_path / "it ran").exists()
    # Nothing is left that would be in the way of the right weights.
    assert status(predict.main, *arguments(images, model)) == 0


def test_options_the_model_cannot_follow_are_refused_once(predict, model, images, capsys):
    assert status(predict.main, *arguments(images, model, "--mpp", "0.1")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: microns_per_pixel is given, but INPUT.MICRONS_PER_PIXEL")
    assert status(predict.main, *arguments(images, model, "--mpp", "0.1", "--scale", "1")) == 0


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--formats", "png"], 1, "formats: expected some of coco,labels"),
        (["--score-threshold", "2"], 1, "score_threshold: expected a number from 0 to 1"),
        (["--device", "gpu"], 1, "--device: expected cpu, cuda or cuda:N, found 'gpu'"),
        (
            ["--diameter", "automatic"],
            2,
            "--diameter: expected a number of pixels or auto, found 'automatic'",
        ),
        (["--num-gpus", "2", "--device", "cpu"], 2, "--device: not together with --num-gpus"),
    ],
)
def test_arguments_that_make_no_sense(predict, model, images, capsys, more, code, message):
    assert status(predict.main, *arguments(images, model, *more)) == code
    assert message in capsys.readouterr().err
    assert not (images.parent / "out").exists()


def test_more_cells_than_the_model_may_find(predict, model, images, capsys, caplog):
    """The model of random weights finds as many as it may: 20, or as many as are asked for."""
    assert status(predict.main, *arguments(images, model, "--formats", "csv")) == 0
    assert "60 cells in 3 images" in capsys.readouterr().out
    assert "TEST.DETECTIONS_PER_IMAGE 20); more: --max-detections" in caplog.text
    more = ("--formats", "csv", "--max-detections", "30")
    assert status(predict.main, *arguments(images, model, *more)) == 1
    assert "options.max_detections was None, is now 30" in capsys.readouterr().err
    assert status(predict.main, *arguments(images, model, *more, "--overwrite")) == 0
    assert "90 cells in 3 images" in capsys.readouterr().out


def test_no_cells_is_said(predict, model, images, capsys):
    given = arguments(images, model, "--formats", "csv", "--score-threshold", "1")
    assert status(predict.main, *given) == 0
    captured = capsys.readouterr()
    assert "0 cells in 3 images" in captured.out
    assert "no cells were found: is the score threshold too high" in captured.err


def test_ctrl_c_in_the_middle_of_a_batch(predict, model, images, capsys):
    """A real signal to a real process, once its first image is finished."""
    first = cv2.imread(str(images / "0.png"))
    for index in range(3, 80):
        cv2.imwrite(str(images / f"{index}.png"), first)
    out = images.parent / "out"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    }
    command = [sys.executable, str(TOOL), *arguments(images, model, "--formats", "csv,labels")]
    # Where the tests run in the background of a shell, Ctrl-C is ignored, which processes inherit.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heed)
    try:
        while not list(out.glob("records/*.json")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("interrupted; finished files are intact")
    finished = {path.name.removesuffix(".json") for path in out.glob("records/*")}
    assert 0 < len(finished) < 80
    assert not (out / ".partial").exists()
    for path in images.iterdir():
        if path.name not in finished and path.name not in ("1.png", "2.png"):
            path.unlink()
    before = {path: path.stat().st_mtime_ns for path in (out / "csv").iterdir() if path.stem in finished}
    assert status(predict.main, *arguments(images, model, "--formats", "csv,labels")) == 0
    assert f"{len(finished)} of" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_model_that_comes_with_the_repository_is_chosen_by_name(predict, model, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "smear.png"), draw_smear(6, 320, 240).image)
    given = ["--input", str(tmp_path / "smear.png"), "--output", str(tmp_path / "out"), "--formats", "csv"]
    assert predict.main([*given, "--model", "smear"]) == 0
    assert re.search(r"cells in 1 images, \d+ RBC, \d+ WBC, \d+ Platelets: ", capsys.readouterr().out)
    assert status(predict.main, *given, "--model", "smear", "--run", str(model)) == 1
    assert "--model smear: not together with --run" in capsys.readouterr().err
