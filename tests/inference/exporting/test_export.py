import subprocess
import sys

import numpy as np
import pytest

from bccd_d2.errors import InputError
from bccd_d2.inference.exporting import export
from bccd_d2.inference.exporting.export import (
    BOX_TOLERANCE,
    MASK_TOLERANCE,
    SCORE_TOLERANCE,
    compare,
    export_model,
)
from bccd_d2.inference.exporting.exported import ExportedPredictor, NetworkOutput, open_network
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.synthetic import draw_smear
from tests.inference.tiny_network import CLASS_NAMES, write_tiny_run

# Of different sizes, none of them a multiple of the backbone's stride at half the resolution. Nothing is found in the
# last.
IMAGES = [draw_smear(1, 260, 200).image, draw_smear(2, 131, 222).image, np.zeros((90, 70, 3), np.uint8)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny network: its configuration and its checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    cfg = write_tiny_run(folder)
    return cfg, str(folder / "model_final.pth")


@pytest.fixture(scope="module", params=[".onnx", ".ts"])
def exported(run, request, tmp_path_factory):
    """The network as a file, and what was measured when it was written."""
    if request.param == ".onnx":
        pytest.importorskip("onnx", reason="onnx is absent: pip install 'bccd_d2[onnx]'")
        pytest.importorskip("onnxruntime", reason="onnxruntime is absent: pip install 'bccd_d2[onnx]'")
    path = tmp_path_factory.mktemp("exported") / f"cells{request.param}"
    return path, export_model(*run, path, IMAGES)


def test_an_exported_network_finds_what_the_network_finds(run, exported):
    path, differences = exported
    assert [difference.expected for difference in differences] == [20, 20, 0]
    predictor = BCCDPredictor(*run, cpu_mode="plain")
    prepared = predictor.prepare(draw_smear(2, 222, 150).image, 1.0)
    image = np.ascontiguousarray(prepared.transpose(2, 0, 1))
    expected = export.TraceableNetwork(predictor.model).detect(image)
    found = open_network(path).run(image)
    assert (expected.classes > 0).any()  # so that a mask is chosen by class
    assert expected.masks.shape[1:] == (1, 28, 28) and expected.masks.std() > 10 * MASK_TOLERANCE
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=BOX_TOLERANCE)
    np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE_TOLERANCE)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.masks, expected.masks, atol=MASK_TOLERANCE)


def test_cells_of_an_exported_network_are_those_of_the_predictor(run, exported):
    options = PredictionOptions(score_threshold=0.35, tile_size=100, overlap=40)
    predictor = BCCDPredictor(*run, options, cpu_mode="plain")
    exported_predictor = ExportedPredictor(exported[0], options)
    assert exported_predictor.class_names == predictor.class_names == CLASS_NAMES
    expected = predictor.predict_cells(IMAGES[1])
    found = exported_predictor.predict_cells(IMAGES[1])
    assert len(found) == len(expected) > 3
    ious = np.diag(expected.ious(found))
    assert ious.min() > 0.97 and ious.mean() > 0.999
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE_TOLERANCE)


def test_an_onnx_file_needs_no_torch(exported, tmp_path):
    path, _ = exported
    if path.suffix != ".onnx":
        pytest.skip("TorchScript is run by torch")
    np.save(tmp_path / "image.npy", IMAGES[1])
    script = f"""
import sys, numpy as np
from bccd_d2.inference.exporting.exported import ExportedPredictor
from bccd_d2.data.stain import ReinhardNormalizer, StainTarget
image = np.load({str(tmp_path / "image.npy")!r})
print(len(ExportedPredictor({str(path)!r}).predict_cells(image)))
ReinhardNormalizer(StainTarget((50, 0, 0), (9, 9, 9)))(image)
print([name for name in ("torch", "detectron2") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    number, imported = out.splitlines()
    assert int(number) > 5
    assert imported == "[]"


def test_a_network_with_a_frozen_number_is_not_written(run, tmp_path, monkeypatch):
    cfg, weights = run

    class Frozen(export.TraceableNetwork):
        def forward(self, image, size):
            boxes, scores, classes, masks = super().forward(image, size)
            return boxes, scores, classes, masks * float(scores.max())

    monkeypatch.setattr(export, "TraceableNetwork", Frozen)
    path = tmp_path / "cells.ts"
    with pytest.raises(InputError, match="does not find what the network finds"):
        export_model(cfg, weights, path, IMAGES[:2])
    assert list(tmp_path.iterdir()) == []


def test_a_suppression_that_cannot_be_traced_is_refused(run, tmp_path):
    cfg = run[0].clone()
    cfg.MODEL.ROI_HEADS.MASK_NMS.ENABLED = True
    with pytest.raises(InputError, match=r"MASK_NMS cannot be exported"):
        export_model(cfg, run[1], tmp_path / "cells.ts", IMAGES[:2])


def test_a_network_that_finds_nothing_was_not_checked(tmp_path):
    empty = compare(output([], [], []), output([], [], []))
    assert empty.tolerable
    with pytest.raises(InputError, match="finds no cell in any of the 2 images"):
        export._check([empty, empty], tmp_path / "cells.ts")


def test_the_stain_step_travels_with_the_network(run, tmp_path):
    cfg = run[0].clone()
    cfg.INPUT.STAIN.ENABLED, cfg.INPUT.FORMAT, cfg.INPUT.WHITE_BALANCE = True, "RGB", True
    cfg.INPUT.CELL_DENSITY = [0.22, 0.4, 0.25]
    export_model(cfg, run[1], tmp_path / "cells.ts", IMAGES[:1])
    expected = BCCDPredictor(cfg, run[1], cpu_mode="plain").predict_cells(IMAGES[0], PredictionOptions())
    found = ExportedPredictor(tmp_path / "cells.ts").predict_cells(IMAGES[0])
    np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE_TOLERANCE)


def output(boxes, scores, classes, mask=0.5):
    number = len(scores)
    return NetworkOutput(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int64),
        np.full((number, 1, 28, 28), mask, np.float32),
    )


BOXES = [[0, 0, 10, 10], [20, 0, 30, 10]]


def test_partners_are_found_in_any_order():
    difference = compare(output(BOXES, [0.9, 0.8], [0, 1]), output(BOXES[::-1], [0.7996, 0.9], [1, 0], 0.504))
    assert difference.tolerable
    assert (difference.expected, difference.unmatched, difference.box) == (2, 0, 0)
    assert difference.score == pytest.approx(0.0004, abs=1e-6)
    assert difference.mask == pytest.approx(0.004, abs=1e-6)


@pytest.mark.parametrize(
    ("other", "unmatched"),
    [
        (output(BOXES[:1], [0.9], [0]), 1),
        (output([], [], []), 2),
        (output([BOXES[0], [20, 0, 30, 10.1]], [0.9, 0.8], [0, 1]), 2),
        (output(BOXES, [0.9, 0.8], [0, 2]), 2),
        (output(BOXES, [0.9, 0.81], [0, 1]), 0),
        (output(BOXES, [0.9, 0.8], [0, 1], 0.51), 0),
    ],
)
def test_what_is_not_the_same_is_noticed(other, unmatched):
    difference = compare(output(BOXES, [0.9, 0.8], [0, 1]), other)
    assert difference.unmatched == unmatched
    assert not difference.tolerable


def test_files_that_are_no_network_are_one_clear_line(tmp_path):
    with pytest.raises(InputError, match=r"expected a file that ends with \.onnx or \.ts"):
        open_network(tmp_path / "cells.pth")
    with pytest.raises(FileNotFoundError):
        open_network(tmp_path / "cells.onnx")
    for suffix in (".onnx", ".ts"):
        if suffix == ".onnx":
            pytest.importorskip("onnxruntime")
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(b"something else")
        with pytest.raises(InputError, match=f"broken{suffix}: not a"):
            open_network(path)
