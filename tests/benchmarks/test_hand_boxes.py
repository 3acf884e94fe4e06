"""Boxes that people drew against predicted ones, on a picture whose figures are known."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from bccd_d2.evaluation.options import NO_GROUND_TRUTH
from benchmarks.bench_hand_boxes import measure

SIDE = 100
DRAWN = {"RBC": [(0, 0, 20, 20), (40, 0, 60, 20)], "WBC": [(0, 40, 40, 80)]}  # half-open, from 0
OUTSIDE = (70, 70, 90, 90)  # looks like a red cell, and nobody drew a box


def entry(box: tuple[int, int, int, int], category: int, **more) -> dict:
    x0, y0, x1, y1 = box
    outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    shape = {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": outline, "area": (x1 - x0) * (y1 - y0)}
    return {"image_id": 1, "category_id": category, **shape, **more}


@pytest.fixture
def arguments(tmp_path: Path) -> Namespace:
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": SIDE, "width": SIDE}],
        "categories": [{"id": k, "name": n} for k, n in enumerate(("RBC", "WBC", "Platelets"), start=1)],
        "annotations": [entry(OUTSIDE, k, id=k, iscrowd=1) for k in (1, 2, 3)],
    }
    found = [entry(OUTSIDE, 1, score=0.9), entry(DRAWN["RBC"][0], 1, score=0.8)]
    found += [entry(DRAWN["WBC"][0], 2, score=0.7), entry(DRAWN["RBC"][1], 1, score=0.4)]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax>"
        f"<ymax>{y1}</ymax></bndbox></object>"
        for name, boxes in DRAWN.items()
        for x0, y0, x1, y1 in boxes
    )
    size = f"<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>"
    (tmp_path / "a.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return Namespace(
        truth=tmp_path / "truth.json",
        predictions=tmp_path / "found.json",
        boxes=tmp_path,
        spec="bccd_voc",
        one_class=False,
    )


def test_what_was_not_labelled_is_counted_and_left_out(arguments: Namespace) -> None:
    red, white, platelets, every = measure(arguments)
    # Of two boxes both are found, behind a prediction on the cell without a box: precision is 1/2, then 2/3.
    assert red["AP50"] == pytest.approx(2 / 3)
    assert red["AP50 without these"] == pytest.approx(1)
    assert [red[key] for key in ("boxes", "found", "wrong", "of them unlabelled")] == [2, 1, 1, 1]
    assert (white["AP50"], white["recall"], white["wrong"]) == (pytest.approx(1), 1, 0)
    assert platelets["AP50"] == NO_GROUND_TRUTH
    assert every["AP50"] == pytest.approx((2 / 3 + 1) / 2)
    assert [every[key] for key in ("boxes", "found", "wrong", "of them unlabelled")] == [3, 2, 1, 1]


def test_whatever_their_class(arguments: Namespace) -> None:
    arguments.one_class = True
    cell, every = measure(arguments)
    assert [cell[key] for key in ("boxes", "found", "wrong")] == [3, 2, 1]
    # A wrong one before three right ones: interpolated, the precision is 3/4 at every recall.
    assert cell["AP50"] == every["AP50"] == pytest.approx(3 / 4)
