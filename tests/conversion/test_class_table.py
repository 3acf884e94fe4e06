"""The table of classes in a data set's YAML."""

import pytest

from bccd_d2.conversion.classes import ClassTable
from bccd_d2.errors import InputError

RIGHT = {"format": "voc", "categories": {"RBC": "RBC", "WBC": "WBC", "Mystery": "ignore"}}


def test_ids_follow_the_order_of_the_table_and_the_default_comes_last():
    table = ClassTable.from_mapping(RIGHT)
    assert table.class_ids == {"RBC": 1, "WBC": 2, "cell": 3}
    assert ClassTable.from_mapping({**RIGHT, "default": "WBC"}).class_ids == {"RBC": 1, "WBC": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "classes: None, expected a mapping"),
        ({"format": "voc"}, "no key 'categories'"),
        ({**RIGHT, "shred": "watershed"}, "unknown key 'shred', expected some of format, "),
        ({**RIGHT, "format": "coco"}, "format: 'coco', expected one of voc, bbbc041, yolo"),
        ({**RIGHT, "categories": {"RBC": 1}}, "'RBC': 1, expected a class name"),
        ({**RIGHT, "default": "ignore"}, "default: 'ignore', expected a class name"),
        ({**RIGHT, "without_box": []}, "without_box: .*, expected one of keep, ignore, drop"),
    ],
)
def test_a_wrong_table_is_named(content, message):
    with pytest.raises(InputError, match=message):
        ClassTable.from_mapping(content)
