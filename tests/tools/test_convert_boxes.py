"""tools/convert_bccd.py with boxes, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bccd_d2.conversion.convert import annotation_file
from bccd_d2.structures.coco import read_coco
from tests.conversion.drawn import write_pairs
from tests.conversion.test_class_sources import write_bbbc041, write_voc

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(REPOSITORY / "tools" / "convert_bccd.py"), "--workers", "1"]


def run(*arguments: object, status: int = 0) -> str:
    result = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=120,
    )
    said = result.stdout + result.stderr
    assert result.returncode == status, said
    assert "Traceback" not in said
    return said


@pytest.fixture()
def voc_root(tmp_path: Path) -> Path:
    for number in range(5):
        write_voc(
            tmp_path / "voc", f"smear {number}", [("RBC", (20, 20, 60, 60)), ("WBC", (80, 40, 140, 100))]
        )
    lists = tmp_path / "voc" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"smear {number}\n" for number in range(5)))
    return tmp_path / "voc"


def test_masks_with_boxes(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", ["a", "b", "c", "d"])
    boxes = write_bbbc041(tmp_path / "boxes.json", ["a", "b", "c", "d"])
    out = tmp_path / "out"
    common = ("--root", root, "--output", out)
    said = run(*common, "--spec", "bbbc041", "--boxes", boxes)
    assert "boxes with a component of their own: 4" in said
    assert "components without box: keep: 4" in said
    assert "no faults" in run("--check", out / annotation_file("train"))
    assert "has no section 'classes'" in run(
        "--root", root, "--output", tmp_path / "b", "--boxes", boxes, status=1
    )
    assert "expected --boxes" in run(
        "--root", root, "--output", tmp_path / "b", "--spec", "bbbc041", status=1
    )
    assert not (tmp_path / "b").exists()


def test_boxes_without_masks(voc_root: Path, tmp_path: Path) -> None:
    lists = voc_root / "ImageSets" / "Main"
    for part, numbers in (("train", (0, 1, 4)), ("val", (2,)), ("test", (3,))):
        (lists / f"{part}.txt").write_text("".join(f"smear {n}\n" for n in numbers))
    out = tmp_path / "out"
    said = run("--root", voc_root, "--output", out, "--spec", "bccd_voc", "--official", "--ignore-unlabelled")
    assert "boxes without component: weak: 10" in said
    assert "components:" not in said
    assert "train: 3 images, 6 annotations" in said
    document = read_coco(out / annotation_file("test"))
    assert [image["file_name"] for image in document["images"]] == ["JPEGImages/smear 3.jpg"]
    assert all(annotation["weak"] for annotation in document["annotations"])
