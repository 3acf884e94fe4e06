"""Sentences about an evaluation and a comparison."""

from dataclasses import replace

import pytest

from bccd_d2.evaluation.bootstrap import Difference
from bccd_d2.evaluation.dataset import EvaluationImage, EvaluationSet
from bccd_d2.evaluation.error_bins import BINS
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.reporting.cases import choose, ranking
from bccd_d2.reporting.report import class_table, render_page
from bccd_d2.reporting.sources import EvaluatedPart, Source
from bccd_d2.reporting.wording import BIN_COLORS, BIN_WORDS, comparison_table, summary_sentences, verdict
from bccd_d2.structures.cells import Cells
from tests.evaluation.synthetic_cells import evaluation_set, image, rectangles
from tests.html_page import Page
from tests.reporting.scene import HEIGHT, NAMES, WIDTH, flawed, square, truth

NOTHING = Cells.from_masks(HEIGHT, WIDTH, [])


def evaluated(*pairs, **options):
    images = [
        EvaluationImage(number, f"{number}.png", None, true, NOTHING, predicted)
        for number, (true, predicted) in enumerate(pairs)
    ]
    dataset = EvaluationSet(images, NAMES, [1, 2])
    evaluation = evaluate(dataset, EvaluationOptions(bootstrap_samples=0, **options))
    return EvaluatedPart(Source("Val", dataset, {}), evaluation)


def test_every_bin_has_its_words_and_its_colour():
    assert set(BIN_COLORS) == set(BINS)
    assert set(BIN_WORDS) == set(BINS) - {"correct", "ignored"}


def test_perfect_predictions_have_no_error_to_speak_of():
    assert summary_sentences(evaluated((truth(), truth())).evaluation) == [
        "On 1 image with 6 annotated cells, 100 % of the cells are found, "
        "and 100 % of the predictions are annotated cells.",
        "On an image of 6 cells the count is off by 0.0; on average over the images it is right.",
    ]


def test_the_commonest_error_and_the_counts():
    sentences = summary_sentences(evaluated((truth(), flawed())).evaluation)
    assert sentences[0].endswith(
        "50 % of the cells are found, and 60 % of the predictions are annotated cells."
    )
    assert (
        "“several cells in one outline”: 2 annotated cells and 1 prediction; fixing it would add"
        in sentences[1]
    )
    assert (
        sentences[2]
        == "On an image of 6 cells the count is off by 1.0; on average over the images it is 1.0 too low."
    )


def test_the_border_is_spoken_of_where_it_matters():
    border = Cells.from_masks(
        HEIGHT, WIDTH, [square(0, 60), square(20, 20)], classes=[0, 0], scores=[0.9, 0.8]
    )
    (sentence,) = [
        s for s in summary_sentences(evaluated((truth(), border)).evaluation) if "border, where" in s
    ]
    assert sentence == (
        "All false positives (1) lie at the image border, where cells are annotated only sometimes; "
        "away from it 20 % of the cells are found and 100 % of the predictions are right."
    )


def test_a_better_threshold_is_named():
    cells = truth()
    wrong = [square(250, y, 30, 20) for y in range(10, 230, 25)]
    predicted = Cells.from_masks(
        HEIGHT,
        WIDTH,
        [*cells.full_masks(), *wrong],
        classes=[*cells.classes, *(0 for _ in wrong)],
        scores=[0.9] * len(cells) + [0.6] * len(wrong),
    )
    sentence = summary_sentences(evaluated((cells, predicted)).evaluation)[-1]
    assert (
        sentence
        == "A score threshold of 0.90 in place of 0.50 would raise F1 on these images from 0.571 to 1.000."
    )


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        ((truth(), NOTHING), "0 % of the cells are found: nothing was predicted at this score threshold."),
        (
            (NOTHING, flawed()),
            "1 image without an annotated cell: there is nothing to compare 5 predictions with.",
        ),
    ],
)
def test_empty_truth_and_empty_predictions_make_a_page_too(pair, sentence):
    part = evaluated(pair)
    page = Page(render_page([part], {part.key: []}, {part.key: []}, "nothing"))
    assert sentence in page.words
    assert "nan" not in page.words.lower().split()
    assert page.open == []


def rows_of(table):
    """Lines of a Markdown table without the spaces that align its columns."""
    return [" | ".join(map(str.strip, line.split("|"))).strip() for line in table.splitlines()]


DIFFERENCE = Difference(a=0.8, b=0.9, difference=0.1, low=0.05, high=0.15, p_value=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "B is better"),
        ({"difference": -0.1, "low": -0.15, "high": -0.05}, "A is better"),
        ({"p_value": 0.2}, "no clear difference"),
        ({"low": None, "high": None, "p_value": None}, "too few images or no resamples to tell"),
        ({"b": "no ground truth", "difference": None}, "nothing to compare"),
    ],
)
def test_a_difference_is_real_only_where_interval_and_test_agree(changes, words):
    found = replace(DIFFERENCE, **changes)
    assert verdict(found) == words
    table = rows_of(comparison_table({"all": {"AP": found}, "interior": {"AP": found}}))
    assert len(table) == 4
    assert {line.count("|") for line in table} == {8}
    assert table[3].startswith("| AP, interior | 0.800 |")
    assert words in table[2]


def test_outlines_of_equal_iou_are_ranked_by_f1_and_the_worst_and_the_best_are_shown():
    assert choose(range(100), 6) == [0, 1, 2, 3, 98, 99]
    part = evaluated((truth(), truth()), (truth(), flawed()), (truth(), truth()))
    assert ranking(part) == [], "none of the images has a file"
    images = [replace(image, path=image.file_name) for image in part.source.dataset.images]
    there = replace(part, source=replace(part.source, dataset=replace(part.source.dataset, images=images)))
    assert ranking(there) == [1, 0, 2]


def test_images_without_true_cells_are_ranked_too():
    """They have no F1: an image of nothing is perfect, one of predictions alone has an IoU of 0."""
    part = evaluated((NOTHING, NOTHING), (truth(), truth()), (NOTHING, flawed()), (truth(), NOTHING))
    images = [replace(image, path=image.file_name) for image in part.source.dataset.images]
    dataset = replace(part.source.dataset, images=images)
    assert ranking(replace(part, source=replace(part.source, dataset=dataset))) == [3, 2, 0, 1]


def test_the_table_says_what_cells_of_a_class_are_called():
    a, b, c, nowhere = (50, 50, 20, 20), (120, 50, 20, 20), (50, 120, 20, 20), (150, 150, 20, 20)
    # Of three red cells one is found, one called white, one not found; a platelet is invented.
    truth = rectangles([a, b, c], classes=[0, 0, 0])
    predictions = rectangles([a, b, nowhere], classes=[0, 1, 2], scores=[0.9, 0.8, 0.7])
    dataset = evaluation_set([image(truth, predictions)], ("RBC", "WBC", "Platelets"))
    lines = rows_of(class_table(evaluate(dataset, EvaluationOptions(bootstrap_samples=0))))
    assert lines[0] == (
        "|  | cells | predicted | AP@0.5 | F1 | bias | mean absolute error | right class | calibration error "
        "| called RBC | called WBC | called Platelets | not found |"
    )
    # AP: precision 1 up to a recall of 1/3, 34 of COCO's 101 recalls. F1 2 / (3 + 1). One of the two that are found is
    # called red. The one that is right has score 0.9.
    assert lines[2] == "| RBC | 3 | 1 | 0.337 | 0.500 | -2.00 | 2.00 | 0.500 | 0.100 | 1 | 1 | 0 | 1 |"
    assert lines[3] == f"| WBC | 0 | 1 |{' no ground truth |' * 6} 0 | 0 | 0 | 0 |"
    assert lines[5] == "| no cell |  |  |  |  |  |  |  |  | 0 | 0 | 1 |  |"
