"""BBBC041's JSON: what is read, and every way a file can be wrong."""

import json
from pathlib import Path

import pytest

from bccd_d2.conversion.box_files import find_bbbc041, read_bbbc041, read_bbbc041_files
from bccd_d2.conversion.pairs import ImageRecord
from bccd_d2.errors import InputError


def thing(category: object = "ring", box: tuple = (1, 2, 30, 40)) -> dict:
    """An object; the box is r0, c0, r1, c1."""
    low, high = {"r": box[0], "c": box[1]}, {"r": box[2], "c": box[3]}
    return {"category": category, "bounding_box": {"minimum": low, "maximum": high}}


def entry(*objects: object, name: object = "/images/u-1.png") -> dict:
    return {
        "image": {"pathname": name, "shape": {"r": 100, "c": 200, "channels": 3}},
        "objects": list(objects),
    }


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def record(stem: str) -> ImageRecord:
    return ImageRecord(1, stem, f"{stem}.png", Path(f"{stem}.png"), 100, 200)


def test_boxes_are_joined_by_the_stem(tmp_path):
    second = entry(name="\\images\\u 2.jpg")
    path = write(tmp_path / "boxes.json", [entry(thing(), thing("leukocyte", (0, 0, 100, 200))), second])
    found = read_bbbc041(path)
    assert list(found) == ["u-1", "u 2"]
    assert found["u-1"].corners.tolist() == [[2, 1, 40, 30], [0, 0, 200, 100]]
    assert found["u-1"].names == ("ring", "leukocyte")
    assert found["u-1"].size == (100, 200)
    assert not found["u-1"].difficult.any()
    assert len(found["u 2"]) == 0
    assert find_bbbc041(path, record("u-1")).names == ("ring", "leukocyte")
    assert find_bbbc041(path, record("u-3")) is None


def test_a_stem_that_several_images_share_is_refused(tmp_path):
    path = write(tmp_path / "boxes.json", [entry(thing())])
    assert find_bbbc041(path, record("train/u-3")) is None
    with pytest.raises(InputError, match="'u-1', a stem that several images share"):
        find_bbbc041(path, record("train/u-1"))


def test_a_folder_holds_several_files(tmp_path):
    write(tmp_path / "training.json", [entry(thing())])
    write(tmp_path / "test.json", [entry(thing("ring"), name="u-2.png")])
    assert set(read_bbbc041_files(tmp_path)) == {"u-1", "u-2"}
    read_bbbc041_files.cache_clear()
    write(tmp_path / "test.json", [entry()])
    with pytest.raises(InputError, match=r"training\.json: u-1 has boxes in .*test\.json too"):
        read_bbbc041_files(tmp_path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"images": [], "annotations": []}, "dict at the top, expected BBBC041's list"),
        ([{"image": {"pathname": 7}}], "'pathname': '7', expected a text"),
        ([entry(), entry()], "entry 1: u-1 occurs twice"),
        ([{"image": {"pathname": "a.png"}}], "entry 0 \\(a\\): no 'objects', expected a list"),
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
    path = write(tmp_path / "wrong.json", document)
    with pytest.raises(InputError, match=message) as raised:
        read_bbbc041(path)
    assert "wrong.json" in str(raised.value)


@pytest.mark.parametrize(
    "content", [b"", b"[", b"\xff\xfe", b"[" * 100_000, b"[" + b"9" * 10_000 + b"]", b"<annotation/>"]
)
def test_what_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "wrong.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"wrong\.json: not JSON"):
        read_bbbc041(path)


@pytest.mark.real_data
def test_the_real_boxes_are_read_whole(real_pairs_root):
    found = read_bbbc041(real_pairs_root / "bbbc041_boxes.json")
    names = [name for boxes in found.values() for name in boxes.names]
    assert len(found) == 60
    assert {name: names.count(name) for name in set(names)} == {
        "red blood cell": 3919,
        "trophozoite": 62,
        "ring": 18,
        "schizont": 8,
        "leukocyte": 4,
        "gametocyte": 3,
    }
