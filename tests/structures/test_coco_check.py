"""The check finds every planted fault, and none in what the conversion writes."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.structures.coco_check import check_coco
from bccd_d2.structures.rle import encode_labels
from tests.conversion.drawn import draw_image, draw_mask, write

Document = dict[str, Any]


def sound_document() -> Document:
    labels = (draw_mask() > 0).astype(np.int32)
    labels[:, :60] *= 2  # the cell at the border, and the others as one instance
    annotations = [
        {
            "id": 10 + instance.label,
            "image_id": 1,
            "category_id": 1,
            "bbox": instance.bbox,
            "area": instance.area,
            "segmentation": instance.segmentation,
            "iscrowd": 0,
        }
        for instance in encode_labels(labels)
    ]
    annotations.append({**annotations[0], "id": 20, "bbox": [10, 20, 30, 40], "area": 1200})
    annotations[-1]["segmentation"] = [[10, 20, 40, 20, 40, 60, 10, 60]]
    images = [{"id": 1, "file_name": "a.png", "height": 120, "width": 160}]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}


def test_a_sound_document_has_no_fault(tmp_path: Path) -> None:
    assert check_coco(sound_document()) == []
    write(tmp_path / "a.png", draw_image(draw_mask()))
    assert check_coco(sound_document(), tmp_path) == []


def test_the_box_of_a_weak_mask_may_be_loose_but_not_elsewhere() -> None:
    document = sound_document()
    guessed = document["annotations"][2]
    guessed |= {"weak": True, "bbox": [4, 10, 50, 54]}  # of the mask: [10, 20, 30, 40]
    assert check_coco(document) == []
    guessed["bbox"] = [60, 20, 30, 40]
    (fault,) = check_coco(document)
    assert "annotation 20: bbox [60, 20, 30, 40], but the segmentation lies in" in fault


def change(*path: Any, value: Any) -> Callable[[Document], None]:
    def do(document: Document) -> None:
        target: Any = document
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return do


FAULTS = [
    (change("annotations", 0, "image_id", value=7), "annotation 11: unknown image_id 7"),
    (change("annotations", 0, "category_id", value=None), "annotation 11: unknown category_id None"),
    (change("annotations", 0, "id", value=12), "annotations: id 12 occurs 2 times"),
    (change("annotations", 0, "id", value=None), "annotations: 1 entries without 'id'"),
    (change("annotations", 0, "area", value=0), "annotation 11: area 0, expected a positive number"),
    (change("annotations", 0, "area", value=5), "annotation 11: area 5, but the segmentation covers"),
    (
        change("annotations", 2, "area", value=2000),
        "annotation 20: area 2000, but the segmentation covers 1200",
    ),
    (change("annotations", 0, "bbox", value=[1, 2, 3]), "annotation 11: bbox [1, 2, 3], expected"),
    (change("annotations", 0, "bbox", 2, value=0), "without extent"),
    (change("annotations", 0, "bbox", 2, value=500), "goes beyond the image of 160x120"),
    (change("annotations", 0, "bbox", 0, value=50), "but the segmentation lies in"),
    (change("annotations", 0, "bbox", 0, value=float("nan")), "annotation 11: bbox [nan"),
    (change("annotations", 0, "iscrowd", value=2), "annotation 11: iscrowd 2"),
    (change("annotations", 0, "segmentation", "size", value=[60, 160]), "RLE of size [60, 160]"),
    (change("annotations", 0, "segmentation", "counts", value="o"), "compressed form"),
    (change("annotations", 0, "segmentation", value=[]), "expected RLE or a list of polygons"),
    (change("annotations", 2, "segmentation", 0, value=[500, 500, 501, 500, 501, 501]), "without a pixel"),
    (change("annotations", 0, value="text"), "annotations[0]: no object"),
    (change("images", 0, "height", value="120"), "image 1: height and width ['120', 160]"),
    (change("images", 0, "file_name", value=""), "image 1: file_name ''"),
    (change("categories", 0, "name", value=3), "category 1: name 3, expected text"),
    (lambda d: d["images"].append({**d["images"][0], "id": 2}), "images: file_name 'a.png' occurs 2 times"),
    (lambda d: d["categories"].append({"id": 2, "name": "cell"}), "categories: name 'cell' occurs 2 times"),
]


@pytest.mark.parametrize(("plant", "fault"), FAULTS)
def test_each_fault_is_found(plant: Callable[[Document], None], fault: str) -> None:
    document = sound_document()
    plant(document)
    assert any(fault in line for line in check_coco(document))


def test_all_faults_are_listed_at_once() -> None:
    document = sound_document()
    planted = [FAULTS[n] for n in (1, 4, 9, 13, 20)]
    for plant, _ in planted:
        plant(document)
    faults = check_coco(document)
    for _, fault in planted:
        assert any(fault in line for line in faults), fault


def test_files_of_the_images(tmp_path: Path) -> None:
    document = sound_document()
    document["images"] += [{**document["images"][0], "id": n, "file_name": f"{n}.png"} for n in (2, 3, 4)]
    write(tmp_path / "a.png", draw_image(draw_mask()))
    write(tmp_path / "2.png", cv2.resize(draw_mask(), (80, 60)))
    (tmp_path / "3.png").write_bytes(b"")
    faults = check_coco(document, tmp_path)
    assert len(faults) == 3
    assert "2.png is 80x60 pixels, expected 160x120" in faults[0]
    assert "3.png: empty file" in faults[1]
    assert "4.png: no such file" in faults[2]


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ([], "a list, expected an object"),
        ({}, "images: NoneType, expected a list"),
        ({"images": [], "annotations": {}, "categories": []}, "annotations: dict, expected a list"),
    ],
)
def test_documents_of_the_wrong_shape(document: Any, fault: str) -> None:
    assert any(fault in line for line in check_coco(document))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 200) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_anything_in_any_place_is_reported_not_raised(data: st.DataObject) -> None:
    document = copy.deepcopy(sound_document())
    key = data.draw(st.sampled_from(["images", "annotations", "categories"]))
    field = data.draw(st.sampled_from(sorted(document[key][0])))
    document[key][0][field] = data.draw(JSON)
    assert all(isinstance(fault, str) for fault in check_coco(document))
