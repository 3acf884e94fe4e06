"""The weights that come with the repository, as a newcomer uses them."""

import hashlib
import logging
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from bccd_d2.config import load_config
from bccd_d2.conversion.importers.boxes import read_voc
from bccd_d2.conversion.pairs import find_pairs
from bccd_d2.evaluation.matching import box_ious
from bccd_d2.inference.model_files import SHIPPED_MODEL, WEIGHTS_FOLDER, shipped_model
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.modeling.checkpoint_files import read_checkpoint
from bccd_d2.modeling.weights import BCCDCheckpointer
from bccd_d2.structures.cells import Cells
from bccd_d2.synthetic import draw_smear
from tests.conftest import REPOSITORY

SCORE = 0.5


@pytest.fixture(scope="module")
def predictor() -> BCCDPredictor:
    files = shipped_model()
    return BCCDPredictor(files.config, files.weights)


def test_the_card_names_the_file_that_is_there():
    name = SHIPPED_MODEL
    text = (WEIGHTS_FOLDER / "README.md").read_text(encoding="utf-8")
    content = (WEIGHTS_FOLDER / f"{name}.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() in text
    assert len(content) < 16 * 2**20
    assert re.search(r"CC BY-NC-SA 3\.0", text)
    assert "/" not in re.findall(r"^  ROOT: (.*)$", (WEIGHTS_FOLDER / f"{name}.yaml").read_text(), re.M)[0]


def cells_of(predictor, image):
    cells = predictor.predict_cells(image)
    return cells[cells.scores >= SCORE]


@pytest.mark.parametrize("magnification", [0.4, 1.0, 1.8])
def test_cells_of_a_synthetic_smear_have_their_classes_at_any_magnification(predictor, magnification):
    assert list(predictor.class_names) == ["RBC", "WBC", "Platelets"]
    smear = draw_smear(6, 800, 600)
    size = (round(800 * magnification), round(600 * magnification))
    cells = cells_of(predictor, cv2.resize(smear.image, size, interpolation=cv2.INTER_AREA))
    labels = cv2.resize(smear.instances, size, interpolation=cv2.INTER_NEAREST)
    overlap = cells.ious(Cells.from_label_image(labels.astype("int32")))
    names = np.array(predictor.class_names)
    found = [
        names[cells.classes[column.argmax()]] == cell.class_name
        for cell, column in zip(smear.cells, overlap.T)
        if not cell.at_border and column.max() > 0.5
    ]
    inside = sum(not cell.at_border for cell in smear.cells)
    assert len(found) >= 0.9 * inside
    assert sum(found) >= 0.95 * len(found)


@pytest.mark.parametrize("lamp", [(0.5, 0.9, 1.0), (1.0, 1.0, 0.6)], ids=["orange", "cyan"])
def test_the_colour_of_the_lamp_changes_little(predictor, lamp):
    image = draw_smear(3, 800, 600).image
    plain, lit = cells_of(predictor, image), cells_of(predictor, (image * np.array(lamp)).astype(np.uint8))
    assert abs(len(plain) - len(lit)) <= 0.05 * len(plain)
    assert (plain.ious(lit).max(axis=1) > 0.8).mean() > 0.95


@pytest.mark.real_data
def test_cells_of_a_validation_image_are_found(predictor, real_pairs_root):
    # An image of the validation part of the converter's default split.
    stem = "01b99da8-b66b-464b-a7ee-1cadab8db18b"
    (pair,) = [pair for pair in find_pairs(real_pairs_root) if pair.stem == stem]
    mask = cv2.imread(str(pair.mask), cv2.IMREAD_GRAYSCALE)
    _, labels = cv2.connectedComponents((mask > 127).astype("uint8"))
    true = Cells.from_label_image(labels)
    true = true[true.areas >= 100]
    cells = cells_of(predictor, cv2.imread(str(pair.image)))
    cells = cells[cells.classes != 2]  # platelets are no cells to the masks
    overlap = cells.ious(true)
    assert (overlap.max(axis=0) > 0.5).mean() > 0.95
    inside = cells[~cells.touches_border(1)].ious(true)
    assert (inside.max(axis=1) > 0.5).mean() > 0.9


def test_a_model_of_other_classes_starts_from_the_shipped_one(caplog):
    model = build_model(load_config(REPOSITORY / "configs" / "mask_rcnn_slim_FPN_lite.yaml"))
    with caplog.at_level(logging.WARNING):
        BCCDCheckpointer(model).resume_or_load(shipped_model().weights, resume=False)
    given = read_checkpoint(Path(shipped_model().weights))["model"]
    new = {key for key, tensor in model.state_dict().items() if tensor.shape != given[key].shape}
    layers = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor")
    assert new == {f"roi_heads.{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert all(
        torch.equal(model.state_dict()[key], given[key].to(t.dtype))
        for key, t in model.state_dict().items()
        if key not in new
    )
    assert "6 of another shape" in caplog.text


@pytest.mark.real_data
def test_cells_of_fields_that_were_not_trained_on_have_their_classes(predictor, real_voc_root):
    found, names = [], []
    for stem in (real_voc_root / "ImageSets" / "Main" / "val.txt").read_text().split()[::20]:
        drawn = read_voc(real_voc_root / "Annotations" / f"{stem}.xml").cells
        classes, corners = [cell.class_name for cell in drawn], np.array([cell.box for cell in drawn], float)
        cells = cells_of(predictor, cv2.imread(str(real_voc_root / "JPEGImages" / f"{stem}.jpg")))
        right = np.array(predictor.class_names)[cells.classes][:, None] == np.array(classes)[None]
        found += (right & (box_ious(cells.boxes, corners) >= 0.5)).any(axis=0).tolist()
        names += classes
    share = {name: np.mean(np.array(found)[np.array(names) == name]) for name in set(names)}
    assert share.keys() == {"RBC", "WBC", "Platelets"}
    assert share["RBC"] > 0.9
    assert share["WBC"] == 1
    assert share["Platelets"] > 0.7


@pytest.mark.real_data
def test_red_cells_of_another_laboratory_are_found_without_options(predictor, real_data_root):
    """Images of a magnification and stain that no training has seen; their red cells are marked by points."""
    images = sorted((real_data_root("chula_rbc") / "images").iterdir())[::40]
    found = total = 0
    for path in images:
        label = path.parent.parent / "labels" / f"{path.stem}.txt"
        points = np.array(
            [line.split()[:2] for line in label.read_text().splitlines() if line.strip()], float
        )
        boxes = cells_of(predictor, cv2.imread(str(path))).boxes
        inside = (points[:, None] >= boxes[None, :, :2]) & (points[:, None] <= boxes[None, :, 2:])
        found, total = found + inside.all(axis=2).any(axis=1).sum(), total + len(points)
    assert found >= 0.97 * total
