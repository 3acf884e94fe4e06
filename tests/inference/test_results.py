import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bccd_d2.inference.results import Counts, add_counts, count_cells, in_counting_frame
from bccd_d2.inference.writers.tables import count_rows
from bccd_d2.structures.cells import Cells

SIDE = 40


def squares(*places, classes=None):
    return Cells.from_masks(100, 100, [np.ones((10, 10))] * len(places), origins=places, classes=classes)


def test_cells_at_the_right_and_lower_border_are_not_in_the_frame():
    cells = squares((0, 20), (20, 0), (90, 20), (20, 90), (0, 90), (90, 0), (50, 50))
    assert in_counting_frame(cells).tolist() == [True, True, False, False, False, False, True]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3 * SIDE), st.integers(1, 3 * SIDE), st.integers(1, SIDE), st.integers(1, SIDE)
        ),
        max_size=12,
    )
)
def test_a_smear_cut_into_fields_counts_each_cell_once(boxes):
    """Cells that end within a pixel of a cut are left out: no field can know whether they go on behind it."""
    boxes = [
        (x, y, x + w, y + h) for x, y, w, h in boxes if not {(x + w) % SIDE, (y + h) % SIDE} & {0, SIDE - 1}
    ]
    counted = 0
    for row in range(0, 5 * SIDE, SIDE):
        for column in range(0, 5 * SIDE, SIDE):
            seen = [
                (max(x0, column), max(y0, row), min(x1, column + SIDE), min(y1, row + SIDE))
                for x0, y0, x1, y1 in boxes
            ]
            seen = [(x0, y0, x1, y1) for x0, y0, x1, y1 in seen if x1 > x0 and y1 > y0]
            cells = Cells.from_masks(
                SIDE,
                SIDE,
                [np.ones((y1 - y0, x1 - x0)) for x0, y0, x1, y1 in seen],
                origins=[(x0 - column, y0 - row) for x0, y0, _, _ in seen],
            )
            counted += int(in_counting_frame(cells).sum())
    assert counted == len(boxes)


def test_shares_and_density():
    cells = squares((90, 20), (20, 20), (40, 40), (60, 60), classes=[0, 0, 1, 0])
    counts = count_cells(cells, ["RBC", "WBC", "Platelet"], microns_per_pixel=2.0)
    assert counts == Counts(
        {"RBC": 3, "WBC": 1, "Platelet": 0}, {"RBC": 2, "WBC": 1, "Platelet": 0}, pytest.approx(0.04)
    )
    rows = count_rows("a.png", counts)
    assert rows[0] == [
        "a.png",
        "RBC",
        3,
        0.75,
        2,
        2 / 3,
        pytest.approx(0.04),
        pytest.approx(50),
        None,
        "",
        "",
    ]
    assert rows[2] == ["a.png", "Platelet", 0, 0, 0, 0, pytest.approx(0.04), 0, None, "", ""]
    assert rows[3] == ["a.png", "all", 4, 1, 3, 1, pytest.approx(0.04), pytest.approx(75), None, "", ""]


def test_counts_add_up_and_the_area_only_if_all_are_known():
    one, two = Counts({"a": 1}, {"a": 1}, 0.5), Counts({"a": 2}, {"a": 0}, 0.25)
    assert add_counts([one, two]) == Counts({"a": 3}, {"a": 1}, 0.75)
    assert add_counts([one, Counts({"a": 1}, {"a": 1}), two]).area_mm2 is None
