from dataclasses import asdict

import numpy as np
import pytest

from bccd_d2.errors import InputError
from bccd_d2.evaluation.average_precision import COCOMetrics
from bccd_d2.evaluation.options import EvaluationOptions
from tests.evaluation.synthetic_cells import image, random_image, rectangles

ENGINES = ("faster-coco-eval", "pycocotools")
GRID = [(20 * (i % 20), 20 * (i // 20), 8, 8) for i in range(300)]
"""Cells of 8 x 8 px, 20 in a row, on an image of 400 x 400."""


def moved(boxes, shift):
    return [(x + shift, y, width, height) for x, y, width, height in boxes]


def metrics(truth, predictions, *, names=("cell",), task="segm", interior=False, engine="auto", **options):
    table = COCOMetrics([image(truth, predictions)], names, EvaluationOptions(**options), engine=engine)
    return table.table(task, interior=interior)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_three_hundred_perfect_cells_are_all_counted(task, engine):
    cells = rectangles(GRID, side=400)
    found = metrics(cells, cells, task=task, engine=engine).overall
    assert asdict(found) == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1, "AR": 1, "cells": 300})


def test_more_predictions_than_the_evaluator_looks_at_are_an_error():
    cells = rectangles(GRID, side=400)
    with pytest.raises(InputError, match=r"1\.png: 300 predictions, but TEST\.DETECTIONS_PER_IMAGE is 100"):
        metrics(cells, cells, max_detections=100)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_a_shift_fails_above_its_iou(task, engine):
    # 8x8 squares moved by one pixel: intersection 56, union 72, IoU 0.778: right at 0.50, ..., 0.75, 6 of 10.
    truth = rectangles(GRID[30:32], side=400)
    predictions = rectangles(moved(GRID[30:32], 1), scores=[0.9, 0.8], side=400)
    found = metrics(truth, predictions, task=task, engine=engine).overall
    assert asdict(found) == pytest.approx({"AP": 0.6, "AP50": 1, "AP75": 1, "AR": 0.6, "cells": 2})


@pytest.mark.parametrize("engine", ENGINES)
def test_no_prediction_is_zero_not_missing(engine):
    found = metrics(rectangles(GRID[:1]), rectangles([]), engine=engine).overall
    assert asdict(found) == {"AP": 0, "AP50": 0, "AP75": 0, "AR": 0, "cells": 1}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_class_without_ground_truth_is_words_and_in_no_mean(engine):
    predictions = rectangles([GRID[0], GRID[5]], classes=[0, 1], scores=[0.9, 0.9])
    found = metrics(rectangles(GRID[:1]), predictions, names=("RBC", "WBC"), engine=engine)
    assert pytest.approx(1) == found.overall.AP
    assert pytest.approx(1) == found.by_class["RBC"].AP
    words = "no ground truth"
    assert asdict(found.by_class["WBC"]) == {
        "AP": words,
        "AP50": words,
        "AP75": words,
        "AR": words,
        "cells": 0,
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_no_ground_truth_at_all_is_words(engine):
    assert metrics(rectangles([]), rectangles(GRID[:1]), engine=engine).overall.AP == "no ground truth"


@pytest.mark.parametrize("engine", ENGINES)
def test_sizes_are_diameters_in_native_pixels(engine):
    # Discs of the same area would be 11.3, 45 and 135 px across; the middle one is not found.
    truth = rectangles([(10, 10, 10, 10), (50, 50, 40, 40), (60, 70, 120, 120)])
    predictions = rectangles([(10, 10, 10, 10), (60, 70, 120, 120)], scores=[0.9, 0.8])
    found = metrics(truth, predictions, engine=engine).by_size
    assert {name: (size.AR, size.cells) for name, size in found.items()} == {
        "small": (1, 1),
        "medium": (0, 1),
        "large": (1, 1),
    }
    found = metrics(truth, predictions, engine=engine, size_edges=(100.0, 200.0)).by_size
    assert {name: size.cells for name, size in found.items()} == {"small": 2, "medium": 1, "large": 0}
    assert found["large"].AP == "no ground truth"


@pytest.mark.parametrize("engine", ENGINES)
def test_interior_leaves_out_the_border(engine):
    inside, at_border, elsewhere_at_border = (50, 50, 20, 20), (0, 50, 20, 20), (100, 0, 20, 20)
    truth = rectangles([inside, at_border])
    # Best score first: a prediction at the border that nothing there was labelled for, then the cell inside.
    predictions = rectangles([elsewhere_at_border, inside], scores=[0.9, 0.8])
    found = metrics(truth, predictions, engine=engine)
    # Precision 1/2 at recall 1/2 and 0 beyond: 51 of COCO's 101 recalls see 1/2.
    assert (found.overall.AP50, found.overall.cells) == (pytest.approx(51 / 101 / 2), 2)
    interior = metrics(truth, predictions, engine=engine, interior=True)
    assert (interior.overall.AP50, interior.overall.cells) == (pytest.approx(1), 1)
    # A prediction inside the picture that matches nothing is wrong in both.
    predictions = rectangles([(100, 100, 20, 20), inside], scores=[0.9, 0.8])
    assert pytest.approx(0.5) == metrics(truth, predictions, engine=engine, interior=True).overall.AP50


@pytest.mark.parametrize("engine", ENGINES)
def test_what_lies_in_an_ignore_region_is_neither_right_nor_wrong(engine):
    truth, predictions = rectangles([GRID[0]]), rectangles([(100, 100, 20, 20), GRID[0]], scores=[0.9, 0.8])
    region = rectangles([(90, 90, 60, 60)])
    for ignore, expected in ((None, 0.5), (region, 1.0)):
        table = COCOMetrics(
            [image(truth, predictions, ignore)], ("cell",), EvaluationOptions(), engine=engine
        ).table("segm")
        assert pytest.approx(expected) == table.overall.AP50


@pytest.mark.parametrize("interior", [False, True])
@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_both_engines_agree(task, interior):
    generator = np.random.default_rng(7)
    images = [random_image(generator, cells=25, classes=3, image_id=i) for i in range(1, 9)]
    names = ("RBC", "WBC", "Platelets", "absent")
    tables = [
        asdict(COCOMetrics(images, names, EvaluationOptions(), engine=engine).table(task, interior=interior))
        for engine in ENGINES
    ]
    values = [[(p, v) for p, v in leaves(table)] for table in tables]
    assert len(values[0]) == 5 * (1 + 4 + 3)
    assert [path for path, _ in values[0]] == [path for path, _ in values[1]]
    for (path, a), (_, b) in zip(*values):
        assert a == b if isinstance(a, str) else a == pytest.approx(b, abs=1e-6), path
    assert 0.05 < tables[0]["overall"]["AP"] < 0.9


def leaves(table, path=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}/{key}")
        else:
            yield f"{path}/{key}", value


def test_an_unknown_engine_is_an_error():
    with pytest.raises(InputError, match="engine 'fast'"):
        metrics(rectangles([]), rectangles([]), engine="fast")
