import sys
from pathlib import Path

import numpy as np
import pytest

from bccd_d2.conversion.synthetic import draw_smear
from bccd_d2.errors import InputError
from bccd_d2.inference import export
from bccd_d2.inference.export import BOX_TOLERANCE, MASK_TOLERANCE, SCORE_TOLERANCE, compare, export_model
from bccd_d2.inference.networks import NetworkOutput, open_network

sys.path.insert(0, str(Path(__file__).parent))
from tiny_network import CLASS_NAMES, write_tiny_run  # noqa: E402

# Of different sizes, none of them a multiple of the backbone's stride at half the resolution.
IMAGES = [draw_smear(1, 260, 200).image, draw_smear(2, 131, 222).image]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny network: its configuration and its checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    cfg = write_tiny_run(folder)
    return cfg, str(folder / "model_final.pth")


@pytest.mark.parametrize("suffix", [".onnx", ".ts"])
def test_an_exported_network_finds_what_the_network_finds(run, tmp_path, suffix):
    if suffix == ".onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    cfg, weights = run
    path = tmp_path / f"cells{suffix}"
    differences = export_model(cfg, weights, path, IMAGES)
    assert [difference.expected > 5 for difference in differences] == [True, True]
    written = open_network(path)
    assert written.card.class_names == tuple(CLASS_NAMES)
    assert (written.card.scale, written.card.image_format, written.card.stain) == (0.5, "BGR", None)

    image = np.ascontiguousarray(draw_smear(3, 203, 119).image.transpose(2, 0, 1))
    expected, found = export._build_network(cfg, weights).detect(image), written(image)
    assert len(set(expected.classes.tolist())) > 1
    assert expected.masks.shape[1:] == (1, 28, 28) and expected.masks.std() > 0.1
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=BOX_TOLERANCE)
    np.testing.assert_allclose(found.scores, expected.scores, atol=SCORE_TOLERANCE)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.masks, expected.masks, atol=MASK_TOLERANCE)


def test_a_network_with_a_frozen_number_is_not_written(run, tmp_path, monkeypatch):
    cfg, weights = run

    class Frozen(export.TraceableNetwork):
        def forward(self, image):
            boxes, scores, classes, masks = super().forward(image)
            return boxes, scores, classes, masks * float(scores.max())

    monkeypatch.setattr(export, "TraceableNetwork", Frozen)
    path = tmp_path / "cells.ts"
    with pytest.raises(InputError, match="does not find what the network finds"):
        export_model(cfg, weights, path, IMAGES)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_finds_nothing_cannot_be_checked(run, tmp_path):
    cfg, weights = run
    cfg = cfg.clone()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.0
    with pytest.raises(InputError, match="finds no cell in any of the 2 images"):
        export_model(cfg, weights, tmp_path / "cells.ts", IMAGES)
    assert list(tmp_path.iterdir()) == []


def test_the_stain_step_travels_with_the_network(run):
    cfg = run[0].clone()
    cfg.INPUT.STAIN.ENABLED = True
    cfg.INPUT.STAIN.CHANNEL = "grey"
    card = export._card(cfg)
    again = type(card).from_json(card.to_json(), Path("cells.ts"))
    assert again.stain["channel"] == "grey"
    assert again.stain["target"] == {"mean": cfg.INPUT.STAIN.TARGET_MEAN, "std": cfg.INPUT.STAIN.TARGET_STD}


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
