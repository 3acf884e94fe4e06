"""Adapting a tiny model, through the public command."""

import importlib.util
import itertools
import json
import re

import cv2
import numpy as np
import pytest
import torch

from bccd_d2.config import load_config
from bccd_d2.conversion.dataset_spec import read_spec
from bccd_d2.data.registration import register_bccd
from bccd_d2.engine import adapt
from bccd_d2.engine.adapt import AdaptationTrainer, join_heads
from bccd_d2.engine.corrected import read_corrected, write_data
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.errors import InputError
from tests.conftest import REPOSITORY
from tests.data.shapes import disc, smear
from tests.engine.tiny import CENTRES, HEIGHT, WIDTH, tiny_config


def tool(name):
    spec = importlib.util.spec_from_file_location(f"{name}_tool", REPOSITORY / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def start(tiny_root, tmp_path_factory):
    """A run of the tiny model with random weights, one class "cell" of 21 px."""
    folder = tmp_path_factory.mktemp("start")
    cfg = tiny_config(tiny_root, folder)
    torch.save({"model": BCCDTrainer(cfg).model.state_dict()}, folder / "model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


def labelme(folder, images, names=("cell", "cell", "cell"), size=1):
    """Corrected outlines of LabelMe, ``size`` times as large as in the tiny data set."""
    folder.mkdir()
    for number in range(images):
        masks = [disc(HEIGHT * size, WIDTH * size, x * size, y * size, 11 * size) for x, y in CENTRES]
        cv2.imwrite(str(folder / f"{number}.png"), smear(HEIGHT * size, WIDTH * size, masks))
        shapes = []
        for (x, y), name in zip(CENTRES, names):
            angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            ring = np.stack([x + 11 * np.cos(angles), y + 11 * np.sin(angles)], axis=1) * size
            shapes.append({"label": name, "points": ring.tolist(), "shape_type": "polygon"})
        content = {"imagePath": f"{number}.png", "shapes": shapes}
        content |= {"imageHeight": HEIGHT * size, "imageWidth": WIDTH * size, "imageData": None}
        (folder / f"{number}.json").write_text(json.dumps(content))
    return folder


def weights(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def test_corrected_outlines_make_a_model_that_predicts(start, tmp_path, capsys):
    corrected, out = labelme(tmp_path / "corrected", 5, size=2), tmp_path / "model"
    tool("adapt")("--corrected", corrected, "--run", start, "--output", out, "SOLVER.MAX_ITER", 2)
    printed = capsys.readouterr().out
    assert "4 images" in printed and re.search(r"\| 1 held-back images +\| +before \| +after \|", printed)
    report = json.loads((out / "adaptation.json").read_text())
    assert (report["images"], report["held_back"]) == (4, 1)
    cfg, before = load_config(out / "config.yaml"), load_config(start / "config.yaml")
    assert cfg.DATASETS.CLASS_NAMES == ["cell"]
    # Cells of twice the size are shown to the network at half the scale.
    assert abs(cfg.INPUT.CELL_DIAMETER / before.INPUT.CELL_DIAMETER - 2) < 0.1
    assert abs(cfg.INPUT.SCALE - 0.5) < 0.025
    old, new = weights(start), weights(out)
    same = {name for name in new if torch.equal(old[name], new[name])}
    frozen = {n for n in new if ".stem." in n or ".res2." in n or "running_" in n}
    assert frozen and frozen <= same
    assert "backbone.bottom_up.res3.0.conv1.weight" not in same
    assert "roi_heads.mask_head.predictor.weight" not in same
    tool("predict")(
        "--input", corrected / "0.png", "--run", out, "--output", tmp_path / "found", "--score-threshold", 0
    )
    assert "cells in 1 images" in capsys.readouterr().out


def test_a_model_that_became_worse_is_not_kept(start, tmp_path, capsys, monkeypatch):
    """The first evaluation is of the start model, the last of the adapted one."""
    first, later = ({"instances": {"F1": f1}, "segm": {"AP": f1, "AP50": f1}} for f1 in (90.0, 80.0))
    figures = itertools.chain([first], itertools.repeat(later))
    monkeypatch.setattr(AdaptationTrainer, "test", lambda *arguments: next(figures))
    corrected, out = labelme(tmp_path / "corrected", 3), tmp_path / "model"
    tool("adapt")("--corrected", corrected, "--run", start, "--output", out, "SOLVER.MAX_ITER", 1)
    assert "worse on the held-back images: the folder holds the start model" in capsys.readouterr().out
    report = json.loads((out / "adaptation.json").read_text())
    assert report["kept_start"] and (report["before"]["F1"], report["after"]["F1"]) == (90, 80)
    old, new = weights(start), weights(out)
    # Frozen batch norms count no batches.
    assert all(torch.equal(old[name], new[name]) for name in new)
    assert all(name.endswith("num_batches_tracked") for name in old.keys() - new.keys())


def test_the_best_checkpoint_is_taken_where_it_is_better_by_its_own_metric(tmp_path):
    torch.save(
        {"model": {"w": torch.zeros(1)}, "metric": "instances/F1", "value": 85.0}, tmp_path / "model_best.pth"
    )
    final = {"instances": {"F1": 90.0}, "segm": {"AP": 40.0}}
    assert not adapt._take_best(tmp_path, final)
    assert not (tmp_path / "model_final.pth").exists()
    assert adapt._take_best(tmp_path, final | {"instances": {"F1": 80.0}})
    assert (tmp_path / "model_final.pth").is_file()


def test_other_classes_get_a_head_of_their_own_and_few_images_are_all_trained_on(start, tmp_path, capsys):
    corrected, out = labelme(tmp_path / "corrected", 2, ("RBC", "WBC", "RBC")), tmp_path / "model"
    tool("adapt")("--corrected", corrected, "--run", start, "--output", out, "SOLVER.MAX_ITER", 1)
    assert "the 2 training images: too few to hold one back" in capsys.readouterr().out
    assert load_config(out / "config.yaml").DATASETS.CLASS_NAMES == ["RBC", "WBC"]
    assert len(weights(out)["roi_heads.box_predictor.cls_score.weight"]) == 3
    assert not (out / "model_best.pth").exists()


def test_replay_data_are_mixed_in(start, tiny_root, tmp_path):
    corrected, out = labelme(tmp_path / "corrected", 1), tmp_path / "model"
    tool("adapt")(
        "--corrected", corrected, "--run", start, "--output", out, "--replay", tiny_root, "SOLVER.MAX_ITER", 1
    )
    # 3 images of replay data, and the corrected one so often that it has twice as many.
    assert load_config(out / "config.yaml").DATASETS.TRAIN == ("bccd_train",) * 6 + ("replay_train",)
    assert {"bccd_train", "replay_train"} <= set(register_bccd(out / "data"))


def test_what_cannot_be_used_is_named(start, tmp_path):
    corrected = labelme(tmp_path / "corrected", 1)
    given = ("--corrected", corrected, "--run", start, "--output", tmp_path / "model")
    with pytest.raises(InputError, match=r"--replay: .*instances_train\.json is not there"):
        tool("adapt")(*given, "--replay", tmp_path)
    (tmp_path / "model" / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(InputError, match="holds a training already"):
        tool("adapt")(*given)
    with pytest.raises(InputError, match="no known format"):
        tool("adapt")("--corrected", start, "--run", start, "--output", tmp_path / "other")


def test_every_output_of_a_prediction_can_be_corrected(start, tmp_path):
    images, found = labelme(tmp_path / "images", 2), tmp_path / "found"
    for annotations in images.glob("*.json"):
        annotations.unlink()
    formats = ("--formats", "coco,geojson,roi", "--score-threshold", 0, "--max-detections", 5)
    tool("predict")("--input", images, "--run", start, "--output", found, *formats)
    cells = {}
    for kind in ("coco", "geojson", "roi"):
        document, root = read_corrected(found / kind, None, images, None)
        assert root == images and [c["name"] for c in document["categories"]] == ["cell"]
        cells[kind] = len(document["annotations"])
    assert len(set(cells.values())) == 1 and 2 < cells["coco"] <= 10


def test_label_images_are_read_by_a_spec(tmp_path):
    images = labelme(tmp_path / "images", 1)
    labels = sum(k * disc(HEIGHT, WIDTH, x, y, 11) for k, (x, y) in enumerate(CENTRES, 1))
    cv2.imwrite(str(images / "0_masks.tif"), labels.astype(np.uint16))
    document, root = read_corrected(images, None, None, read_spec("label_maps"))
    assert (root, len(document["annotations"])) == (images, len(CENTRES))


def document(images, names=("RBC",)):
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 9, "width": 9} for i in range(images)],
        "annotations": [
            {"id": 10 * i + k, "image_id": i, "category_id": k, "iscrowd": 0}
            for i in range(images)
            for k in range(len(names))
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
    }


@pytest.mark.parametrize(("images", "held_back"), [(1, 0), (2, 0), (3, 1), (5, 1), (10, 2), (200, 20)])
def test_a_fifth_of_the_images_is_held_back(tmp_path, images, held_back):
    held, trained = write_data(document(images), tmp_path, ["RBC"], tmp_path / "data")
    assert len(held) == held_back and sorted(held + trained) == sorted(f"{i}.png" for i in range(images))
    written = {
        part: json.loads((tmp_path / "data" / "annotations" / f"instances_{part}.json").read_text())
        for part in ("train", "val")
    }
    assert {i["file_name"] for i in written["val"]["images"]} == set(held)
    assert len(written["train"]["annotations"]) == len(trained)


def test_classes_without_a_corrected_cell_are_no_negatives(tmp_path):
    write_data(document(3, ("RBC", "WBC")), tmp_path, ["Platelets", "RBC", "WBC"], tmp_path / "data")
    written = json.loads((tmp_path / "data" / "annotations" / "instances_train.json").read_text())
    assert {name for image in written["images"] for name in image["unlabeled_categories"]} == {"Platelets"}
    assert [c["name"] for c in written["categories"]] == ["RBC", "WBC", "Platelets"]
    empty = {**document(1), "annotations": []}
    with pytest.raises(InputError, match="no image with a cell"):
        write_data(empty, tmp_path, ["RBC"], tmp_path / "data")


def test_rows_of_the_heads_are_joined_by_name():
    def rows(*values):
        return torch.tensor(values, dtype=torch.float32)[:, None]

    old = {
        "box_predictor.cls_score.weight": rows(1, 3, 9),
        "box_predictor.bbox_pred.weight": rows(1, 1, 1, 1, 3, 3, 3, 3),
        "h.mask_head.predictor.bias": rows(1, 3)[:, 0],
        "backbone.weight": rows(5, 5),
    }
    sizes = {name: 4 if "cls" in name else 12 if "bbox" in name else 3 for name in old}
    target = {name: torch.zeros(size, 1) for name, size in sizes.items()}
    new = join_heads(old, target, ["RBC", "WBC"], ["WBC", "parasite", "RBC"])
    assert new["box_predictor.cls_score.weight"].flatten().tolist() == [3, 2, 1, 9]
    assert new["box_predictor.bbox_pred.weight"].flatten().tolist() == [3] * 4 + [2] * 4 + [1] * 4
    assert new["h.mask_head.predictor.bias"].tolist() == [3, 2, 1]
    assert new["backbone.weight"] is old["backbone.weight"]
    one_for_all = {"b.bbox_pred.weight": rows(1, 2, 3, 4)}
    assert join_heads(one_for_all, one_for_all, ["RBC", "WBC"], ["WBC", "RBC"]) == one_for_all
