"""What tools/predict.py writes goes through tools/convert_bccd.py --from and gives the same cells."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers import write_formats
from bccd_d2.io.sources import ArraySource
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.rle import decode_segmentation
from tests.inference.drawn_cells import NAMES, disc
from tools.convert_bccd import main

KINDS = {"coco": "coco", "geojson": "geojson", "roi": "imagej", "labels": "labels"}


@pytest.mark.parametrize("written", KINDS)
@pytest.mark.parametrize("name", ["smear one.png", "slide.1.ome.tif"])
def test_predictions_become_annotations(tmp_path: Path, written: str, name: str) -> None:
    """A square with a hole, a disc, two far parts that are one cell, and a cell cut by the border."""
    square, parts = np.ones((30, 30), bool), np.zeros((10, 40), bool)
    square[10:20, 5:15] = False
    parts[:, :8] = parts[2:9, 30:] = True
    masks, origins = [square, disc(20), parts, disc(6)[:, 4:]], [(10, 20), (100, 60), (140, 10), (0, 100)]
    cells = Cells.from_masks(150, 200, masks, origins=origins, classes=[0, 1, 2, 2], scores=[0.9] * 4)
    image = np.full((150, 200, 3), 200, np.uint8)
    (tmp_path / "images").mkdir()
    assert cv2.imwrite(str(tmp_path / "images" / name), image)
    write_formats(ImageResult(name, ArraySource(image), cells, NAMES), tmp_path / "predictions", [written])

    root = tmp_path / "predictions" / written
    paths = ["--root", str(root), "--images", str(tmp_path / "images"), "--output", str(tmp_path / "out")]
    options = ["--from", KINDS[written], "--workers", "1", "--ratios", "1", "0", "0"]
    assert main([*paths, *options]) == 0

    document = read_coco(tmp_path / "out" / "annotations" / "instances_train.json")
    assert [entry["file_name"] for entry in document["images"]] == [name]
    names = {category["id"]: category["name"] for category in document["categories"]}
    found = [
        (names[a["category_id"]], decode_segmentation(a["segmentation"], 150, 200))
        for a in document["annotations"]
    ]
    assert [class_name for class_name, _ in found] == [NAMES[number] for number in cells.classes]
    for index, (_, mask) in enumerate(found):
        np.testing.assert_array_equal(mask, cells.full_masks()[index])
