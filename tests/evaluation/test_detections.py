import numpy as np
import pytest

from bccd_d2.evaluation.average_precision import COCOMetrics
from bccd_d2.evaluation.matching import overlaps
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.evaluation.ranking import PrecisionRanking, rank_predictions, scored_image
from tests.evaluation.synthetic_cells import image, random_image, rectangles

NAMES = ("RBC", "WBC", "Platelets")


def ranking(images, *, interior=False, classes=3):
    scored = [scored_image(overlaps(i), interior=interior) for i in images]
    return PrecisionRanking(rank_predictions(scored, classes))


@pytest.mark.parametrize("interior", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_coco(seed, interior):
    generator = np.random.default_rng(seed)
    images = [random_image(generator, cells=20, classes=3, image_id=i) for i in range(1, 6)]
    expected = COCOMetrics(images, NAMES, EvaluationOptions(), engine="pycocotools").table(
        "segm", interior=interior
    )
    found = ranking(images, interior=interior).average_precision()
    for index, name in enumerate(NAMES):
        reference = expected.by_class[name]
        assert found[:, index].mean() == pytest.approx(reference.AP, abs=1e-9)
        assert found[[0, 5], index] == pytest.approx([reference.AP50, reference.AP75], abs=1e-9)


def test_equal_scores_and_equal_overlaps_are_ranked_as_coco_does():
    cell = (50, 50, 20, 20)
    images = [
        image(rectangles([cell, cell]), rectangles([cell, cell, cell], scores=[0.5, 0.5, 0.5]), image_id=1),
        image(rectangles([cell]), rectangles([(100, 100, 9, 9), cell], scores=[0.5, 0.5]), image_id=2),
    ]
    expected = COCOMetrics(images, ("cell",), EvaluationOptions(), engine="pycocotools").table("segm")
    assert ranking(images, classes=1).average_precision().mean() == pytest.approx(expected.overall.AP)


def test_a_weight_counts_an_image_so_many_times():
    generator = np.random.default_rng(3)
    images = [random_image(generator, cells=20, image_id=i) for i in range(1, 5)]
    weights = np.array([2, 0, 1, 3])
    repeated = [images[i] for i in np.repeat(np.arange(4), weights)]
    weighted = ranking(images, classes=2).average_precision(weights.astype(float))
    assert weighted == pytest.approx(ranking(repeated, classes=2).average_precision(), abs=1e-12)


def test_a_class_without_ground_truth_has_no_number():
    cells = rectangles([(50, 50, 20, 20)])
    found = ranking([image(cells, cells)], classes=2).average_precision()
    assert found[:, 0] == pytest.approx(np.ones(10))
    assert np.isnan(found[:, 1]).all()
