"""The weights that come with the repository, as a newcomer uses them."""

import hashlib
import re

import cv2
import pytest

from bccd_d2.cells import Cells
from bccd_d2.conversion.layout import find_pairs
from bccd_d2.conversion.synthetic import draw_smear
from bccd_d2.inference.model_zoo import WEIGHTS_FOLDER, shipped_model
from bccd_d2.inference.predictor import BCCDPredictor

SCORE = 0.5


@pytest.fixture(scope="module")
def predictor() -> BCCDPredictor:
    files = shipped_model()
    return BCCDPredictor(files.config, files.weights)


def test_the_card_names_the_file_that_is_there():
    card = (WEIGHTS_FOLDER / "README.md").read_text(encoding="utf-8")
    content = (WEIGHTS_FOLDER / "lite.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() in card
    assert len(content) < 16 * 2**20
    assert re.search(r"CC BY-NC-SA 3\.0", card)
    assert "/" not in re.findall(r"^  ROOT: (.*)$", (WEIGHTS_FOLDER / "lite.yaml").read_text(), re.M)[0]


def test_cells_of_a_drawn_smear_are_found(predictor):
    smear = draw_smear(3, 800, 600)
    cells = predictor.predict_cells(smear.image)
    cells = cells[cells.scores >= SCORE]
    true = Cells.from_label_image(smear.instances.astype("int32"))
    true = true[true.areas >= 2000]  # platelets are no cells to the masks it was trained on
    overlap = cells.ious(true)
    assert (overlap.max(axis=0) > 0.5).mean() > 0.85
    assert (overlap.max(axis=1) > 0.5).mean() > 0.85


@pytest.mark.real_data
def test_cells_of_a_validation_image_are_found(predictor, real_pairs_root):
    # An image of the validation part of the converter's default split.
    stem = "01b99da8-b66b-464b-a7ee-1cadab8db18b"
    (pair,) = [pair for pair in find_pairs(real_pairs_root) if pair.stem == stem]
    mask = cv2.imread(str(pair.mask), cv2.IMREAD_GRAYSCALE)
    _, labels = cv2.connectedComponents((mask > 127).astype("uint8"))
    true = Cells.from_label_image(labels)
    true = true[true.areas >= 100]
    cells = predictor.predict_cells(cv2.imread(str(pair.image)))
    cells = cells[cells.scores >= SCORE]
    overlap = cells.ious(true)
    assert (overlap.max(axis=0) > 0.5).mean() > 0.95
    inside = cells[~cells.touches_border(1)].ious(true)
    assert (inside.max(axis=1) > 0.5).mean() > 0.9
