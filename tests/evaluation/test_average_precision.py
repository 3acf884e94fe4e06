from dataclasses import asdict

import numpy as np
import pytest

from bccd_d2.evaluation.average_precision import TASKS
from bccd_d2.evaluation.options import REGIONS, SIZE_NAMES
from tests.evaluation.synthetic_cells import (
    average_precision,
    image,
    pycocotools_figures,
    random_image,
    rectangles,
)

GRID = [(20 * (i % 20), 20 * (i // 20), 8, 8) for i in range(300)]
"""Cells of 8 x 8 px, 20 in a row, on an image of 400 x 400."""


def metrics(truth, predictions, *, names=("cell",), ignore=None, **more):
    return average_precision([image(truth, predictions, ignore)], names, **more)


def test_no_prediction_is_zero_and_no_ground_truth_is_words():
    found = metrics(rectangles(GRID[:1]), rectangles([])).overall
    assert asdict(found) == {"AP": 0, "AP50": 0, "AP75": 0, "AR": 0, "cells": 1}
    assert metrics(rectangles([]), rectangles(GRID[:1])).overall.AP == "no ground truth"


def test_sizes_are_diameters_in_native_pixels():
    # Discs of the same area would be 11.3, 45 and 135 px across; the middle one is not found.
    truth = rectangles([(10, 10, 10, 10), (50, 50, 40, 40), (60, 70, 120, 120)])
    predictions = rectangles([(10, 10, 10, 10), (60, 70, 120, 120)], scores=[0.9, 0.8])
    found = metrics(truth, predictions).by_size
    assert {name: (size.AR, size.cells) for name, size in found.items()} == {
        "small": (1, 1),
        "medium": (0, 1),
        "large": (1, 1),
    }
    found = metrics(truth, predictions, size_edges=(100.0, 200.0)).by_size
    assert {name: size.cells for name, size in found.items()} == {"small": 2, "medium": 1, "large": 0}
    assert found["large"].AP == "no ground truth"


def test_interior_leaves_out_the_border():
    inside, at_border, elsewhere_at_border = (50, 50, 20, 20), (0, 50, 20, 20), (100, 0, 20, 20)
    truth = rectangles([inside, at_border])
    # Best score first: a prediction at the border that nothing there was labelled for, then the cell inside.
    predictions = rectangles([elsewhere_at_border, inside], scores=[0.9, 0.8])
    found = metrics(truth, predictions)
    # Precision 1/2 at recall 1/2 and 0 beyond: 51 of COCO's 101 recalls see 1/2.
    assert (found.overall.AP50, found.overall.cells) == (pytest.approx(51 / 101 / 2), 2)
    interior = metrics(truth, predictions, region="interior")
    assert (interior.overall.AP50, interior.overall.cells) == (pytest.approx(1), 1)
    # A prediction inside the picture that matches nothing is wrong in both.
    predictions = rectangles([(100, 100, 20, 20), inside], scores=[0.9, 0.8])
    assert pytest.approx(0.5) == metrics(truth, predictions, region="interior").overall.AP50


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_all_figures_are_those_of_pycocotools(seed, task, region):
    generator = np.random.default_rng(seed)
    images = [random_image(generator, cells=25, classes=3, image_id=i) for i in range(1, 7)]
    names = ("RBC", "WBC", "Platelets", "absent")
    expected = pycocotools_figures(images, names, task, region)
    assert 0.05 < expected[0, 0][0] < 0.95
    by_class = [
        average_precision([image_of_class(one, index) for one in images], names, task, region)
        for index in range(4)
    ]
    table = average_precision(images, names, task, region)
    for index, name in enumerate(names):
        found = [table.by_class[name], *(by_class[index].by_size[size] for size in SIZE_NAMES)]
        for size, figures in enumerate(found):
            values = [figures.AP, figures.AP50, figures.AP75, figures.AR]
            values = [-1 if value == "no ground truth" else value for value in values]
            assert values == pytest.approx(expected[index, size], abs=1e-9), (name, size)


def image_of_class(one, index):
    """The image with the cells of one class alone."""
    kept = [cells[cells.classes == index] for cells in (one.truth, one.predictions, one.ignore)]
    return image(*kept, image_id=one.image_id)


def test_equal_scores_and_equal_overlaps_are_ranked_as_coco_does():
    cell = (50, 50, 20, 20)
    images = [
        image(rectangles([cell, cell]), rectangles([cell, cell, cell], scores=[0.5, 0.5, 0.5]), image_id=1),
        image(rectangles([cell]), rectangles([(100, 100, 9, 9), cell], scores=[0.5, 0.5]), image_id=2),
    ]
    expected = pycocotools_figures(images, ["cell"], "segm", "all")[0, 0]
    assert pytest.approx(expected[0]) == average_precision(images, ["cell"]).overall.AP
