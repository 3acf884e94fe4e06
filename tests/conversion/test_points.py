"""Points as a source of classes."""

from pathlib import Path

import numpy as np
import pytest

from bccd_d2.conversion.box_classes import PointClasses
from bccd_d2.conversion.classes import ClassTable
from bccd_d2.conversion.pairs import ImageRecord
from bccd_d2.errors import InputError

LABELS = np.zeros((20, 40), np.int32)
for number in range(4):
    LABELS[2:8, 2 + 10 * number : 8 + 10 * number] = number + 1


def assign(folder: Path, text: str | None, **table: str):
    if text is not None:
        (folder / "a.txt").write_text(text)
    content = {
        "format": "points",
        "categories": {0: "normal", 4: "target", "dirt": "drop"},
        "default": "normal",
        **table,
    }
    source = PointClasses(ClassTable.from_mapping(content), folder)
    assert source.class_names == ["normal", "target"]
    return source(ImageRecord(1, "a", "a.png", folder / "a.png", 20, 40), LABELS)


def test_a_component_has_the_class_of_its_point(tmp_path: Path) -> None:
    found = assign(tmp_path, "5 5 4\n15, 5, 0\n25 5 dirt\n\n39 19 4\n99 5 0\n")
    assert found.category_ids == {1: 2, 2: 1, 3: 1, 4: 1}
    assert found.counts["points without component, dropped"] == 2
    assert found.counts["components without point: keep"] == 2
    assert assign(tmp_path, None, without_box="ignore").ignored == {3, 4}


def test_points_of_several_classes_on_one_component(tmp_path: Path) -> None:
    text = "5 5 4\n6 6 4\n3 3 0\n"
    assert assign(tmp_path, text, without_box="drop").category_ids == {1: 2}


def test_an_image_without_points(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no points for it"):
        assign(tmp_path, None)
    assert assign(tmp_path, None, image_without_boxes="keep").counts["images without points"] == 1
