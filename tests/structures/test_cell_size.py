"""Sizes of cells and of the typical red cell, on discs whose diameters are known."""

import numpy as np
import pytest

from bccd_d2.structures.cell_size import annotated_diameter, disc_diameter, typical_diameter
from bccd_d2.structures.cells import Cells

NAMES = {3: "RBC", 5: "WBC", 8: "Platelets"}


def annotations(*groups, **extra):
    """``groups`` are (category, diameters of discs)."""
    return [
        {"category_id": category, "area": np.pi / 4 * diameter**2, **extra}
        for category, diameters in groups
        for diameter in diameters
    ]


def test_the_diameter_of_a_disc_and_of_cells():
    assert disc_diameter(np.pi * 25) == pytest.approx(10)
    cells = Cells.from_label_image(np.array([[1, 1, 0], [1, 1, 2]]))
    assert cells.diameters == pytest.approx([4 / np.pi**0.5, 2 / np.pi**0.5])
    assert Cells.from_masks(5, 5, []).diameters.shape == (0,)


def test_whole_red_cells_say_the_size_or_else_white_ones():
    diameters = np.array([38.0, 40.0, 42.0, 44.0, 9.0, 80.0, 20.0])
    classes = np.array([0, 0, 0, 0, 0, 1, 2])
    cut = np.array([False] * 4 + [True] + [False] * 2)
    assert typical_diameter(diameters, classes, cut, [0], [1]) == 41
    assert typical_diameter(diameters[1:], classes[1:], cut[1:], [0], [1]) == 80 / 1.6  # three are too few
    assert typical_diameter(diameters[1:], classes[1:], cut[1:], [0]) is None
    assert typical_diameter(diameters[1:], classes[1:], cut[1:], [0], fewest=3) == 42
    assert typical_diameter(diameters[:0], classes[:0], cut[:0], [0], [1], fewest=1) is None
    assert (
        typical_diameter(diameters, classes, cut, [0, 1], [1]) == 42
    )  # white ones among them count as they are


def test_annotations_of_many_platelets_and_white_cells_say_the_size_of_red_cells():
    red = annotations((3, [70, 72, 74, 76]))
    others = annotations((5, [120] * 9), (8, [20] * 9))
    ignored = annotations((3, [300] * 9), iscrowd=1) + annotations((3, [30] * 9), border=True)
    assert annotated_diameter(red + others + ignored, NAMES) == pytest.approx(73)
    assert annotated_diameter(red[1:] + others, NAMES) == pytest.approx(120 / 1.6)
    assert annotated_diameter(red[1:], NAMES) == 0
    assert annotated_diameter([], NAMES, fewest=1) == 0
    # One class, whatever its name, counts as it is.
    assert annotated_diameter(others[:4], {5: "WBC"}) == pytest.approx(120)
