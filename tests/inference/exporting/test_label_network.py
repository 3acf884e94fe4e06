import warnings

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.config import load_config
from bccd_d2.data.preprocessing import (
    apply_table,
    balance_table,
    density_factor,
    resize_image,
    white_balance_gain,
)
from bccd_d2.inference.exporting import label_network
from bccd_d2.inference.exporting.export import trace
from bccd_d2.inference.exporting.label_network import LabelNetwork, label_image
from bccd_d2.inference.exporting.plain_ops import without_torchvision
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.io.sources import ArraySource, sample_image
from bccd_d2.structures.detections import Detections
from bccd_d2.synthetic import draw_smear
from tests.inference.tiny_network import write_tiny_run

THRESHOLD = 0.75
# The first is what is traced; the others have other sizes and numbers of cells, the last has none.
IMAGES = [draw_smear(1, 260, 200).image, draw_smear(2, 131, 222).image, draw_smear(3, 90, 64).image]
EMPTY = np.zeros((90, 70, 3), np.uint8)


def labels_of(boxes, probabilities, height=6, width=7):
    masks = torch.tensor(probabilities, dtype=torch.float32)[:, None, None].expand(-1, 28, 28)
    return label_image(torch.tensor(boxes).reshape(-1, 4), masks, torch.tensor([height, width])).numpy()


def test_the_better_cell_is_on_top_and_one_without_a_pixel_has_no_number():
    boxes = [[0.0, 0, 4, 3], [1, 1, 3, 3], [2, 1, 9, 5]]
    expected = np.zeros((6, 7), int)
    expected[1:5, 2:7] = 2  # cut at the border of the image
    expected[0:3, 0:4] = 1
    np.testing.assert_array_equal(labels_of(boxes, [1.0, 0.4, 1.0]), expected)
    # The second one has pixels, but none that the first leaves to it: its number is not given to another.
    expected[expected == 2] = 3
    np.testing.assert_array_equal(labels_of(boxes, [1.0, 1.0, 1.0]), expected)


def test_no_cells_and_cells_outside_are_background():
    np.testing.assert_array_equal(labels_of([], []), np.zeros((6, 7), int))
    np.testing.assert_array_equal(
        labels_of([[8.0, 0, 9, 2], [2, 2, 2, 4]], [1.0, 1.0]), np.zeros((6, 7), int)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12))
def test_masks_are_put_where_the_predictor_puts_them(seed, number):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-5, 40, (number, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.3, 30, (number, 2))], axis=1).clip(
        0, [37, 41] * 2
    )
    coarse = rng.uniform(0, 1, (number, 4, 4)).astype(np.float32)
    masks = np.stack([cv2.resize(mask, (14, 14)) for mask in coarse] or [np.zeros((14, 14), np.float32)])[
        :number
    ]
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    boxes, masks = boxes[inside].astype(np.float32), masks[inside]
    scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
    cells = Detections(41, 37, boxes, np.zeros(len(boxes), np.int64), scores, masks).paste()
    expected = cells[cells.areas > 0].label_image()
    found = label_image(torch.from_numpy(boxes), torch.from_numpy(masks), torch.tensor([41, 37])).numpy()
    assert (found != expected).sum() <= 1  # a probability of 0.5 to rounding


@pytest.mark.parametrize("size", [(60, 50), (700, 600)])
def test_the_colour_balance_is_that_of_a_prediction(size):
    image = draw_smear(4, *size).image
    expected = white_balance_gain(sample_image(ArraySource(image)))
    levels = label_network.sample_levels(torch.from_numpy(image.transpose(2, 0, 1).copy()).float())
    gain = label_network.white_balance_gain(levels)
    np.testing.assert_array_equal(gain.numpy(), expected)
    target = [0.25, 0.4, 0.22]
    balanced = apply_table(sample_image(ArraySource(image)), balance_table(expected))
    factor = label_network.density_factor(levels, gain, target).numpy()
    np.testing.assert_allclose(factor, density_factor(balanced, target), rtol=1e-9)


def test_an_image_without_cells_keeps_its_densities():
    levels = torch.full((3, 50), 200.0, dtype=torch.float64)
    assert label_network.density_factor(levels, torch.ones(3), [0.3] * 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize(("size", "most"), [((40, 30), 0), ((41, 31), 1), ((23, 57), 1), ((100, 140), 1)])
def test_images_are_resized_as_by_the_predictor(size, most):
    image = draw_smear(5, 61, 80).image[:80, :60]
    expected = resize_image(image, *size)
    found = label_network.resize(
        torch.from_numpy(image.transpose(2, 0, 1).copy()).float(), torch.tensor(size)
    )
    assert np.abs(found.numpy().transpose(1, 2, 0) - expected).max() <= most


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny network with white balance: its configuration and its checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    write_tiny_run(folder)
    cfg = load_config(folder / "config.yaml")
    cfg.INPUT.WHITE_BALANCE = True
    cfg.INPUT.CELL_DENSITY = [0.25, 0.4, 0.22]
    return cfg, str(folder / "model_final.pth")


@pytest.fixture(scope="module")
def predictor(run):
    options = PredictionOptions(score_threshold=THRESHOLD, tile_size=1 << 15)
    return BCCDPredictor(*run, options, cpu_mode="plain")


def tensor(image):
    return torch.from_numpy(image[:, :, ::-1].transpose(2, 0, 1)[None].copy()).float()


@pytest.fixture(scope="module", params=["eager", "labels.pt", "labels.onnx"])
def label(run, predictor, request, tmp_path_factory):
    """From an image to its label image."""
    network = LabelNetwork.from_config(run[0], predictor.model, THRESHOLD)
    if request.param == "eager":
        return torch.no_grad()(lambda image: network(tensor(image)).numpy())
    path = tmp_path_factory.mktemp("traced") / request.param
    free = {2: "height", 3: "width"}
    if request.param == "labels.pt":
        with without_torchvision():
            trace(network, (tensor(IMAGES[0]),), path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            script = torch.jit.load(path)
        assert "torchvision" not in str(script.inlined_graph)
        return torch.no_grad()(lambda image: script(tensor(image)).numpy())
    pytest.importorskip("onnx", reason="onnx is absent: pip install 'bccd_d2[onnx]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="absent: pip install 'bccd_d2[onnx]'")
    trace(network, (tensor(IMAGES[0]),), path, {"image": free}, {"labels": free}, opset=18)
    session = onnxruntime.InferenceSession(str(path))
    return lambda image: session.run(None, {"image": tensor(image).numpy()})[0]


def test_label_images_are_those_of_the_predictor(label, predictor):
    numbers = []
    for image in [*IMAGES, EMPTY]:
        expected, found = predictor.predict_cells(image).label_image(), label(image)
        assert found.shape == (1, 1, *image.shape[:2]) and found.dtype == np.float32
        assert (found[0, 0] == expected).mean() >= 0.999
        numbers.append(expected.max())
    assert len(set(numbers)) > 2 and min(numbers) == 0, numbers
