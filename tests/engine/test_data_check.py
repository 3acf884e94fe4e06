"""Data sets that a person could make by accident: refused, or trained on, before the first iteration."""

import json
import re

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from bccd_d2.engine.setup import setup_config
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.errors import InputError
from tests.engine.tiny import LITE, tiny_config, write_data

TWO = ("MODEL.ROI_HEADS.NUM_CLASSES", "2")


@pytest.fixture
def root(tmp_path):
    return write_data(tmp_path / "data")


def change(root, part, **keys):
    """Set keys of a part's JSON; a function gets the old value."""
    path = root / "annotations" / f"instances_{part}.json"
    content = json.loads(path.read_text())
    for key, value in keys.items():
        content[key] = value(content[key]) if callable(value) else value
    path.write_text(json.dumps(content))


def crowd(annotations):
    return [{**one, "iscrowd": 1} for one in annotations]


def of_class(number):
    return lambda annotations: [{**one, "category_id": number} for one in annotations]


def categories(*names, first=1):
    return [{"id": first + index, "name": name} for index, name in enumerate(names)]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"annotations": crowd}, r"train\.json: all 9 annotations have iscrowd 1: nothing to learn from"),
        ({"annotations": []}, r"train\.json: found 3 images without annotations: nothing to learn from"),
        ({"images": [], "annotations": []}, r"train\.json: found no images, expected images to train on"),
    ],
)
def test_what_nothing_can_be_learned_from_is_refused(root, tmp_path, keys, message):
    change(root, "train", **keys)
    with pytest.raises(InputError, match=message):
        tiny_config(root, tmp_path)


@pytest.mark.parametrize(
    ("keys", "options", "message"),
    [
        ({"images": [], "annotations": []}, (), "val.json: found no images: bccd_val is not evaluated"),
        ({"annotations": []}, (), "val.json: found no cells: bccd_val is not evaluated"),
        ({"annotations": crowd}, (), "val.json: found no cells: bccd_val is not evaluated"),
        ({}, ("DATASETS.TEST", "()"), "nothing is evaluated"),
    ],
)
def test_what_can_be_trained_but_not_evaluated_is_trained(root, tmp_path, caplog, keys, options, message):
    change(root, "val", **keys)
    every = "SOLVER.MAX_ITER 1 TEST.EVAL_PERIOD 1 TEST.PATIENCE 1 TEST.VALIDATION_LOSS_PERIOD 1"
    cfg = tiny_config(root, tmp_path / "run", *every.split(), *options)
    assert message in caplog.text
    assert caplog.text.count("nothing is evaluated: DATASETS.TEST has no data set with cells") == 1
    BCCDTrainer(cfg).train()
    assert (tmp_path / "run" / "model_final.pth").is_file()
    assert not (tmp_path / "run" / "results.json").exists()


def without_ids(annotations):
    return [{key: value for key, value in one.items() if key != "id"} for one in annotations]


def each_with(**values):
    return lambda annotations: [{**one, **values} for one in annotations]


@pytest.mark.parametrize(
    ("annotations", "encoding"),
    [
        (without_ids, "utf-8"),
        (each_with(id="x"), "utf-8-sig"),
        (each_with(keypoints="none"), "utf-16"),
        (each_with(keypoints=[1, None], ignore=0), "utf-8"),
    ],
)
@pytest.mark.parametrize("part", ["train", "val"])
def test_faults_that_are_repaired_reach_neither_training_nor_evaluation(
    root, tmp_path, part, annotations, encoding
):
    change(root, part, annotations=annotations)
    path = root / "annotations" / f"instances_{part}.json"
    path.write_text(path.read_text(), encoding=encoding)
    BCCDTrainer(tiny_config(root, tmp_path / "run", "SOLVER.MAX_ITER", 1)).train()
    assert "segm" in json.loads((tmp_path / "run" / "results.json").read_text())["bccd_val"]


def test_annotations_with_ignore_are_regions_to_ignore(root, tmp_path, caplog):
    change(root, "train", annotations=lambda a: [{**a[0], "ignore": 1}, *a[1:]])
    tiny_config(root, tmp_path)
    (record, *_) = DatasetCatalog.get("bccd_train")
    assert [one["iscrowd"] for one in record["annotations"]] == [1, 0, 0]
    assert "1 annotations with ignore 1, taken for regions to ignore" in caplog.text


@pytest.mark.parametrize(("part", "number"), [("train", 1), ("val", 4)])
def test_images_that_cannot_be_used_are_all_listed_before_the_first_iteration(root, tmp_path, part, number):
    spoilt = root / f"{number}.png"
    for spoil, message in (
        (lambda: spoilt.write_bytes(spoilt.read_bytes()[:-60]), "cut short|cannot be decoded"),
        (lambda: cv2.imwrite(str(spoilt), np.zeros((20, 30, 3), np.uint8)), "30x20 pixels, expected 128x96"),
        (spoilt.unlink, "no such file"),
    ):
        spoil()
        with pytest.raises(
            InputError, match=rf"instances_{part}\.json: images that cannot be used \(1 of"
        ) as caught:
            tiny_config(root, tmp_path)
        assert re.search(message, str(caught.value))


def test_more_cells_than_detections_are_said(root, tmp_path, caplog):
    tiny_config(root, tmp_path, "TEST.DETECTIONS_PER_IMAGE", 2)
    assert "val.json: an image has 3 cells, but TEST.DETECTIONS_PER_IMAGE is 2" in caplog.text
    assert "--max-detections" in caplog.text


def test_an_evaluation_of_nothing_is_refused(root, tmp_path):
    with pytest.raises(InputError, match=r"DATASETS\.TEST is \(\)"):
        setup_config(LITE, ["DATASETS.TEST", "()"], str(root), training=False)
    change(root, "val", images=[], annotations=[])
    with pytest.raises(InputError, match=r"val\.json: found no images, expected images to evaluate"):
        setup_config(LITE, [], str(root), training=False)
    (root / "annotations" / "instances_val.json").unlink()
    with pytest.raises(InputError, match=r"bccd_val has no annotation file; .* trains without an evaluation"):
        tiny_config(root, tmp_path)


@pytest.mark.parametrize(
    ("listed", "used", "expected"),
    [
        # The numbers are others.
        (categories("RBC", "WBC", first=7), 8, 1),
        # The order is another.
        (categories("WBC", "RBC"), 1, 1),
        # A class is missing.
        (categories("WBC"), 1, 1),
    ],
)
def test_classes_are_joined_by_name(root, tmp_path, caplog, listed, used, expected):
    change(root, "train", categories=categories("RBC", "WBC"))
    change(root, "val", categories=listed, annotations=of_class(used))
    cfg = tiny_config(root, tmp_path / "run", *TWO, "SOLVER.MAX_ITER", 1, "TEST.VALIDATION_LOSS_PERIOD", 1)
    assert cfg.DATASETS.CLASS_NAMES == ["RBC", "WBC"]
    found = {one["category_id"] for record in DatasetCatalog.get("bccd_val") for one in record["annotations"]}
    assert found == {expected}
    assert "no RBC among the cells: no ground truth for these classes in bccd_val" in caplog.text
    assert "no WBC among the cells: the model will not learn to find them" in caplog.text
    BCCDTrainer(cfg).train()
    results = json.loads((tmp_path / "run" / "results.json").read_text())["bccd_val"]
    assert results["segm"]["AP"] >= 0


def test_cells_of_classes_that_the_model_lacks_are_counted(root, tmp_path, caplog):
    change(root, "val", categories=categories("cell", "platelet"))
    change(root, "val", annotations=lambda a: [{**one, "category_id": 1 + n % 2} for n, one in enumerate(a)])
    tiny_config(root, tmp_path)
    assert "3 annotations of classes that the model does not have" in caplog.text
    change(root, "val", categories=categories("platelet", "other"))
    with pytest.raises(InputError, match=r"val\.json: found the classes platelet, other, expected cell"):
        tiny_config(root, tmp_path)


def test_crops_larger_than_the_images_are_said_and_trained(root, tmp_path, caplog):
    cfg = tiny_config(
        root, tmp_path, "INPUT.CROP.SIZE", "[64,640]", "SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()"
    )
    assert (
        "INPUT.CROP.SIZE is [64, 640], but 3 of 3 training images are smaller (one of 96x128)" in caplog.text
    )
    BCCDTrainer(cfg).train()


@pytest.mark.parametrize(
    "pipeline",
    [
        "[['RandomCrop', {}]]",  # no height and width
        "[['Mosaic', {'p': 0.01}]]",  # other images, once in a hundred crops
        "[['OneOf', {'transforms': [['Blur', {}], ['OverlayElements', {}]], 'p': 0.1}]]",
    ],
)
def test_an_augmentation_that_lacks_what_it_needs_is_refused(root, tmp_path, pipeline):
    with pytest.raises(InputError, match=r"INPUT\.AUGMENTATION\.PIPELINE"):
        tiny_config(root, tmp_path, "INPUT.AUGMENTATION.PIPELINE", pipeline)
