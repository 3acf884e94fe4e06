import numpy as np
import pytest

from bccd_d2.errors import InputError
from bccd_d2.evaluation.points import Points, point_recall, point_table, read_points
from tests.evaluation.synthetic_cells import evaluation_set, image, rectangles

A, B = (50, 50, 20, 20), (60, 50, 20, 20)


def recall(xy, boxes, classes=(), scores=None, threshold=0.5):
    dataset = evaluation_set([image(rectangles([]), rectangles(boxes, scores=scores))])
    found = point_recall(dataset, {"1.png": Points(np.array(xy, float), classes)}, threshold)
    return {name: (one.points, one.found) for name, one in found.items()}


def test_a_point_is_found_inside_a_mask_of_its_own():
    assert recall([(50, 50), (69.9, 69.9), (70, 60), (49.9, 60)], [A]) == {"all classes": (4, 1)}
    # The first mask holds both points, the second only the right one: as many as there can be.
    assert recall([(65, 55), (52, 55)], [A, B]) == {"all classes": (2, 2)}
    assert recall([(65, 55), (66, 56)], [A]) == {"all classes": (2, 1)}
    assert recall([(55, 55)], [A], scores=[0.4]) == {"all classes": (1, 0)}
    assert recall([(-5, 10), (500, 10)], [A]) == {"all classes": (2, 0)}


def test_recall_by_class_and_words_without_points():
    found = recall([(55, 55), (5, 5)], [A], classes=["target", "normal"])
    assert found == {"all classes": (2, 1), "target": (1, 1), "normal": (1, 0)}
    dataset = evaluation_set([image(rectangles([]), rectangles([A]))])
    table = point_table(point_recall(dataset, {}, 0.5)).replace(" ", "")
    assert "|allclasses|0|0|nogroundtruth|" in table


@pytest.mark.parametrize(
    ("text", "classes"),
    [("10 20 8\n30 40 1\n", ["8", "1"]), ("x,y\n10,20\n\n30,40\n", []), ("10;20;a b\n30;40;c", ["a b", "c"])],
)
def test_files_are_joined_to_images_by_name(tmp_path, text, classes):
    (tmp_path / "one.txt").write_text(text)
    (found,) = read_points(tmp_path, ["images/one.jpg", "images/two.jpg"]).items()
    assert found[0] == "images/one.jpg"
    assert found[1].xy.tolist() == [[10, 20], [30, 40]]
    assert list(found[1].classes) == classes


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("one.txt", "1 2\n3\n", "line 2: '3', expected 'x y \\[class\\]'"),
        ("one.txt", "1 2 a\n3 4\n", "1 of 2 points have a class"),
        ("one.txt", "1 2\nnan 4\n", "line 2"),
        ("three.txt", "1 2\n", "three"),
        ("one.md", "1 2\n", "no file of points"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_points(tmp_path, ["one.png"])
