import numpy as np
import pytest

from bccd_d2.errors import InputError
from bccd_d2.evaluation.bootstrap import HeadlineStatistics, compare_runs, intervals
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.image_metrics import measure
from bccd_d2.evaluation.options import ALL_CLASSES, EvaluationOptions
from tests.evaluation.synthetic_cells import evaluation_set, image, random_image, rectangles

A, B = (50, 50, 20, 20), (120, 50, 20, 20)
NAMES = ("RBC", "WBC")


def random_set(seed=5, images=6):
    generator = np.random.default_rng(seed)
    return evaluation_set([random_image(generator, image_id=i) for i in range(1, images + 1)], NAMES)


def statistics(dataset, names=NAMES):
    measured = [measure(i, names, EvaluationOptions()) for i in dataset.images]
    return HeadlineStatistics(measured, len(names), "all")


def test_the_headline_is_what_the_whole_evaluation_says():
    dataset = random_set()
    found = evaluate(dataset, EvaluationOptions(bootstrap_samples=0))
    interior = {task: found.average_precision[task]["interior"].overall for task in ("bbox", "segm")}
    assert found.headline("interior")["AP"] == pytest.approx(interior["segm"].AP, abs=1e-6)
    assert found.headline("interior")["mAP@0.5"] == pytest.approx(interior["bbox"].AP50, abs=1e-6)
    assert found.headline() == pytest.approx(
        {
            "IoU": found.overlap.IoU,
            "Dice": found.overlap.Dice,
            "mAP@0.5": found.average_precision["bbox"]["all"].overall.AP50,
            "AP": found.average_precision["segm"]["all"].overall.AP,
            "AP50": found.average_precision["segm"]["all"].overall.AP50,
            "AP75": found.average_precision["segm"]["all"].overall.AP75,
            "F1": found.instances["all"][ALL_CLASSES].f1,
            "PQ": found.instances["all"][ALL_CLASSES].pq,
        },
        abs=1e-6,
    )
    assert {(i.low, i.high) for i in found.intervals["all"].values()} == {(None, None)}


def test_a_resample_is_an_evaluation_of_the_images_it_drew():
    dataset = random_set()
    weights = np.array([2, 0, 1, 1, 0, 2])
    drawn = evaluation_set([dataset.images[i] for i in np.repeat(np.arange(6), weights)], NAMES)
    assert statistics(dataset).figures(weights.astype(float)) == pytest.approx(statistics(drawn).figures())


def test_an_interval_holds_its_figure_and_is_as_wide_as_the_images_differ():
    right, wrong = image(rectangles([A]), rectangles([A])), image(rectangles([A]), rectangles([B]))
    # Of 40 images half are right, so F1 is the share of right ones among those drawn: 0.5 +- 1.96 sqrt(0.25 / 40).
    found = intervals(statistics(evaluation_set([right, wrong] * 20), ("cell",)), samples=1000, seed=0)["F1"]
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((0.345, 0.655), abs=0.03)
    same = intervals(statistics(evaluation_set([right] * 5), ("cell",)), samples=20, seed=0)["F1"]
    assert (same.low, same.high) == (1, 1)
    single = intervals(statistics(random_set(images=1)), samples=50, seed=0)["AP"]
    assert (single.low, single.high) == (None, None), "one image says nothing of others"


def test_intervals_of_a_class_hold_what_the_whole_evaluation_says():
    found = evaluate(random_set(images=8), EvaluationOptions(bootstrap_samples=60))
    for index, name in enumerate(NAMES):
        sure, counts = found.class_intervals[name], found.counts["all"][name]
        called = found.confusion[index][:-1]
        expected = {
            "AP@0.5": found.average_precision["bbox"]["all"].by_class[name].AP50,
            "F1": found.instances["all"][name].f1,
            "bias": counts.bias,
            "mean absolute error": counts.mean_absolute_error,
            "right class": called[index] / sum(called),
        }
        assert {key: sure[key].value for key in expected} == pytest.approx(expected, abs=1e-6)
        assert all(one.low <= one.value <= one.high for key, one in sure.items() if key in expected)


def test_the_calibration_error_of_a_class_is_that_of_its_own_predictions():
    """Two of four predictions of 0.75 are right: off by 0.25. Those of the other class do not count."""
    right = image(rectangles([A]), rectangles([A, B], scores=[0.75, 0.35], classes=[0, 1]))
    wrong = image(rectangles([A]), rectangles([B], scores=[0.75]))
    found = evaluate(evaluation_set([right, wrong] * 2, NAMES), EvaluationOptions(bootstrap_samples=200))
    error = found.class_intervals["RBC"]["calibration error"]
    # Of resamples of none or four right ones out of four the errors are 0.75 and 0.25.
    assert (error.value, error.low, error.high) == pytest.approx((0.25, 0.0, 0.75))
    assert found.reliability["all"].expected_error == pytest.approx((4 * 0.25 + 2 * 0.35) / 6)
    assert found.class_intervals["WBC"]["calibration error"].value == "no ground truth"


def run(predictions_by_image):
    return evaluation_set(
        [image(rectangles([A, B]), p, image_id=i) for i, p in enumerate(predictions_by_image, start=1)]
    )


def test_a_run_that_is_better_everywhere_is_better():
    worse, better = run([rectangles([A])] * 10), run([rectangles([A, B])] * 10)
    found = compare_runs(worse, better, EvaluationOptions(bootstrap_samples=400))["all"]["F1"]
    # F1 of one cell of two is 2/3. Only swapping all images or none gives as much: 2 of 1024 swaps.
    assert (found.a, found.b, found.difference) == pytest.approx((2 / 3, 1, 1 / 3))
    assert (found.low, found.high) == pytest.approx((1 / 3, 1 / 3))
    assert found.p_value < 0.02


def test_better_here_and_worse_there_is_no_difference():
    half, whole = [rectangles([A])] * 5, [rectangles([A, B])] * 5
    found = compare_runs(run(half + whole), run(whole + half), EvaluationOptions(bootstrap_samples=200))
    figures = found["interior"]["F1"]
    assert figures.difference == pytest.approx(0)
    assert figures.low < 0 < figures.high
    assert figures.p_value == 1


def test_runs_of_other_images_or_other_truth_are_refused():
    options = EvaluationOptions(bootstrap_samples=0)
    with pytest.raises(InputError, match="different images: 1 and 2"):
        compare_runs(run([rectangles([])]), run([rectangles([])] * 2), options)
    other = evaluation_set([image(rectangles([A]), rectangles([]))])
    with pytest.raises(InputError, match=r"1\.png: the runs have different ground truth"):
        compare_runs(run([rectangles([])]), other, options)
    with pytest.raises(InputError, match="classes"):
        compare_runs(random_set(), run([rectangles([])]), options)
