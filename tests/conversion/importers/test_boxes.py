"""VOC's XML, BBBC041's JSON and split lists: what is read, and every way a file can be wrong."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bccd_d2.conversion.importers import read_annotations
from bccd_d2.conversion.importers.boxes import read_bbbc041, read_voc
from bccd_d2.conversion.importers.common import ImageFiles
from bccd_d2.conversion.splits import read_image_sets
from bccd_d2.errors import InputError

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""
SIZE = "<size><width>640</width><height>480</height><depth>3</depth></size>"
BOMB = (
    '<!DOCTYPE annotation [<!ENTITY e0 "cells">'
    + "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    + "]><annotation><object><name>&e9;</name></object></annotation>"
)


def voc(*objects: tuple, size: str = SIZE) -> str:
    parts = [OBJECT.format(name=name, box=box, difficult=flag) for name, box, flag in objects]
    return f"<annotation><filename>other.jpg</filename>{size}{''.join(parts)}</annotation>"


def boxes_of(image):
    return [(cell.class_name, cell.box) for cell in image.cells]


def joined(path: Path, kind: str, *names: str) -> dict:
    """Classes of the boxes of each image."""
    files = ImageFiles(path.parent, names)
    images = read_annotations(path, kind, files)[2].images
    return {
        name: [cell.class_name for cell in image.cells] for name, image in files.join(images, "boxes").items()
    }


def test_boxes_count_from_zero_and_are_half_open(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(voc(("RBC", (1, 1, 640, 480), 0), (" WBC ", (78, 336, 184, 435), 1)))
    image = read_voc(path)
    assert boxes_of(image) == [("RBC", (0, 0, 640, 480)), ("WBC", (77, 335, 184, 435))]
    assert [cell.unsure for cell in image.cells] == [False, True]
    assert image.size == (480, 640)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "not XML"),
        (BOMB, "declares entities"),
        ("<annotation><object><name>RBC</name></object></annotation>", "object 1: no <bndbox>"),
        (voc(("RBC", (1, 1, "x", 9), 0)), "object 1: xmax: 'x', expected a number"),
        (voc(("RBC", (1, 1, "1e300", 9), 0)), "xmax: '1e300', expected a number"),
        (voc(("RBC", (1, 1, 9, 9), 0), ("RBC", (20, 1, 9, 9), 0)), "object 2: box from \\(20, 1\\)"),
        (voc(size="<size><width>wide</width></size>"), "size: height|size: width"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    path = tmp_path / "wrong.xml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        read_voc(path)
    assert "wrong.xml" in str(raised.value)


def test_files_are_those_of_the_image_of_their_name(tmp_path):
    folder = tmp_path / "boxes"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "1.xml").write_text(voc(("RBC", (1, 1, 9, 9), 0)))
    assert joined(folder, "voc", "train/1.jpg", "test/1.jpg") == {"train/1.jpg": ["RBC"]}
    (folder / "train" / "1.xml").rename(folder / "1.xml")
    with pytest.raises(InputError, match=r"1' can be any of 'train/1\.jpg', 'test/1\.jpg'"):
        joined(folder, "voc", "train/1.jpg", "test/1.jpg")


def test_files_whose_accents_are_decomposed_are_those_of_the_image(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "ä") for form in ("NFC", "NFD"))
    (tmp_path / f"{decomposed}.xml").write_text(voc(("RBC", (1, 1, 9, 9), 0)))
    (tmp_path / f"{decomposed}.txt").write_text("0 0.5 0.5 0.1 0.1")
    (tmp_path / "boxes.json").write_text(json.dumps([entry(name=f"/images/{decomposed}.png")]))
    Image.new("RGB", (20, 20)).save(tmp_path / f"{composed}.png")
    found = {f"{composed}.png": ["RBC"]}
    assert joined(tmp_path / f"{decomposed}.xml", "voc", *found) == found
    assert joined(tmp_path / f"{decomposed}.txt", "yolo", *found) == {f"{composed}.png": ["0"]}
    assert joined(tmp_path / "boxes.json", "bbbc041", *found) == {f"{composed}.png": []}


def test_image_sets_name_the_part_of_each_stem(tmp_path):
    (tmp_path / "train.txt").write_text("b 1\n\n  a\n")
    (tmp_path / "val.txt").write_text("c\r\n")
    (tmp_path / "trainval.txt").write_text("a\nb\nc\n")
    assert read_image_sets(tmp_path) == {"b 1": "train", "a": "train", "c": "val"}


def test_image_sets_that_contradict_each_other_are_refused(tmp_path):
    (tmp_path / "train.txt").write_text("a\nb\n")
    (tmp_path / "test.txt").write_text("b\n")
    with pytest.raises(InputError, match=r"test\.txt: 'b' is in train\.txt too"):
        read_image_sets(tmp_path)


@pytest.mark.real_data
def test_the_real_set_is_read_whole(real_voc_root):
    names: list[str] = []
    for path in sorted((real_voc_root / "Annotations").glob("*.xml")):
        image = read_voc(path)
        assert image.size == (480, 640)
        corners = np.array([cell.box for cell in image.cells]).reshape(-1, 4)
        assert (corners >= 0).all() and (corners <= [640, 480, 640, 480]).all()
        names += [cell.class_name for cell in image.cells]
    assert {name: names.count(name) for name in set(names)} == {"RBC": 3350, "WBC": 301, "Platelets": 292}
    parts = list(read_image_sets(real_voc_root / "ImageSets" / "Main").values())
    assert (parts.count("train"), parts.count("val")) == (205, 87)


def thing(category: object = "ring", box: tuple = (1, 2, 30, 40)) -> dict:
    """An object; the box is r0, c0, r1, c1."""
    low, high = {"r": box[0], "c": box[1]}, {"r": box[2], "c": box[3]}
    return {"category": category, "bounding_box": {"minimum": low, "maximum": high}}


def entry(*objects: object, name: object = "/images/u-1.png") -> dict:
    return {
        "image": {"pathname": name, "shape": {"r": 100, "c": 200, "channels": 3}},
        "objects": list(objects),
    }


def test_boxes_of_bbbc041_are_joined_by_the_stem(tmp_path):
    path = tmp_path / "boxes" / "training.json"
    path.parent.mkdir()
    second = entry(name="\\images\\u 2.jpg")
    path.write_text(json.dumps([entry(thing(), thing("leukocyte", (0, 0, 100, 200))), second]))
    first, _ = read_bbbc041(path)
    assert boxes_of(first) == [("ring", (2, 1, 40, 30)), ("leukocyte", (0, 0, 200, 100))]
    assert first.size == (100, 200)
    names = ("original/u-1.png", "original/u 2.jpg", "original/u-3.png")
    assert joined(path, "bbbc041", *names) == {names[0]: ["ring", "leukocyte"], names[1]: []}
    with pytest.raises(InputError, match=r"u-1\.png' can be any of 'a/u-1\.png', 'b/u-1\.png'"):
        joined(path, "bbbc041", "a/u-1.png", "b/u-1.png")
    (path.parent / "test.json").write_text(json.dumps([entry()]))
    with pytest.raises(
        InputError, match=r"u-1\.png: annotated in .*test\.json and in .*training\.json, expected one"
    ):
        joined(path.parent, "bbbc041", *names)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"images": [], "annotations": []}, "dict at the top, expected BBBC041's list"),
        ([{"image": {"pathname": 7}}], "'pathname': '7', expected a text"),
        ([{"image": {"pathname": "a.png"}}], "entry 0 \\(a.png\\): no 'objects', expected a list"),
        (
            [{"image": {"pathname": "a.png", "shape": [1, 2]}, "objects": []}],
            "'shape': .*, expected an object",
        ),
        ([entry({"category": "ring"})], "object 0: no 'bounding_box'"),
        ([entry(thing(box=(1, 2, 10**400, 4)))], "maximum: r: '1000.*', expected a number"),
        ([entry(thing(box=(50, 2, 3, 4)))], "box from \\(2, 50\\) to \\(4, 3\\)"),
    ],
)
def test_a_wrong_shape_is_named(tmp_path, document, message):
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message) as raised:
        list(read_bbbc041(path))
    assert "wrong.json" in str(raised.value)


@pytest.mark.parametrize(
    "content", [b"", b"[", b"\xff\xfe", b"[" * 100_000, b"[" + b"9" * 10_000 + b"]", b"<annotation/>"]
)
def test_what_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "wrong.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"wrong\.json: not JSON"):
        list(read_bbbc041(path))


@pytest.mark.real_data
def test_the_real_boxes_are_read_whole(real_pairs_root):
    found = list(read_bbbc041(real_pairs_root / "bbbc041_boxes.json"))
    names = [cell.class_name for image in found for cell in image.cells]
    assert len(found) == 60
    assert {name: names.count(name) for name in set(names)} == {
        "red blood cell": 3919,
        "trophozoite": 62,
        "ring": 18,
        "schizont": 8,
        "leukocyte": 4,
        "gametocyte": 3,
    }
