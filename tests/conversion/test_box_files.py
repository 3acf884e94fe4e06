"""VOC annotations and split lists: what is read, and every way a file can be wrong."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from bccd_d2.conversion.box_files import find_bbbc041, find_voc, read_voc
from bccd_d2.conversion.pairs import ImageRecord
from bccd_d2.conversion.splits import read_image_sets
from bccd_d2.conversion.yolo_labels import find_yolo
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


def record(stem: str, folder: Path) -> ImageRecord:
    return ImageRecord(1, stem, f"{stem}.jpg", folder / f"{stem}.jpg", 480, 640)


def test_boxes_count_from_zero_and_are_half_open(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(voc(("RBC", (1, 1, 640, 480), 0), (" WBC ", (78, 336, 184, 435), 1)))
    boxes = read_voc(path)
    assert boxes.corners.tolist() == [[0, 0, 640, 480], [77, 335, 184, 435]]
    assert boxes.names == ("RBC", "WBC")
    assert boxes.difficult.tolist() == [False, True]
    assert boxes.size == (480, 640)


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


def test_a_folder_finds_the_file_of_a_stem(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.xml").write_text(voc(("RBC", (1, 1, 9, 9), 0)))
    (tmp_path / "1.xml").write_text(voc(("WBC", (1, 1, 9, 9), 0)))
    assert find_voc(tmp_path, record("1", tmp_path)).names == ("WBC",)
    assert find_voc(tmp_path, record("train/1", tmp_path)).names == ("RBC",)
    assert find_voc(tmp_path, record("2", tmp_path)) is None
    assert find_voc(tmp_path, record("test/2", tmp_path)) is None
    with pytest.raises(InputError, match="'1', a stem that several images share"):
        find_voc(tmp_path, record("test/1", tmp_path))


def test_files_whose_accents_are_decomposed_are_those_of_the_image(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "ä") for form in ("NFC", "NFD"))
    (tmp_path / f"{decomposed}.xml").write_text(voc(("RBC", (1, 1, 9, 9), 0)))
    assert find_voc(tmp_path, record(composed, tmp_path)).names == ("RBC",)
    (tmp_path / f"{decomposed}.txt").write_text("0 0.5 0.5 0.1 0.1")
    for folder in (tmp_path, None):
        assert find_yolo({0: "RBC"}, folder, record(composed, tmp_path)).names == ("RBC",)
    entry = {"image": {"pathname": f"/images/{decomposed}.png"}, "objects": []}
    (tmp_path / "boxes.json").write_text(json.dumps([entry]))
    assert find_bbbc041(tmp_path / "boxes.json", record(composed, tmp_path)) is not None


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
        boxes = read_voc(path)
        assert boxes.size == (480, 640)
        assert (boxes.corners >= 0).all()
        assert (boxes.corners <= np.array([640, 480, 640, 480])).all()
        names += boxes.names
    assert {name: names.count(name) for name in set(names)} == {"RBC": 3350, "WBC": 301, "Platelets": 292}
    parts = list(read_image_sets(real_voc_root / "ImageSets" / "Main").values())
    assert (parts.count("train"), parts.count("val")) == (205, 87)
