import json
from pathlib import Path

import pytest
from detectron2.data import get_detection_dataset_dicts

from bccd_d2.engine.setup import setup_config
from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import read_evaluation_set
from bccd_d2.structures import coco
from bccd_d2.structures.coco_repair import repair_coco
from bccd_d2.structures.dataset_files import annotation_file
from tests.engine.tiny import LITE, write_data


@pytest.fixture
def data_root(tmp_path):
    return str(write_data(tmp_path / "data"))


def test_each_annotation_file_is_checked_once_and_each_reader_has_its_own_copy(data_root, monkeypatch):
    checked = []
    monkeypatch.setattr(coco, "repair_coco", lambda document: checked.append(1) or repair_coco(document))
    cfg = setup_config(LITE, ["DATASETS.TRAIN", "('bccd_train', 'bccd_train')"], data_root)
    assert (["cell"], data_root) == (cfg.DATASETS.CLASS_NAMES, cfg.DATASETS.ROOT)
    assert len(get_detection_dataset_dicts(cfg.DATASETS.TRAIN)) == 6
    file = annotation_file(Path(data_root), "val")
    read_evaluation_set(file)
    assert len(checked) == 2  # train, val
    coco.read_coco(file)["images"].clear()
    assert len(coco.read_coco(file)["images"]) == 2
    file.write_text(file.read_text().replace('"cell"', '"RBC"'))
    assert coco.read_coco(file)["categories"][0]["name"] == "RBC"


def test_the_configuration_learns_the_diameter_of_a_cell_unless_it_is_given(tmp_path):
    root = write_data(tmp_path / "data")
    path = root / "annotations" / "instances_train.json"
    document = json.loads(path.read_text())
    # Squares of 10, 20 and 30 pixels; a cut one and a crowd do not count.
    squares = ((10, 0, False), (20, 0, False), (30, 0, False), (5, 0, True), (6, 1, False))
    shared = {"image_id": 0, "category_id": 1}
    document["annotations"] = [
        {**shared, "segmentation": [[0, 0, s, 0, s, s, 0, s]], "iscrowd": crowd, "border": border}
        for s, crowd, border in squares
    ]
    path.write_text(json.dumps(document))
    assert setup_config(LITE, data_root=str(root)).INPUT.CELL_DIAMETER == 22.6  # a disc of 400 pixels
    assert setup_config(LITE, ["INPUT.CELL_DIAMETER", "33.0"], str(root)).INPUT.CELL_DIAMETER == 33
    assert setup_config(LITE, data_root=str(root), training=False).INPUT.CELL_DIAMETER == 0


def test_evaluation_alone_needs_no_training_data(tmp_path):
    root = write_data(tmp_path / "data")
    (root / "annotations" / "instances_train.json").unlink()
    assert setup_config(LITE, data_root=str(root), training=False).DATASETS.TEST == ("bccd_val",)
    with pytest.raises(InputError, match="bccd_train has no annotation file; found bccd_val"):
        setup_config(LITE, data_root=str(root))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.ROI_HEADS.NUM_CLASSES", "3"], r"NUM_CLASSES: found 3, expected 1, for the data have cell"),
        (["DATASETS.CLASS_NAMES", "['RBC']"], "class 'cell', expected one of 0 RBC"),
        (["DATASETS.TEST", "('bccd_test',)"], "bccd_test has no annotation file; found bccd_train, bccd_val"),
        (["TEST.SIZE_EDGES", "[90.0, 30.0]"], "TEST.SIZE_EDGES: expected two rising numbers"),
    ],
)
def test_what_does_not_fit_the_data_is_named(data_root, options, message):
    with pytest.raises(InputError, match=message):
        setup_config(LITE, options, data_root)
