"""Images of COCO documents are found where tools put them, and compared with what the documents say."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from bccd_d2.data.registration import register_bccd
from bccd_d2.evaluation.dataset import read_evaluation_set
from bccd_d2.io.coco_images import check_file, find_image_folder, image_root, written_root


def write(folder: Path, names: list[str], encoding: str = "utf-8") -> Path:
    """A data set of images of 40 x 60 pixels with a cell in each; the JSON alone."""
    document: dict[str, Any] = {
        "images": [{"id": i, "file_name": n, "height": 40, "width": 60} for i, n in enumerate(names)],
        "annotations": [
            {"image_id": i, "category_id": "R", "segmentation": [5, 5, 15, 5, 15, 15]}
            for i in range(len(names))
        ],
        "categories": [{"id": "R", "name": "érythrocyte"}],
    }
    path = folder / "annotations" / "instances_train.json"
    path.parent.mkdir()
    path.write_text(json.dumps(document, ensure_ascii=False), encoding=encoding)
    return path


def write_image(path: Path, height: int = 40, width: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tobytes())


@pytest.mark.parametrize(
    ("forms", "encoding"),
    [(("NFC", "NFD"), "utf-8-sig"), (("NFD", "NFC"), "utf-8"), (("NFC", "NFC"), "cp1252")],
)
def test_check_training_and_evaluation_read_the_same_files(
    tmp_path: Path, forms: tuple, encoding: str
) -> None:
    """Repaired ones; and images whose names have their accents in one character or in two."""
    in_json, on_disk = (unicodedata.normalize(form, "é/Blutausstrich-ä.png") for form in forms)  # type: ignore[arg-type]
    path = write(tmp_path, [in_json], encoding)
    write_image(tmp_path / "images" / on_disk)
    assert check_file(path) == ([], (tmp_path / "images").resolve())
    register_bccd(tmp_path, prefix="accents")
    (record,) = DatasetCatalog.get("accents_train")
    assert (Path(record["file_name"]).is_file(), len(record["annotations"])) == (True, 1)
    (image,) = read_evaluation_set(path).images
    assert image.path is not None
    assert (image.path.is_file(), len(image.truth)) == (True, 1)


def test_files_of_the_images(tmp_path: Path) -> None:
    path = write(tmp_path, ["a.png", "small.png", "empty.png", "missing.png"])
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "small.png", 30, 20)
    (tmp_path / "empty.png").write_bytes(b"")
    faults, _ = check_file(path, tmp_path)
    assert len(faults) == 3
    assert "small.png is 20x30 pixels, expected 60x40" in faults[0]
    assert "empty.png: empty file" in faults[1]
    assert "missing.png: no such file" in faults[2]


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
    write_image(tmp_path / image)
    folder = find_image_folder({"images": [{"file_name": name}]}, tmp_path / json_file)
    assert folder is not None
    assert (folder / name.replace("\\", "/")).resolve() == (tmp_path / image).resolve()
    assert find_image_folder({"images": [{"file_name": "b.png"}]}, tmp_path / json_file) is None


def test_a_file_of_regions_to_ignore_alone_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, ["a.png", "b.png"])
    check_file(path)
    assert "nothing to learn from" not in caplog.text
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps({**document, "annotations": [{**a, "iscrowd": 1} for a in document["annotations"]]})
    )
    check_file(path)
    assert (
        caplog.text.count("all 2 annotations have iscrowd 1")
        == caplog.text.count("nothing to learn from")
        == 1
    )


def test_the_written_folder_of_the_images_leads_to_them(tmp_path, monkeypatch):
    images, real = tmp_path / "images", tmp_path / "elsewhere" / "data"
    images.mkdir()
    real.mkdir(parents=True)
    (output := tmp_path / "data").symlink_to(real)
    written = written_root(images, output)
    assert written == "../../images"
    document = {"info": {"image_root": written}}
    assert image_root(document, output / "annotations" / "a.json").resolve() == images

    def other_drive(*_):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", other_drive)
    assert written_root(images, output) == images.as_posix()
