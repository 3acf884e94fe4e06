"""Images find their masks by stem, and files without a partner are named."""

import os
from pathlib import Path

import pytest

from bccd_d2.conversion.pairs import FolderPair, find_pairs
from bccd_d2.errors import InputError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def test_extensions_may_differ_and_case_does_not_matter(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "set/Train/Original/a.JPG",
        "set/Train/Mask/a.png",
        "set/Train/Original/b.TIFF",
        "set/Train/Mask/b.bmp",
        "set/Test/original/c.jpeg",
        "set/Test/mask/c.tif",
    )
    pairs = find_pairs(tmp_path)
    assert [(p.stem, p.image.name, p.mask.name, p.part) for p in pairs] == [
        ("a", "a.JPG", "a.png", "train"),
        ("b", "b.TIFF", "b.bmp", "train"),
        ("c", "c.jpeg", "c.tif", "test"),
    ]


def test_every_fault_is_named(tmp_path: Path) -> None:
    touch(
        tmp_path, "images/a.png", "images/b.png", "images/b.jpg", "masks/b.png", "masks/c.png", "masks/d.png"
    )
    touch(tmp_path, "images/d.png")
    with pytest.raises(InputError, match=r"a\.png: image without mask") as raised:
        find_pairs(tmp_path)
    assert "c.png: mask without image" in str(raised.value)
    assert "2 files for the stem 'b' (b.jpg, b.png)" in str(raised.value)
    faults: list[str] = []
    assert [pair.stem for pair in find_pairs(tmp_path, faults)] == ["d"]
    assert len(faults) == 3


def test_equal_stems_get_their_folder_in_front(tmp_path: Path) -> None:
    for part in ("train", "test"):
        touch(tmp_path, f"{part}/images/0001.png", f"{part}/masks/0001.png")
    touch(tmp_path, "train/images/0002.png", "train/masks/0002.png")
    assert [(p.stem, p.part) for p in find_pairs(tmp_path)] == [
        ("0002", "train"),
        ("test/0001", "test"),
        ("train/0001", "train"),
    ]


def test_masks_beside_their_images(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.png", "data/a_masks.tif", "data/b.jpg", "data/b_masks.png", "elsewhere/x.png")
    pairs = find_pairs(tmp_path, folders=(FolderPair(".", ".", mask_glob="*_masks"),))
    assert [(p.stem, p.image.name, p.mask.name) for p in pairs] == [
        ("a", "a.png", "a_masks.tif"),
        ("b", "b.jpg", "b_masks.png"),
    ]


def test_the_first_rule_that_finds_masks_counts(tmp_path: Path) -> None:
    touch(tmp_path, "original/a.png", "mask/a.png", "instances/a.png")
    rules = (FolderPair("original", "instances"), FolderPair("original", "mask"))
    (pair,) = find_pairs(tmp_path, folders=rules)
    assert pair.mask.parent.name == "instances"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_pairs(tmp_path / "absent")
    with pytest.raises(InputError, match="no image with a mask"):
        find_pairs(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        find_pairs(touch(tmp_path, "file") / "file")


@pytest.mark.skipif(os.name != "posix", reason="needs a file system that takes any bytes as a name")
def test_a_name_that_is_not_utf8_is_a_fault(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png")
    try:
        (tmp_path / "images" / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    with pytest.raises(InputError, match="is not UTF-8"):
        find_pairs(tmp_path)
