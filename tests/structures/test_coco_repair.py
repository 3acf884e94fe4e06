"""What annotation tools get wrong in COCO JSON is repaired and counted; all that cannot be repaired is listed."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.errors import InputError
from bccd_d2.structures.coco_repair import refuse_faults, repair_coco

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
    "names for ids": (
        lambda d: [
            a.update(
                image_id=f"images/{'ab'[a['image_id'] - 1]}.png",
                category_id=["RBC", "WBC"][a["category_id"] - 1],
            )
            for a in d["annotations"]
        ],
        "no whole number or was joined",
    ),
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
    repaired, counts, faults = repair_coco(broken)
    assert broken == before, "the input is changed"
    assert faults == []
    assert any(said in what for what in counts) or not said
    cells = [(a["area"], a["bbox"], a["iscrowd"]) for a in repaired["annotations"]]
    assert cells == [(400, [10, 10, 20, 20], 0), (100, [5, 5, 10, 10], 0)]
    names = {category["id"]: category["name"] for category in repaired["categories"]}
    assert [names[a["category_id"]] for a in repaired["annotations"]] == ["RBC", "WBC"]
    files = {image["id"]: image["file_name"] for image in repaired["images"]}
    assert [files[a["image_id"]] for a in repaired["annotations"]] == ["images/a.png", "images/b.png"]
    assert repair_coco(repaired) == (repaired, {}, [])


@pytest.mark.parametrize(
    "segmentation",
    [[], None, {}, [[10, 10, 30, 30]], [[10, 10, 30, 10, 20, 10]], [[100, 100, 110, 100, 110, 110]]],
)
def test_an_outline_of_nothing_is_left_out_or_kept_as_a_box(segmentation: Any) -> None:
    broken = document()
    first(broken)["segmentation"] = segmentation
    repaired, counts, _ = repair_coco(broken)
    assert [a["id"] for a in repaired["annotations"]] == [2]
    assert counts["annotations without an outline, or with one that covers no pixel, left out"] == 1
    repaired = repair_coco(broken, keep_boxes=True).document
    assert first(repaired)["bbox"] == [10, 10, 20, 20]
    assert first(repaired)["segmentation"] == []


def test_a_conversion_goes_by_the_outline_where_a_box_covers_it_roughly() -> None:
    broken = document()
    first(broken)["bbox"] = [5, 5, 27, 27]
    assert len(repair_coco(broken).faults) == 1
    repaired, counts, _ = repair_coco(broken, keep_boxes=True)
    assert first(repaired)["bbox"] == [10, 10, 20, 20]
    assert counts == {"boxes that cover their outline roughly": 1}
    first(broken)["bbox"] = [30, 5, 27, 27]
    assert len(repair_coco(broken, keep_boxes=True).faults) == 1


def test_the_box_of_a_weak_mask_may_be_loose() -> None:
    loose = document()
    first(loose).update(weak=True, bbox=[4, 4, 34, 34])  # of the mask: [10, 10, 20, 20]
    assert repair_coco(loose) == (loose, {}, [])
    first(loose)["bbox"] = [40, 10, 20, 20]
    assert repair_coco(loose).faults == [
        "annotation 1: bbox [40, 10, 20, 20], but the segmentation lies in [10, 10, 20, 20]"
    ]


@pytest.mark.parametrize("value", [1, True])
def test_annotations_with_ignore_become_regions_to_ignore(value: Any) -> None:
    broken = document()
    first(broken)["ignore"] = value
    repaired, counts, faults = repair_coco(broken)
    assert (faults, [a["iscrowd"] for a in repaired["annotations"]]) == ([], [1, 0])
    assert counts == {"annotations with ignore 1, taken for regions to ignore": 1}
    assert repair_coco(repaired) == (repaired, {}, [])


def test_sizes_come_from_the_images_where_the_file_has_none() -> None:
    broken = document()
    del broken["images"][0]["height"]
    repaired = repair_coco(broken, size_of=lambda name: (40, 60) if name == "images/a.png" else None).document
    assert repaired["images"] == document()["images"]


def change(*path: Any, value: Any) -> Change:
    def do(target: Any) -> None:
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return do


FAULTS: list[tuple[Change, str]] = [
    (change("annotations", 0, "image_id", value=7), "annotation 1: unknown image_id 7"),
    (change("annotations", 0, "category_id", value=None), "annotation 1: unknown category_id None"),
    (change("annotations", 0, "bbox", 2, value=50), "annotation 1: bbox [10, 10, 50, 20], but the segment"),
    (change("annotations", 0, "iscrowd", value=2), "annotation 1: iscrowd 2, expected 0 or 1"),
    (
        change("annotations", 0, "segmentation", value={"size": [30, 60], "counts": "a"}),
        "RLE of size [30, 60]",
    ),
    (change("annotations", 0, "segmentation", value={"size": [40, 60], "counts": "o"}), "compressed form"),
    (change("annotations", 0, "segmentation", value="text"), "expected RLE or a list of polygons"),
    (change("annotations", 0, value="text"), "annotations[0]: no object"),
    (change("images", 0, "id", value=None), "images[0]: id None, expected a whole number"),
    (change("images", 0, "id", value=2), "images: id 2 occurs twice"),
    (
        change("images", 0, "height", value="x"),
        "images[0] with id 1: height and width 'x' and 60, expected two",
    ),
    (change("images", 0, "file_name", value=""), "images[0] with id 1: file_name '', expected a path"),
    (change("categories", 0, "name", value=3), "categories[0] with id 1: name 3, expected text"),
    (change("categories", value=[]), "no categories"),
    (change("info", value=[1]), "info [1], expected an object with the path 'image_root'"),
    (change("annotations", value={}), "annotations: dict, expected a list"),
    (
        change("annotations", 0, "segmentation", value=[[0.1, 0.2, 0.4, 0.2, 0.4, 0.6]]),
        "between 0 and 1, expected pixels",
    ),
    (change("annotations", 0, "bbox", value=[0.1, 0.2, 0.3, 0.4]), "between 0 and 1, expected pixels"),
]


@pytest.mark.parametrize(("plant", "fault"), FAULTS)
def test_each_fault_is_found(plant: Change, fault: str) -> None:
    broken = document()
    plant(broken)
    assert any(fault in line for line in repair_coco(broken).faults)


def test_all_faults_are_listed_at_once() -> None:
    broken = document()
    planted = [FAULTS[n] for n in (0, 3, 8, 14)]
    for plant, _ in planted:
        plant(broken)
    with pytest.raises(InputError) as caught:
        refuse_faults("a.json", repair_coco(broken).faults)
    assert all(fault in str(caught.value) for _, fault in planted)
    assert repair_coco([]).faults == ["the document is a list, expected an object"]


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
    repaired, _, faults = repair_coco(broken)
    assert faults or repair_coco(repaired) == (repaired, {}, [])
