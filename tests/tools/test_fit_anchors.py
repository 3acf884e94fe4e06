import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from bccd_d2.errors import InputError
from bccd_d2.files import write_json

REPOSITORY = Path(__file__).resolve().parents[2]
LITE = REPOSITORY / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"


@pytest.fixture
def fit_anchors(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    import fit_anchors

    yield fit_anchors.main
    sys.modules.pop("fit_anchors")


@pytest.fixture
def dataset(tmp_path):
    """In each part an image with 25 boxes of 60x60 around a grid's points; one more is a crowd."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    cv2.imwrite(str(folder / "smear.png"), np.full((640, 640, 3), 200, np.uint8))
    corners = [(128 * x + 34, 128 * y + 34) for x in range(5) for y in range(5)]
    for part in ("train", "val"):
        annotations = [
            {
                "bbox": [x, y, 60, 60],
                "area": 3600,
                "iscrowd": 0,
                "segmentation": [[x, y, x + 60, y, x, y + 60]],
            }
            for x, y in corners
        ]
        annotations.append({**annotations[0], "iscrowd": 1})
        write_json(
            folder / "annotations" / f"instances_{part}.json",
            {
                "images": [{"id": 1, "file_name": "smear.png", "height": 640, "width": 640}],
                "categories": [{"id": 1, "name": "cell"}],
                "annotations": [
                    {**a, "id": i, "image_id": 1, "category_id": 1} for i, a in enumerate(annotations, 1)
                ],
            },
        )
    return folder


def test_fitted_anchors_are_printed_written_and_drawn(fit_anchors, dataset, tmp_path, capsys):
    out = tmp_path / "anchors"
    fit_anchors(
        ["--config-file", str(LITE), "--data-root", str(dataset), "--output", str(out), "INPUT.SCALE", "1.0"]
    )
    printed = capsys.readouterr().out
    assert "bccd_train (1 boxes of crowds left out)" in printed
    # Of the lite model's anchors that of 48 px comes nearest: (48 / 60)^2. A fitted one is the box itself.
    row = next(line.split() for line in printed.splitlines() if line.startswith("all"))
    assert row == ["all", "25", "100.0", "0.0", "0.640", "100.0", "100.0", "1.000"]
    fitted = yaml.safe_load((out / "anchors.yaml").read_text())["MODEL"]["ANCHOR_GENERATOR"]
    assert fitted == {"SIZES": [[24], [60], [96], [192], [384]], "ASPECT_RATIOS": [[0.5, 1, 2]]}
    picture = cv2.imread(str(out / "viz" / "step3_anchor_preview.png"))
    # BGR of what is drawn: the left panel's boxes are missed, the right one's are not.
    red = (picture == (0, 0, 255)).all(axis=2)
    half = picture.shape[1] // 2
    image_rows = slice(0, picture.shape[0] * 3 // 4)  # above the legend
    assert red[image_rows, :half].sum() > 1000
    assert red[image_rows, half:].sum() == 0


def test_an_image_that_is_not_there_is_named(fit_anchors, dataset, tmp_path):
    arguments = [
        "--config-file",
        str(LITE),
        "--data-root",
        str(dataset),
        "--output",
        str(tmp_path),
        "--image",
        "1",
    ]
    with pytest.raises(InputError, match="--image: expected 0 to 0, found 1"):
        fit_anchors(arguments)
