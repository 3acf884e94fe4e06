"""The shipped model completes the annotations of images whose outlines are known: dark discs on a bright background."""

import json

import cv2
import numpy as np
import pytest

from bccd_d2.inference.completion import complete_annotations, find_unlabelled, outline_boxes
from bccd_d2.inference.model_files import shipped_model
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.coco import read_coco
from tests.data.shapes import disc
from tools import complete_annotations as tool

HEIGHT, WIDTH, RADIUS = 260, 420, 45
CENTRES = ((80, 90), (210, 150), (340, 100))
DISCS = [disc(HEIGHT, WIDTH, x, y, RADIUS) for x, y in CENTRES]
BOXES = np.array([[x - 50, y - 50, x + 50, y + 50] for x, y in CENTRES], np.float64)


@pytest.fixture(scope="module")
def predictor():
    model = shipped_model()
    return BCCDPredictor(model.config, model.weights)


@pytest.fixture(scope="module")
def smear():
    image = np.full((HEIGHT, WIDTH, 3), (225, 225, 225), np.float32)
    for x, y in CENTRES:
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        distance = np.hypot(columns - x, rows - y) / RADIUS
        image[distance <= 1] = np.array((150, 120, 180)) + 30 * np.exp(
            -((distance[distance <= 1, None] / 0.4) ** 2)
        )
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    return cv2.GaussianBlur(np.clip(image + noise, 0, 255).astype(np.uint8), (0, 0), 1.2)


def iou(mask, other):
    return (mask & other).sum() / (mask | other).sum()


def test_the_mask_head_outlines_annotated_boxes(predictor, smear):
    cells, failed = outline_boxes(predictor, smear, BOXES, predictor.training_diameter / (2 * RADIUS))
    assert not failed.any()
    assert min(iou(cells.full_masks()[k], DISCS[k]) for k in range(3)) > 0.9
    assert np.array_equal(cells.boxes, BOXES)  # as annotated


def test_a_box_without_a_plausible_outline_becomes_an_ellipse(predictor, smear, monkeypatch):
    monkeypatch.setattr("bccd_d2.inference.completion._SMALLEST_FILL", 1.5)  # no mask is plausible
    empty = np.array([[150.0, 5.0, 190.0, 45.0]])
    cells, failed = outline_boxes(predictor, smear, empty, 1.0)
    assert failed.all()
    x0, y0, x1, y1 = cells.windows[0]
    assert 150 <= x0 < x1 <= 190
    assert 5 <= y0 < y1 <= 45
    assert cells.areas[0] == pytest.approx(np.pi * (0.92 * 20) ** 2, rel=0.03)


def test_cells_that_nobody_annotated_are_found(predictor, smear):
    annotated = Cells.from_masks(HEIGHT, WIDTH, DISCS[:2])
    left_out = find_unlabelled(predictor, smear, annotated, predictor.training_diameter / (2 * RADIUS), 0.3)
    assert len(left_out) == 1
    assert iou(left_out.full_masks()[0], DISCS[2]) > 0.8


def document_of(masks, weak):
    cells = Cells.from_masks(HEIGHT, WIDTH, masks)
    annotations = [
        {
            "id": 10 + k,
            "image_id": 3,
            "category_id": 1,
            "bbox": [float(x0 - 5), float(y0 - 5), float(x1 - x0 + 10), float(y1 - y0 + 10)],
            "area": int(area),
            "segmentation": rle,
            "iscrowd": 0,
            **({"weak": True} if weak else {}),
        }
        for k, (rle, area, (x0, y0, x1, y1)) in enumerate(
            zip(cells.rles(), cells.areas, cells.windows.tolist())
        )
    ]
    return {
        "info": {"image_root": "."},
        "images": [{"id": 3, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "RBC"}],
        "annotations": annotations,
    }


def test_only_weak_masks_are_drawn_again(predictor, smear):
    small = [disc(HEIGHT, WIDTH, x, y, RADIUS - 5) for x, y in CENTRES]
    for weak in (True, False):
        document = document_of(small, weak)
        done, counts = complete_annotations(
            document, lambda _: smear, predictor, outlines=True, ignore_score=None
        )
        assert counts == ({"outlines": 3, "ellipses": 0} if weak else {"outlines": 0, "ellipses": 0})
        assert (done["annotations"][0]["segmentation"] != document["annotations"][0]["segmentation"]) is weak
        assert [one["bbox"] for one in done["annotations"]] == [
            one["bbox"] for one in document["annotations"]
        ]


def test_a_model_of_unknown_magnification_takes_images_as_they_are(predictor, smear, monkeypatch, caplog):
    monkeypatch.setattr(predictor, "training_diameter", 0.0)
    document = document_of(DISCS, weak=True)
    done, counts = complete_annotations(
        document, lambda _: smear, predictor, outlines=True, ignore_score=None
    )
    assert counts == {"outlines": 3, "ellipses": 0}
    assert [one["area"] for one in done["annotations"]] == pytest.approx([DISCS[0].sum()] * 3, rel=0.15)
    assert "INPUT.CELL_DIAMETER of the model is 0" in caplog.text


def test_the_command_writes_a_data_set_with_regions_to_ignore(smear, tmp_path):
    root = tmp_path / "sources" / "boxes"  # one of several sources
    (root / "annotations").mkdir(parents=True)
    cv2.imwrite(str(root / "a.png"), smear)
    (root / "annotations" / "instances_train.json").write_text(json.dumps(document_of(DISCS[:2], weak=True)))
    command = ["--data-root", str(root.parent), "--output", str(tmp_path / "done"), "--ignore-score", "0.3"]
    tool.main(command)
    written = read_coco(tmp_path / "done" / "boxes" / "annotations" / "instances_train.json")
    assert (tmp_path / "done" / "boxes" / written["info"]["image_root"] / "a.png").resolve() == (
        root / "a.png"
    ).resolve()
    regions = [one for one in written["annotations"] if one["iscrowd"]]
    assert len(regions) == 1
    assert regions[0]["area"] == pytest.approx(DISCS[2].sum(), rel=0.25)
    with pytest.raises(tool.InputError, match="exists; give --overwrite to replace it"):
        tool.main(command)
    with pytest.raises(tool.InputError, match="nothing to do: expected --outlines"):
        tool.main(command[:4])
