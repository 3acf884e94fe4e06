"""The conversion from end to end, on drawn masks and on the real pairs."""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bccd_d2.conversion.classes import ClassAssignment
from bccd_d2.conversion.convert import ConversionOptions, convert_dataset
from bccd_d2.conversion.convert_image import AnnotationRule
from bccd_d2.conversion.dataset_spec import read_spec
from bccd_d2.conversion.pairs import ImageRecord
from bccd_d2.io.coco_images import check_file
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.dataset_files import PARTS, annotation_file
from bccd_d2.structures.rle import decode_segmentation
from tests.conversion.drawn import KAGGLE_TRAIN, draw_image, draw_mask, write, write_pairs


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "data", [f"smear {n}" for n in range(10)])


def documents(out: Path) -> list[dict[str, Any]]:
    return [read_coco(annotation_file(out, part)) for part in PARTS]


def all_entries(out: Path, key: str) -> list[dict[str, Any]]:
    return sorted(
        (entry for document in documents(out) for entry in document[key]), key=lambda entry: entry["id"]
    )


def test_drawn_masks_come_out_pixel_for_pixel(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = convert_dataset(root, out)
    assert (summary.events["components"], summary.events["specks dropped"]) == (30, 10)
    assert [summary.images[part] for part in PARTS] == [7, 2, 1]
    for document in documents(out):
        assert document["categories"] == [{"id": 1, "name": "cell"}]
        assert document["info"]["image_root"] == "../data"
        for image in document["images"]:
            path = out / document["info"]["image_root"] / image["file_name"]
            expected = cv2.imread(str(path).replace("original", "mask"), cv2.IMREAD_GRAYSCALE) > 0
            expected[110:113, 150:153] = False
            drawn = np.zeros((image["height"], image["width"]), int)
            annotations = [a for a in document["annotations"] if a["image_id"] == image["id"]]
            for annotation in annotations:
                mask = decode_segmentation(annotation["segmentation"], image["height"], image["width"])
                rows, columns = np.nonzero(mask)
                assert annotation["area"] == mask.sum()
                assert annotation["bbox"] == [
                    columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
                ]  # fmt: skip
                assert isinstance(annotation["segmentation"]["counts"], str)
                drawn += mask
            assert np.array_equal(drawn, expected)
            assert [annotation["border"] for annotation in annotations] == [True, False]
    for part in PARTS:
        faults, folder = check_file(annotation_file(out, part))
        assert (faults, folder and folder.resolve()) == ([], (out / "../data").resolve())


def test_ids_are_unique_and_the_same_in_every_run(root: Path, tmp_path: Path) -> None:
    convert_dataset(root, tmp_path / "a")
    convert_dataset(root, tmp_path / "b", workers=2)
    for name in (*(annotation_file(Path(), part) for part in PARTS), "splits.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    ids = [annotation["id"] for annotation in all_entries(tmp_path / "a", "annotations")]
    assert ids == list(range(1, 21))


def test_an_empty_mask_keeps_its_image(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(root / KAGGLE_TRAIN / "mask" / "smear 3.png", np.zeros((120, 160), np.uint8))
    with caplog.at_level(logging.INFO):
        convert_dataset(root, tmp_path / "out")
    assert "images without an instance: 1" in caplog.text
    images = all_entries(tmp_path / "out", "images")
    assert len(images) == 10
    (empty,) = [image["id"] for image in images if "smear 3" in image["file_name"]]
    assert empty not in {a["image_id"] for a in all_entries(tmp_path / "out", "annotations")}


def test_border_cells_can_be_ignored(root: Path, tmp_path: Path) -> None:
    convert_dataset(root, tmp_path / "out", ConversionOptions(annotations=AnnotationRule(border="ignore")))
    annotations = all_entries(tmp_path / "out", "annotations")
    assert [a["iscrowd"] for a in annotations] == [int(a["border"]) for a in annotations] == [1, 0] * 10


def test_polygons_cover_the_same_pixels(root: Path, tmp_path: Path) -> None:
    rule = AnnotationRule(polygons=True, border="ignore")
    convert_dataset(root, tmp_path / "rle")
    convert_dataset(root, tmp_path / "polygons", ConversionOptions(annotations=rule))
    for first, second in zip(*(all_entries(tmp_path / name, "annotations") for name in ("rle", "polygons"))):
        assert isinstance(second["segmentation"], list) == (not second["border"])
        assert np.array_equal(
            *(decode_segmentation(annotation["segmentation"], 120, 160) for annotation in (first, second))
        )
        assert (first["bbox"], first["area"]) == (second["bbox"], second["area"])


def test_unlabelled_cells_become_regions_to_ignore(tmp_path: Path) -> None:
    mask = draw_mask()
    cv2.circle(mask, (140, 20), 16, 255, -1)
    for n in range(3):
        labelled = mask.copy()
        cv2.circle(labelled, (140, 20), 16, 0, -1)
        write(tmp_path / "data/images" / f"{n}.png", draw_image(mask))
        write(tmp_path / "data/masks" / f"{n}.png", labelled)
    spec = read_spec("palette")
    spec = replace(spec, mask=replace(spec.mask, values=((0, "background"), (255, "RBC"), (7, "WBC"))))
    options = ConversionOptions(spec, AnnotationRule(unlabelled=True))
    summary = convert_dataset(tmp_path / "data", tmp_path / "out", options)
    assert summary.events["unlabelled regions to ignore"] == 3
    regions = [a for a in all_entries(tmp_path / "out", "annotations") if a["iscrowd"]]
    # one for each category, because an evaluation looks at one category at a time
    assert Counter(region["category_id"] for region in regions) == {1: 3, 2: 3}
    cell = cv2.circle(np.zeros((120, 160), np.uint8), (140, 20), 16, 1, -1)
    for region in regions:
        inside = decode_segmentation(region["segmentation"], 120, 160)
        assert np.count_nonzero(inside & cell) > 0.9 * np.count_nonzero(cell)


def test_classes_of_the_mask_become_categories(tmp_path: Path) -> None:
    for n in range(4):
        classes = np.zeros((60, 90, 3), np.uint8)
        cv2.circle(classes, (20, 30), 14, (0, 0, 255), -1)  # BGR: red, RBC
        cv2.circle(classes, (60, 30), 18, (0, 255, 0), -1)  # green, WBC
        write(tmp_path / "data/original" / f"{n}.png", classes)
        write(tmp_path / "data/mask" / f"{n}.png", classes)
    convert_dataset(tmp_path / "data", tmp_path / "out", ConversionOptions(read_spec("rgb_classes")))
    document = documents(tmp_path / "out")[0]
    assert [c["name"] for c in document["categories"]] == ["RBC", "WBC", "Platelets"]
    found = Counter((a["category_id"], a["area"] > 800) for a in document["annotations"])
    assert found == {(1, False): len(document["images"]), (2, True): len(document["images"])}


@dataclass(frozen=True)
class LeftAndRight:
    """A class source that tells cells by the half of the image they lie in, and leaves out nothing."""

    ignore_left: bool = False

    @property
    def class_names(self) -> list[str]:
        return ["left", "right"]

    @property
    def info(self) -> dict[str, Any]:
        return {"source": "halves", "ignore_left": self.ignore_left}

    def __call__(self, image: ImageRecord, labels: np.ndarray) -> ClassAssignment:
        assert image.path.is_file()
        assert labels.shape == (image.height, image.width)
        classes = {}
        for label in range(1, int(labels.max()) + 1):
            classes[label] = 1 if np.nonzero(labels == label)[1].mean() < image.width / 2 else 2
        ignored = {label for label, kind in classes.items() if kind == 1 and self.ignore_left}
        return ClassAssignment(labels, classes, ignored, {2}, Counter({"asked": len(classes)}))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_class_source_decides(root: Path, tmp_path: Path, workers: int) -> None:
    summary = convert_dataset(root, tmp_path / "out", class_source=LeftAndRight(True), workers=workers)
    annotations = all_entries(tmp_path / "out", "annotations")
    assert [(a["category_id"], a["iscrowd"]) for a in annotations[:2]] == [(1, 1), (2, 0)]
    assert summary.events["asked"] == 20
    written = documents(tmp_path / "out")[0]["info"]["options"]["class_source"]
    assert written == {"source": "halves", "ignore_left": True}
    assert ["weak" in annotation for annotation in annotations[:2]] == [False, True]


@pytest.mark.real_data
def test_real_pairs_give_the_known_counts(real_pairs_root: Path, tmp_path: Path) -> None:
    summary = convert_dataset(real_pairs_root, tmp_path / "out", workers=2)
    assert sum(summary.images.values()) == 60
    assert sum(summary.instances.values()) == 4347
    for part in PARTS:
        faults, root = check_file(annotation_file(tmp_path / "out", part))
        assert (faults, root and root.is_dir()) == ([], True)
