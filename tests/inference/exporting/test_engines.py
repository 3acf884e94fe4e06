from pathlib import Path

import cv2
import numpy as np
import pytest

from bccd_d2.config import cpu_supports_bfloat16
from bccd_d2.errors import InputError
from bccd_d2.inference.exporting import engines
from bccd_d2.inference.exporting.engines import exported_file, load_predictor
from bccd_d2.inference.model_files import ModelFiles
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.synthetic import draw_smear
from tests.inference.tiny_network import write_tiny_run
from tools import predict

# No side is a multiple of the network's stride, and several tiles of several sizes.
IMAGE = draw_smear(3, 261, 190).image
OPTIONS = PredictionOptions(score_threshold=0.35, tile_size=150, overlap=40)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("onnx", reason="onnx is absent: pip install 'bccd_d2[onnx]'")
    folder = tmp_path_factory.mktemp("run")
    write_tiny_run(folder)
    return ModelFiles(str(folder / "config.yaml"), str(folder / "model_final.pth"))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "bccd_d2"


@pytest.mark.parametrize(("engine", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_every_engine_finds_the_same_cells(model, engine, module):
    pytest.importorskip(module, reason=f"{module} is absent: pip install 'bccd_d2[{engine}]'")
    expected = load_predictor(model, OPTIONS).predict_cells(IMAGE)
    predictor = load_predictor(model, OPTIONS, engine=engine)
    found = predictor.predict_cells(IMAGE)
    assert len(found) == len(expected) > 5
    ious = expected.ious(found)
    assert ious.max(axis=1).min() > 0.95
    np.testing.assert_array_equal(found.classes[ious.argmax(axis=1)], expected.classes)
    np.testing.assert_allclose(np.sort(found.scores), np.sort(expected.scores), atol=1e-3)


@pytest.mark.skipif(not cpu_supports_bfloat16(), reason="this CPU has no bfloat16")
@pytest.mark.parametrize("engine", ["eager", "openvino"])
def test_bfloat16_leaves_the_cells_where_they_are(model, engine):
    if engine == "openvino":
        pytest.importorskip("openvino", reason="openvino is absent: pip install 'bccd_d2[openvino]'")
    # bfloat16 knows every fourth number between 512 and 1024: boxes in it would be off by 2 px.
    image, options = draw_smear(3, 900, 200).image, PredictionOptions(score_threshold=0.35)
    expected = load_predictor(model, options).predict_cells(image)
    found = load_predictor(model, options, engine=engine, precision="bfloat16").predict_cells(image)
    assert len(expected) > 10
    assert (expected.ious(found).max(axis=1) > 0.99).mean() >= 0.9


def test_a_network_is_exported_once_and_again_for_other_weights(model, cache, tmp_path, monkeypatch):
    path = exported_file(model)
    assert path.parent == cache
    monkeypatch.setattr(engines, "export_model", lambda cfg, weights, path: path.write_bytes(b""))
    assert exported_file(model) == path
    assert path.stat().st_size > 0
    other = tmp_path / "model_final.pth"
    other.write_bytes(Path(model.weights).read_bytes() + b"0")
    changed = [exported_file(ModelFiles(model.config, str(other))), exported_file(model, max_detections=7)]
    assert len({path, *changed}) == 3


def test_what_an_engine_cannot_do_is_said_before_the_work(model, tmp_path, capsys, monkeypatch):
    with pytest.raises(InputError, match="an exported network needs --engine onnx or openvino"):
        load_predictor(ModelFiles(model.config, "cells.onnx"), OPTIONS)
    with pytest.raises(InputError, match=r"microns_per_pixel is given, but INPUT\.MICRONS_PER_PIXEL"):
        load_predictor(model, PredictionOptions(microns_per_pixel=0.1))
    with pytest.raises(InputError, match="--engine onnx runs on the CPU: not together with --device cuda"):
        load_predictor(model, OPTIONS, engine="onnx", device="cuda")
    with pytest.raises(InputError, match="--max-detections: the number is part of an exported network"):
        load_predictor(ModelFiles(model.config, "cells.onnx"), OPTIONS, engine="onnx", max_detections=3)
    with pytest.raises(InputError, match=r"model\.pth is not there; .* needs the weights as a file"):
        load_predictor(ModelFiles(model.config, str(tmp_path / "model.pth")), OPTIONS, engine="openvino")
    views = tmp_path / "views.yaml"
    views.write_text(f"_BASE_: {model.config}\nTEST:\n  TTA:\n    ENABLED: True\n")
    given = ["--config-file", str(views), "--weights", model.weights, "--engine", "openvino"]
    with pytest.raises(InputError, match=r"views\.yaml: TEST\.TTA\.ENABLED is True, .* give --tta"):
        predict.main([*given, "--input", model.config, "--output", str(tmp_path / "out")])
    with pytest.raises(InputError, match="--precision bfloat16: --engine onnx knows float32 only"):
        load_predictor(model, OPTIONS, engine="onnx", precision="bfloat16")
    monkeypatch.setattr(engines, "cpu_supports_bfloat16", lambda: False)
    with pytest.raises(InputError, match="--precision bfloat16: this CPU does not compute it in hardware"):
        load_predictor(model, OPTIONS, precision="bfloat16")
    with pytest.raises(SystemExit):
        predict.parse(["--input", "a", "--output", "b", "--engine", "onnx", "--num-gpus", "2"])
    assert "--engine onnx: runs on CPUs, not together with --num-gpus" in capsys.readouterr().err


def test_the_command_predicts_with_an_exported_file_and_remembers_the_engine(model, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is absent: pip install 'bccd_d2[onnx]'")
    cv2.imwrite(str(tmp_path / "smear.png"), IMAGE)
    command = ["--input", str(tmp_path / "smear.png"), "--output", str(tmp_path / "out"), "--scale", "1"]
    command += ["--formats", "csv", "--config-file", model.config, "--score-threshold", "0.35"]
    assert predict.main([*command, "--weights", str(exported_file(model)), "--engine", "onnx"]) == 0
    assert len((tmp_path / "out" / "csv" / "smear.png.csv").read_text().splitlines()) > 5
    with pytest.raises(InputError, match="--overwrite"):
        predict.main([*command, "--weights", model.weights])
