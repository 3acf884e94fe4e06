import numpy as np
import pytest

from bccd_d2.inference import measurements
from bccd_d2.inference.measurements import measure_cells, nucleus_fraction
from bccd_d2.io.sources import ArraySource
from bccd_d2.structures.cells import Cells
from tests.inference.drawn_cells import disc, ring_and_friends

GREY = ArraySource(np.full((150, 200, 3), 128, np.uint8))


def measured(mask, origin=(60, 40), **options):
    cells = Cells.from_masks(150, 200, [mask], origins=[origin])
    table = measure_cells(GREY, cells, ["cell"], **options)
    return {name: column[0] for name, column in table.items()}


def test_a_disc_is_round_and_all_there():
    cell = measured(disc(40))
    assert (cell["x_px"], cell["y_px"]) == (100.5, 80.5)
    assert cell["area_px"] == disc(40).sum()
    assert cell["equivalent_diameter_px"] == pytest.approx(80, rel=0.01)
    assert cell["perimeter_px"] == pytest.approx(2 * np.pi * 40, rel=0.01)
    assert cell["circularity"] == pytest.approx(1, abs=0.015)
    assert cell["eccentricity"] == pytest.approx(0, abs=1e-6)
    assert 0.97 < cell["solidity"] < 1
    assert not cell["touches_border"]


def test_a_rectangle():
    cell = measured(np.ones((20, 40)))
    assert (cell["x_px"], cell["y_px"]) == (80, 50)
    assert cell["solidity"] == 1
    # The second moments of the middles of a x b pixels are (a^2 - 1) / 12 and (b^2 - 1) / 12.
    assert cell["eccentricity"] == pytest.approx(np.sqrt(1 - (20**2 - 1) / (40**2 - 1)), abs=1e-6)


def test_a_hole_lowers_area_and_solidity_and_its_outline_counts():
    table = ring_and_friends().measurements
    assert table["area_px"][0] == 900 - 100
    assert table["solidity"][0] == pytest.approx(800 / 900)
    whole = measured(np.ones((30, 30)))
    hole = measured(np.ones((10, 10)))
    assert table["perimeter_px"][0] == pytest.approx(whole["perimeter_px"] + hole["perimeter_px"], rel=0.02)


def test_levels_are_those_of_the_pixels_inside_the_mask():
    image = np.zeros((10, 10, 3), np.uint8)
    image[2:4, 2:6] = (10, 20, 30)  # BGR
    image[2:4, 4:6] = (30, 20, 50)
    cells = Cells.from_masks(10, 10, [np.ones((2, 4))], origins=[(2, 2)])
    table = measure_cells(ArraySource(image), cells, ["cell"])
    assert [table[f"mean_{c}"][0] for c in ("red", "green", "blue")] == [40, 20, 20]
    assert [table[f"std_{c}"][0] for c in ("red", "green", "blue")] == [10, 0, 10]


def test_the_nucleus_of_a_white_cell_is_its_saturated_part():
    image = np.full((60, 60, 3), (210, 200, 205), np.uint8)
    image[15:35, 15:25] = (150, 40, 110)
    cells = Cells.from_masks(60, 60, [np.ones((40, 40))] * 2, origins=[(10, 10)] * 2, classes=[0, 1])
    table = measure_cells(ArraySource(image), cells, ["RBC", "Neutrophil"])
    assert np.isnan(table["nucleus_fraction"][0])
    assert table["nucleus_fraction"][1] == pytest.approx(200 / 1600)
    assert np.isnan(nucleus_fraction(np.full((9, 3), 77, np.uint8)))


def test_the_border_flag():
    squares = [(0, 5), (1, 5), (2, 5), (20, 140), (20, 138)]
    cells = Cells.from_masks(150, 200, [np.ones((10, 10))] * 5, origins=squares)
    flags = measure_cells(GREY, cells, ["cell"])["touches_border"]
    assert flags.tolist() == [True, True, False, True, False]


def test_blocks_give_what_the_whole_image_gives(monkeypatch):
    result = ring_and_friends()
    noise = np.random.default_rng(0).integers(0, 255, (150, 200, 3), np.uint8)
    whole = measure_cells(ArraySource(noise), result.cells, result.class_names)
    monkeypatch.setattr(measurements, "_BLOCK", 32)
    blocks = measure_cells(ArraySource(noise), result.cells, result.class_names)
    for name in whole:
        np.testing.assert_array_equal(blocks[name], whole[name])


def test_no_cells_are_an_empty_table_with_all_columns():
    table = measure_cells(GREY, Cells.from_masks(150, 200, []), ["cell"])
    assert {len(column) for column in table.values()} == {0}
    assert set(table) == set(ring_and_friends().measurements)
