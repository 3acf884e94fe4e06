"""Kinds of cells by the names that data sets give their classes."""

import logging

import pytest

from bccd_d2.structures.cell_kinds import _red_cell_classes, kind_of, red_cell_classes


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("red", ["RBC", "rbcs", "Red Blood Cell", "red_blood_cells", "red cell", "Erythrocytes", " RBC "]),
        ("red", ["infected RBC", "trophozoite", "teardrop", "Target-Cells"]),
        ("white", ["WBC", "WBCs", "leukocytes", "Leucocyte", "white cell", "white-blood-cells"]),
        ("white", ["Neutrophils", "lymphocyte", "neutrophil_band", "immature granulocyte"]),
        ("platelet", ["Platelets", "platelet", "PLT", "thrombocytes"]),
        ("other", ["difficult", "artefact", "Artifacts", "nucleated red blood cell", "erythroblast"]),
        (None, ["cell", "cells", "class 0", "bacteria", "", "s"]),
    ],
)
def test_a_kind_is_known_by_many_names(kind, names):
    assert {name: kind_of(name) for name in names} == dict.fromkeys(names, kind)


@pytest.mark.parametrize(
    ("names", "red", "said"),
    [
        (["WBC", "RBC", "Platelets"], [1], ""),
        (["RBC", "infected RBC", "leukocyte"], [0, 1], ""),
        (["RBC", "WBCs", "difficult"], [0], ""),
        (
            ["RBC", "bacteria"],
            [0],
            "bacteria not known as a kind of cell; sizes of red cells are taken from RBC",
        ),
        (["cell"], [0], ""),  # models of one class, whatever its name
        (["WBC"], [0], ""),
        (["white cell", "cell", "bacteria"], [1, 2], "sizes of red cells are taken from cell, bacteria"),
        (["neutrophil", "lymphocyte"], [0, 1], "none is of red cells"),
        ([], [], ""),
    ],
)
def test_red_cells_are_those_of_a_known_name_or_else_of_none(names, red, said, caplog):
    _red_cell_classes.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert red_cell_classes(names) == red == red_cell_classes(names)
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == bool(said)  # once
    assert said in "".join(warned)
