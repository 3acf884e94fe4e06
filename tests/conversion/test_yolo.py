"""YOLO labels as boxes: where they are looked for, and what a line means."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bccd_d2.conversion.importers import read_annotations
from bccd_d2.conversion.importers.common import ImageFiles
from bccd_d2.conversion.importers.yolo import read_yolo, read_yolo_names
from bccd_d2.errors import InputError
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.rle import decode_segmentation


def read(root: Path, image: str) -> list[tuple]:
    """Class, box and score of each cell of an image of 200 x 100 pixels."""
    images = read_annotations(root, "yolo", ImageFiles(root, [image], {image: (100, 200)}))[2].images
    return [
        (cell.class_name, tuple(round(side, 6) for side in cell.extent()), cell.score)
        for one in images
        if one.name == image
        for cell in one.cells
    ]


def labels(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("train/images/a.jpg", "train/labels/a.txt"),
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("images/of/images/a.b.jpg", "images/of/labels/a.b.txt"),
        ("obj_train_data/a.jpg", "obj_train_data/a.txt"),
    ],
)
def test_labels_lie_where_yolo_has_them(tmp_path: Path, image: str, label: str) -> None:
    labels(tmp_path / label, "1 0.5 0.5 0.1 0.2\n\n0 0.05 0.05 0.1 0.1 0.93\n")
    labels(tmp_path / "classes.txt", "WBC\nRBC\n")
    assert read(tmp_path, image) == [("RBC", (90, 40, 110, 60), None), ("WBC", (0, 0, 20, 10), 0.93)]


def test_an_outline_has_the_box_around_it_and_numbers_stand_for_themselves(tmp_path: Path) -> None:
    labels(tmp_path / "a.txt", "2 0.1 0.2 0.3 0.2 0.2 0.6\n2 0.1 0.2 0.3 0.2 0.2 0.6 0.5\n")
    assert read(tmp_path, "a.png") == [("2", (20, 20, 60, 60), None), ("2", (20, 20, 60, 60), 0.5)]
    assert read(tmp_path, "b.png") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.1", "line 1: 4 numbers, expected class cx cy w h"),
        ("\n0 0.5 0.5 0.1 x", "line 2: .*expected numbers"),
        ("0.5 0.5 0.5 0.1 0.1", "class '0.5', expected a whole number"),
        ("nan 0.5 0.5 0.1 0.1", "class 'nan'"),
        ("0 320 240 50 50", "expected coordinates as shares of the image's sides"),
        ("0 nan 0.5 0.1 0.1", "expected coordinates as shares"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_yolo(labels(tmp_path / "a.txt", text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "train: images\nnc: 2\nnames: [RBC, WBC]\n"),
        ("data.yaml", "names:\n  0: RBC\n  1: WBC\n"),
        ("classes.txt", "RBC\nWBC\n"),
        ("labels/classes.txt", "RBC\nWBC\n"),
        ("obj.names", "RBC\nWBC"),
    ],
)
def test_names_of_the_classes(tmp_path: Path, name: str, text: str) -> None:
    labels(tmp_path / name, text)
    assert read_yolo_names(tmp_path) == {0: "RBC", 1: "WBC"}
    with pytest.raises(InputError, match=r"class 2, expected one of 0, 1"):
        labels(tmp_path / "x.txt", "2 0.5 0.5 0.1 0.1")
        read(tmp_path, "x.jpg")


def test_a_yolo_set_becomes_weak_masks(tmp_path: Path) -> None:
    from tools.convert_bccd import main

    for part in ("train", "val"):
        image = np.full((120, 160, 3), 230, np.uint8)
        cv2.circle(image, (50, 60), 20, (120, 90, 200), -1)
        (tmp_path / "data" / part / "images").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "data" / part / "images" / f"{part}.png"), image)
        labels(
            tmp_path / f"data/{part}/labels/{part}.txt",
            f"1 {50.5 / 160} {60.5 / 120} {41 / 160} {41 / 120}\n",
        )
    arguments = ["--root", str(tmp_path / "data"), "--spec", "txl_pbc", "--official", "--workers", "1"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    document = read_coco(tmp_path / "out/annotations/instances_val.json")
    (annotation,) = document["annotations"]
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert (names[annotation["category_id"]], annotation["bbox"]) == ("RBC", [30, 40, 41, 41])
    assert annotation["weak"] is True
    drawn = decode_segmentation(annotation["segmentation"], 120, 160)
    assert abs(int(drawn.sum()) - np.pi * 20**2) < 0.15 * np.pi * 20**2
    (tmp_path / "data/val/labels/val.txt").unlink()
    (tmp_path / "data/train/labels/train.txt").unlink()
    with pytest.raises(InputError, match="no files of the format yolo"):
        main([*arguments, "--output", str(tmp_path / "none")])
