"""What tools/predict.py finds with the shipped model goes in again, in every format."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.rle import decode_segmentation
from bccd_d2.synthetic import draw_smear
from tools.convert_bccd import main as convert
from tools.evaluate import main as evaluate
from tools.predict import main as predict

SIZE = 480
FORMATS = {
    "predictions.json": "coco",
    "coco": "coco",
    "geojson": "geojson",
    "roi": "imagej",
    "labels": "labels",
}


@pytest.fixture(scope="module")
def smears(tmp_path_factory):
    """Folder of one image, with what was found in it in the folder ``found``."""
    folder = tmp_path_factory.mktemp("smears")
    assert cv2.imwrite(str(folder / "a b.png"), draw_smear(6, SIZE, SIZE).image)
    arguments = ["--input", str(folder), "--output", str(folder / "found"), "--diameter", "80"]
    # Masks that overlap cannot all be kept in a label image.
    arguments += ["--formats", "coco,labels,geojson,roi", "--no-overlap"]
    assert predict(arguments) == 0
    return folder


def cells(document, class_names):
    """Class and mask of each cell, in an order that does not depend on that of the file."""
    found = [
        (class_names[a["category_id"]], decode_segmentation(a["segmentation"], SIZE, SIZE).astype(bool))
        for a in document
    ]
    return sorted(found, key=lambda cell: (cell[0], int(cell[1].sum()), np.flatnonzero(cell[1])[0]))


@pytest.mark.parametrize("name", FORMATS)
def test_every_output_goes_in_again(smears: Path, tmp_path: Path, name: str) -> None:
    found, data = smears / "found" / name, tmp_path / "data"
    predicted = json.loads((smears / "found" / "predictions.json").read_text())
    options = ["--images", str(smears), "--ratios", "1", "0", "0", "--workers", "1"]
    assert convert(["--root", str(found), "--output", str(data), "--from", FORMATS[name], *options]) == 0
    document = read_coco(data / "annotations" / "instances_train.json")
    expected = cells(predicted, {entry["category_id"]: entry["category"] for entry in predicted})
    actual = cells(document["annotations"], {c["id"]: c["name"] for c in document["categories"]})
    assert len(expected) > 5 and len({class_name for class_name, _ in expected}) > 1
    assert [class_name for class_name, _ in actual] == [class_name for class_name, _ in expected]
    for (_, mask), (_, truth) in zip(actual, expected):
        np.testing.assert_array_equal(mask, truth)

    report = tmp_path / "report"
    truth_file = str(data / "annotations" / "instances_train.json")
    evaluate(
        [
            "--predictions",
            str(found),
            "--truth",
            truth_file,
            "--output",
            str(report),
            "--bootstrap-samples",
            "0",
        ]
    )
    (metrics,) = json.loads((report / "metrics.json").read_text())["parts"].values()
    assert metrics["instances"]["all"]["all classes"]["f1"] == 1
    assert metrics["average_precision"]["segm"]["all"]["overall"]["AP"] == pytest.approx(1)


def test_results_below_the_images_are_no_images(smears: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (smears / "found" / "predictions.json").read_text()
    arguments = [
        "--input",
        str(smears),
        "--output",
        str(smears / "found"),
        "--diameter",
        "80",
        "--no-overlap",
    ]
    assert predict([*arguments, "--formats", "coco,labels,geojson,roi"]) == 0
    assert "1 of 1 files are finished already" in capsys.readouterr().out
    assert (smears / "found" / "predictions.json").read_text() == before
