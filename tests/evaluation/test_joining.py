"""Images and classes of predictions, joined to the ground truth by name."""

import pytest

from bccd_d2.errors import InputError
from bccd_d2.evaluation.joining import join_class_names, join_class_numbers, join_image_ids


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ([7, 3], {7: "a.png", 3: "b.png"}, {7: 7, 3: 3}),
        (["a", "b"], {1: "images/a.png", 2: "images/b.jpg"}, {"a": 1, "b": 2}),
        # Ultralytics: a stem that is a number becomes one, others stay text.
        ([12, "x"], {1: "smears/0012.png", 2: "smears/x.png"}, {12: 1, "x": 2}),
        # Ids as text and as fractions, as exports have them.
        (["1", 2.0], {1: "a.png", 2: "b.png"}, {"1": 1, 2.0: 2}),
        # Ids that are names of the same images.
        ([1, 2], {1: "1.png", 2: "2.png"}, {1: 1, 2: 2}),
    ],
)
def test_an_image_id_is_an_id_or_a_name(values, names, expected):
    assert join_image_ids(values, names, "p.json") == expected


@pytest.mark.parametrize(
    ("values", "names"), [([1, 2], {1: "2.png", 2: "1.png"}), ([5], {5: "smears/a.png", 6: "smears/005.png"})]
)
def test_a_number_that_is_the_id_of_one_image_and_the_name_of_another_is_asked_about(values, names):
    with pytest.raises(InputError, match=r"p\.json: image_id .* --image-ids ids or --image-ids names"):
        join_image_ids(values, names, "p.json")
    by_id = join_image_ids(values, names, "p.json", "ids")
    by_name = join_image_ids(values, names, "p.json", "names")
    assert by_id == {value: int(value) for value in values}
    assert by_name != by_id


def test_classes_are_joined_by_name_and_those_that_are_not_known_stay_out():
    known = ["RBC", "WBC"]
    assert join_class_names(["WBC", "Platelets", "rbc"], known, "p") == {"WBC": 1, "rbc": 0}
    assert join_class_names([], known, "p") == {}
    with pytest.raises(InputError, match=r"p: class 'nucleus', expected one of .*--class-agnostic"):
        join_class_names(["nucleus"], known, "p")


def test_numbers_are_taken_only_where_there_are_no_names():
    assert join_class_numbers([2, "5", 2.0], {2: "RBC", 5: "WBC"}, "p") == [2, 5, 2]
    with pytest.raises(InputError, match="class '0', expected one of 2 RBC, 5 WBC; --class-agnostic"):
        join_class_numbers([0], {2: "RBC", 5: "WBC"}, "p")
    for value in (None, True, "RBC", float("nan")):
        with pytest.raises(InputError, match="category_id"):
            join_class_numbers([value], {2: "RBC"}, "p")
