"""Types of the cells of an image, and what they come to."""

import math

import numpy as np
import pytest

from bccd_d2.cell_types.classifier import OTHER, TypeCard, TypeClassifier
from bccd_d2.cell_types.differential import COLUMNS, Tally, as_text, differential, grade, poisson_interval
from bccd_d2.cell_types.typer import CellTyper, find_classifiers, red_cell_diameter
from bccd_d2.errors import InputError
from bccd_d2.evaluation.bootstrap import binomial_interval
from bccd_d2.io.sources import ArraySource
from bccd_d2.structures.cells import Cells

NAMES = ["WBC", "RBC", "Platelets"]


class ByBrightness(TypeClassifier):
    """Says the first type of dark middles, the second of bright ones, and is not sure of grey."""

    def logits(self, crops, batch_size=64):
        middle = crops[:, crops.shape[1] // 2, crops.shape[2] // 2, 0].astype(float)
        score = (middle - 127.5) / 25
        return np.stack([-score, score], axis=1)


@pytest.fixture(scope="module")
def typer():
    white = TypeCard(
        "white", ("myelocyte", "lymphocyte"), 2.0, 32, threshold=0.9, groups={"myelocyte": "immature"}
    )
    red = TypeCard("red", ("teardrop", "normal"), 2.0, 32)
    return CellTyper([ByBrightness(white), ByBrightness(red)])


def smear():
    """An image of discs and its cells: three white ones (dark, bright, grey), two red ones, one platelet."""
    image = np.full((100, 300, 3), 90, np.uint8)
    masks, rows, columns = [], *np.ogrid[:100, :300]
    for index, level in enumerate((10, 250, 128, 10, 250, 10)):
        mask = (rows - 50) ** 2 + (columns - 30 - 48 * index) ** 2 <= 20**2
        image[mask] = level
        masks.append(mask)
    return ArraySource(image), Cells.from_masks(100, 300, masks, classes=[0, 0, 0, 1, 1, 2])


def test_each_cell_gets_its_type_from_the_classifier_of_its_class(typer):
    source, cells = smear()
    found = typer(source, cells, NAMES, diameter_px=40)
    assert list(found.names) == ["immature", "lymphocyte", OTHER, "teardrop", "normal", ""]
    assert list(found.subtypes) == ["myelocyte", "", "", "", "", ""]
    assert np.isnan(found.probabilities[5])
    assert (found.probabilities[[0, 1, 3, 4]] > 0.99).all()
    assert 0.5 <= found.probabilities[2] < 0.9


def test_no_cells_have_no_types(typer):
    source, cells = smear()
    assert list(typer(source, cells[:0], NAMES).names) == []


def test_the_diameter_is_that_of_the_best_source():
    _, cells = smear()
    # Microns first, then what is given; two red cells are too few, so white cells of 40 px say 40 / 1.6.
    assert red_cell_diameter(cells, NAMES, 0.075, 33) == pytest.approx(100)
    assert red_cell_diameter(cells, NAMES, None, 33) == 33
    assert red_cell_diameter(cells, NAMES) == pytest.approx(40 / 1.6, rel=0.01)
    assert red_cell_diameter(cells, ["RBC", "RBC", "RBC"]) == pytest.approx(40, rel=0.01)
    assert red_cell_diameter(cells[[5]], NAMES) is None


def test_a_model_without_cell_classes_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="the model finds cell; expected one with a class of white cells"):
        find_classifiers(tmp_path, ["cell"])
    with pytest.raises(InputError, match=r"types_white\.safetensors or types_red\.safetensors"):
        find_classifiers(tmp_path, NAMES)


def test_intervals_by_hand():
    # Clopper-Pearson: 0 of 100 has the upper limit 1 - 0.025^(1/100); 5 of 10 is symmetric.
    # Rümke gives 4.9 to 17.6 for 10 of 100.
    assert binomial_interval(0, 100) == pytest.approx((0, 1 - 0.025**0.01))
    low, high = binomial_interval(5, 10)
    assert low == pytest.approx(1 - high)
    assert binomial_interval(10, 100) == pytest.approx((0.0490, 0.1762), abs=5e-5)
    assert binomial_interval(0, 0) == (0, 1)
    # Garwood: no event has the upper limit -ln 0.025.
    assert poisson_interval(0) == pytest.approx((0, -np.log(0.025)))


@pytest.mark.parametrize(
    ("item", "percent", "expected"),
    [
        ("schistocyte", 0, ""),
        ("schistocyte", 0.5, "few"),
        ("schistocyte", 2.1, "many"),
        ("target cell", 4.9, ""),
        ("target cell", 5, "moderate"),
        ("macrocyte", 11, "moderate"),
        ("normal", 90, ""),
    ],
)
def test_grades_of_icsh(item, percent, expected):
    assert grade(item, percent) == expected


def row(name, kind, diameter=40.0, border=False, subtype="", microns=math.nan):
    return {
        "class": name,
        "type": kind,
        "subtype": subtype,
        "equivalent_diameter_px": diameter,
        "equivalent_diameter_um": microns,
        "touches_border": border,
    }


def test_the_differential_of_ten_white_and_four_red_cells():
    tally = Tally()
    tally.add(
        [
            *[row("WBC", "lymphocyte")] * 6,
            *[row("WBC", "immature granulocyte", subtype="myelocyte")] * 2,
            row("WBC", "erythroblast"),
            row("WBC", OTHER),
            row("WBC", "monocyte", border=True),
            row("Platelets", ""),
            *[row("RBC", "normal", d) for d in (38.0, 40.0, 42.0)],
            row("RBC", "schistocyte", 40.0),
        ]
    )
    rows = {(found["cells_of"], found["item"]): found for found in differential(tally)}
    assert set(next(iter(rows.values()))) == set(COLUMNS)
    lymphocytes = rows["white", "lymphocyte"]
    assert (lymphocytes["cells"], lymphocytes["of"], lymphocytes["value"]) == (6, 8, 75)
    assert (lymphocytes["reference_low"], lymphocytes["reference_high"]) == (20, 45)
    assert rows["white", "immature granulocyte: myelocyte"]["value"] == 25
    assert (rows["white", "erythroblast"]["value"], rows["white", "erythroblast"]["unit"]) == (
        12.5,
        "per 100 white cells",
    )
    assert (rows["white", OTHER]["cells"], rows["white", OTHER]["of"]) == (1, 10)
    assert ("white", "monocyte") not in rows  # cut by the border
    assert (rows["red", "schistocyte"]["value"], rows["red", "schistocyte"]["grade"]) == (25, "many")
    assert rows["red", "mean diameter"]["value"] == 40
    assert rows["red", "mean diameter"]["unit"] == "px"
    deviation = np.std([38, 40, 42, 40], ddof=1)
    assert rows["red", "coefficient of variation of the diameter"]["value"] == pytest.approx(
        100 * deviation / 40
    )
    assert all("no diagnosis" in found["note"] for found in rows.values())
    text = as_text(rows.values())
    assert "no diagnosis" in text
    assert "75.0 % (34.9 to 96.8), adults 20 to 45" in text


def test_diameters_are_in_microns_where_each_image_has_them():
    tally = Tally()
    tally.add([row("RBC", "", 40.0, microns=7.0), row("RBC", "", 42.0, microns=8.0)])
    (mean, _) = differential(tally)
    assert (mean["value"], mean["unit"]) == (7.5, "um")
