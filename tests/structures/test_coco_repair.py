"""What annotation tools get wrong in COCO JSON is repaired and counted; the rest is left for the validator to name."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.data.registration import register_bccd
from bccd_d2.errors import InputError
from bccd_d2.structures.coco_check import check_coco, check_file
from bccd_d2.structures.coco_repair import find_image_folder, repair_coco

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
Change = Callable[[dict[str, Any]], Any]


def document() -> dict[str, Any]:
    """Two images; a square of 20 x 20 pixels in the first, another of 10 x 10 in the second."""
    small = [5, 5, 15, 5, 15, 15, 5, 15]
    return {
        "images": [
            {"id": 1, "file_name": "images/a.png", "height": 40, "width": 60},
            {"id": 2, "file_name": "images/b.png", "height": 40, "width": 60},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [SQUARE]}
            | {"area": 400, "bbox": [10, 10, 20, 20], "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 2, "segmentation": [small]}
            | {"area": 100, "bbox": [5, 5, 10, 10], "iscrowd": 0},
        ],
        "categories": [{"id": 1, "name": "RBC"}, {"id": 2, "name": "WBC"}],
    }


def first(d: dict[str, Any]) -> dict[str, Any]:
    return d["annotations"][0]


def every_id(convert: Callable[[int], Any]) -> Change:
    def change(d: dict[str, Any]) -> None:
        for entry in [*d["images"], *d["annotations"], *d["categories"]]:
            entry["id"] = convert(entry["id"])
        for annotation in d["annotations"]:
            annotation.update(
                image_id=convert(annotation["image_id"]), category_id=convert(annotation["category_id"])
            )

    return change


def backslashes(d: dict[str, Any]) -> None:
    for image in d["images"]:
        image["file_name"] = image["file_name"].replace("/", "\\")


UNCOMPRESSED = {"size": [40, 60], "counts": [410, *[20, 20] * 19, 20, 2400 - 410 - 20 * 39]}
REPAIRED: dict[str, tuple[Change, str]] = {
    "ids of float": (every_id(float), "no whole number"),
    "ids of text": (every_id(str), "no whole number"),
    "ids of words": (every_id(lambda n: f"img-{n}"), "no whole number"),
    "iscrowd null": (lambda d: first(d).update(iscrowd=None), "iscrowd"),
    "iscrowd missing": (lambda d: first(d).pop("iscrowd"), "iscrowd"),
    "iscrowd false": (lambda d: first(d).update(iscrowd=False), "iscrowd"),
    "area missing": (lambda d: first(d).pop("area"), "areas"),
    "area null": (lambda d: first(d).update(area=None), "areas"),
    "area zero": (lambda d: first(d).update(area=0), "areas"),
    "box missing": (lambda d: first(d).pop("bbox"), "boxes that are missing"),
    "box empty": (lambda d: first(d).update(bbox=[]), "boxes that are missing"),
    "box two pixels off": (lambda d: first(d).update(bbox=[12, 8, 20, 20]), "some pixels off"),
    "box with corners": (lambda d: first(d).update(bbox=[10, 10, 30, 30]), "corners"),
    "box of text": (lambda d: first(d).update(bbox=["10", "10", "20", "20"]), "four numbers"),
    "flat polygon": (lambda d: first(d).update(segmentation=SQUARE), "list of lists"),
    "polygon of text": (lambda d: first(d).update(segmentation=[[str(v) for v in SQUARE]]), ""),
    "polygon of pairs": (
        lambda d: first(d).update(segmentation=[[SQUARE[i : i + 2] for i in range(0, 8, 2)]]),
        "",
    ),
    "a polygon of two points": (lambda d: first(d)["segmentation"].append([1, 1, 2, 2]), "three points"),
    "an empty polygon": (lambda d: first(d)["segmentation"].append([]), "three points"),
    "run lengths": (lambda d: first(d).update(segmentation=UNCOMPRESSED), "not compressed"),
    "ids of annotations": (lambda d: d["annotations"][1].update(id=1), "ids of annotations"),
    "no ids of annotations": (lambda d: [a.pop("id") for a in d["annotations"]], "ids of annotations"),
    "backslashes": (backslashes, "backslashes"),
    "the same twice": (lambda d: d["annotations"].append({**first(d), "id": 9}), "there twice"),
    "an image twice": (
        lambda d: d["images"].append({**d["images"][0], "id": 9}),
        "images that are there twice",
    ),
    "a category twice": (
        lambda d: d["categories"].append({"id": 7, "name": "RBC"}),
        "categories that are there",
    ),
    "a root category": (
        lambda d: d["categories"].insert(0, {"id": 0, "name": "cells", "supercategory": "none"}),
        "root",
    ),
    "sizes of text": (lambda d: d["images"][0].update(height="40", width=60.0), "image sizes"),
    "info null": (lambda d: d.update(info=None), ""),
}


@pytest.mark.parametrize("name", REPAIRED)
def test_a_fault_of_real_exports_is_repaired_and_counted(name: str) -> None:
    change, said = REPAIRED[name]
    broken = document()
    change(broken)
    before = copy.deepcopy(broken)
    repaired, counts = repair_coco(broken)
    assert broken == before, "the input is changed"
    assert check_coco(repaired) == []
    assert any(said in what for what in counts) or not said
    cells = [(a["area"], a["bbox"], a["iscrowd"]) for a in repaired["annotations"]]
    assert cells == [(400, [10, 10, 20, 20], 0), (100, [5, 5, 10, 10], 0)]
    names = {category["id"]: category["name"] for category in repaired["categories"]}
    assert [names[a["category_id"]] for a in repaired["annotations"]] == ["RBC", "WBC"]
    files = {image["id"]: image["file_name"] for image in repaired["images"]}
    assert [files[a["image_id"]] for a in repaired["annotations"]] == ["images/a.png", "images/b.png"]
    assert repair_coco(repaired) == (repaired, {})


@pytest.mark.parametrize(
    "segmentation",
    [[], None, {}, [[10, 10, 30, 30]], [[10, 10, 30, 10, 20, 10]], [[100, 100, 110, 100, 110, 110]]],
)
def test_an_outline_of_nothing_is_left_out_or_kept_as_a_box(segmentation: Any) -> None:
    broken = document()
    first(broken)["segmentation"] = segmentation
    repaired, counts = repair_coco(broken)
    assert [a["id"] for a in repaired["annotations"]] == [2]
    assert counts["annotations without an outline, or with one that covers no pixel, left out"] == 1
    repaired, _ = repair_coco(broken, keep_boxes=True)
    assert first(repaired)["bbox"] == [10, 10, 20, 20]
    assert first(repaired)["segmentation"] == []


def test_a_conversion_goes_by_the_outline_where_a_box_covers_it_roughly() -> None:
    broken = document()
    first(broken)["bbox"] = [5, 5, 27, 27]
    assert len(check_coco(repair_coco(broken)[0])) == 1
    repaired, counts = repair_coco(broken, keep_boxes=True)
    assert (first(repaired)["bbox"], counts) == (
        [10, 10, 20, 20],
        {"boxes that cover their outline roughly": 1},
    )
    first(broken)["bbox"] = [30, 5, 27, 27]
    assert len(check_coco(repair_coco(broken, keep_boxes=True)[0])) == 1


def test_a_sound_document_is_not_changed_and_other_faults_stay_for_the_validator() -> None:
    assert repair_coco(document()) == (document(), {})
    broken = document()
    first(broken).update(image_id=77)
    broken["annotations"][1].update(bbox=[30, 30, 5, 5], iscrowd="yes")
    repaired, _ = repair_coco(broken)
    assert len(check_coco(repaired)) == 3
    assert repair_coco([]) == ([], {})
    assert repair_coco({"images": 1}) == ({"images": 1}, {})


def test_sizes_come_from_the_images_where_the_file_has_none() -> None:
    broken = document()
    del broken["images"][0]["height"]
    repaired, _ = repair_coco(broken, size_of=lambda name: (40, 60) if name == "images/a.png" else None)
    assert repaired["images"] == document()["images"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252"])
@pytest.mark.parametrize("name", ["sound", "ids of words", "box with corners", "a polygon of two points"])
def test_check_and_training_accept_the_same_files(tmp_path: Path, name: str, encoding: str) -> None:
    broken = document()
    REPAIRED.get(name, (lambda d: None, ""))[0](broken)
    broken["categories"][0]["name"] = "érythrocyte"
    path = tmp_path / "annotations" / "instances_train.json"
    path.parent.mkdir()
    path.write_text(json.dumps(broken, ensure_ascii=False), encoding=encoding)
    (tmp_path / "images").mkdir()
    for image in "ab":
        cv2.imwrite(str(tmp_path / "images" / f"{image}.png"), np.zeros((40, 60, 3), np.uint8))
    faults, folder = check_file(path)
    assert (faults, folder) == ([], tmp_path.resolve())
    register_bccd(tmp_path, prefix="repaired")
    dicts = DatasetCatalog.get("repaired_train")
    assert [len(record["annotations"]) for record in dicts] == [1, 1]
    assert all(Path(record["file_name"]).is_file() for record in dicts)


@pytest.mark.parametrize(
    ("json_file", "image", "name"),
    [
        ("annotations/instances_default.json", "images/a.png", "a.png"),
        ("annotations/instances_default.json", "images/default/a.png", "a.png"),
        ("annotations/instances_train2017.json", "train2017/a.png", "a.png"),
        ("train/_annotations.coco.json", "train/a.png", "a.png"),
        ("result.json", "images/a.png", "images\\a.png"),
        ("annotations.json", "JPEGImages/a.png", "a.png"),
    ],
)
def test_images_are_found_where_tools_put_them(tmp_path: Path, json_file: str, image: str, name: str) -> None:
    (tmp_path / image).parent.mkdir(parents=True)
    (tmp_path / image).touch()
    folder = find_image_folder({"images": [{"file_name": name}]}, tmp_path / json_file)
    assert folder is not None
    assert (folder / name.replace("\\", "/")).resolve() == (tmp_path / image).resolve()
    assert find_image_folder({"images": [{"file_name": "b.png"}]}, tmp_path / json_file) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 50) | st.floats(-5, 50) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)


FIELDS = {
    "images": ["id", "file_name", "height", "width"],
    "annotations": ["id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd"],
    "categories": ["id", "name", "supercategory"],
}
CHANGES = st.sampled_from([(key, name) for key, names in FIELDS.items() for name in names])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(CHANGES, st.integers(0, 1), VALUES), max_size=4))
def test_whatever_stands_in_a_field_the_repair_does_not_fail(changes: list[tuple]) -> None:
    broken = document()
    for (key, name), index, value in changes:
        broken[key][index][name] = value
    repaired, _ = repair_coco(broken)
    again, counts = repair_coco(repaired)
    assert again == repaired or check_coco(repaired), counts
    check_coco(again)


def test_the_faults_that_cannot_be_repaired_end_the_reading(tmp_path: Path) -> None:
    broken = document()
    first(broken)["category_id"] = "Trophozoite"
    path = tmp_path / "annotations" / "instances_train.json"
    path.parent.mkdir()
    path.write_text(json.dumps(broken))
    assert len(check_file(path)[0]) == 1
    with pytest.raises(InputError, match="Trophozoite"):
        register_bccd(tmp_path, prefix="refused")
        DatasetCatalog.get("refused_train")
