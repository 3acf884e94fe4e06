"""JSON to label images and back again gives the same instances."""

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bccd_d2.conversion.convert import ConversionOptions, convert_dataset
from bccd_d2.conversion.dataset_spec import read_spec
from bccd_d2.conversion.label_masks import label_map, write_label_masks
from bccd_d2.errors import InputError
from bccd_d2.io.masks import MaskRule, read_mask
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.dataset_files import PARTS
from bccd_d2.structures.rle import encode_labels
from tests.conversion.drawn import write_pairs


def annotations_of(labels: np.ndarray) -> list[dict[str, Any]]:
    return [
        {
            "id": i.label,
            "image_id": 1,
            "category_id": 1,
            "area": i.area,
            "segmentation": i.segmentation,
            "iscrowd": 0,
        }
        for i in encode_labels(labels)
    ]


def document_of(labels: np.ndarray, name: str = "a.jpg") -> dict[str, Any]:
    image = {"id": 1, "file_name": name, "height": labels.shape[0], "width": labels.shape[1]}
    return {
        "images": [image],
        "annotations": annotations_of(labels),
        "categories": [{"id": 1, "name": "cell"}],
    }


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_round_trip_through_label_images(tmp_path: Path, kind: str) -> None:
    root = write_pairs(tmp_path / "data", [f"im {n}" for n in range(8)])
    convert_dataset(root, tmp_path / "first")
    for part in PARTS:
        document = read_coco(tmp_path / "first" / "annotations" / f"instances_{part}.json")
        write_label_masks(document, root / "BCCD Dataset with mask/train/instances", kind, overwrite=True)
    options = ConversionOptions(read_spec("label_maps"))
    convert_dataset(root, tmp_path / "second", options)
    for part in PARTS:
        first, second = (
            read_coco(tmp_path / run / "annotations" / f"instances_{part}.json")
            for run in ("first", "second")
        )
        assert first["images"] == second["images"]
        assert first["annotations"] == second["annotations"]


def test_many_labels_want_more_bits(tmp_path: Path) -> None:
    document = document_of(np.eye(20, dtype=np.int32))
    drawn = document["annotations"].pop()
    # Regions to ignore are numbered, too, and quicker to make.
    document["annotations"] = [{**drawn, "id": n, "iscrowd": 1} for n in range(70000)] + [{**drawn, "id": -1}]
    with pytest.raises(InputError, match="70001 labels, expected at most 65535 in a PNG; write TIFF"):
        write_label_masks(document, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_label_masks(document, tmp_path / "out", "tif")
    read = read_mask(tmp_path / "out" / "a.tif", MaskRule(kind="instances"))
    assert np.array_equal(read, np.eye(20) * 70001)


def test_ignored_regions_are_in_the_table_only(tmp_path: Path) -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[:10, :10], labels[20:30, 20:30] = 1, 2
    document = document_of(labels)
    document["annotations"][0]["iscrowd"] = 1
    write_label_masks(document, tmp_path)
    drawn = read_mask(tmp_path / "a.png", MaskRule(kind="instances"))
    assert np.array_equal(drawn, np.where(labels == 2, 2, 0))
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["label"], row["category"], row["ignored"]) for row in rows] == [
        ("a.png", "1", "cell", "1"),
        ("a.png", "2", "cell", "0"),
    ]


def test_the_smaller_of_two_overlapping_instances_stays_visible() -> None:
    big, small = np.zeros((30, 30), np.int32), np.zeros((30, 30), np.int32)
    cv2.circle(big, (15, 15), 10, 1, -1)
    small[14:17, 14:17] = 1
    annotations = annotations_of(small) + annotations_of(big)
    labels, overlaps = label_map(annotations, 30, 30)
    assert overlaps == 9
    assert labels[15, 15] == 1
    assert labels[15, 8] == 2


def test_equal_stems_get_their_folders(tmp_path: Path) -> None:
    document = document_of(np.ones((5, 5), np.int32), "train/a.png")
    document["images"].append({**document["images"][0], "id": 2, "file_name": "test/a.png"})
    write_label_masks(document, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"train_a.png", "test_a.png", "labels.csv"}
