"""Tables of cells as the prediction writes them and as spreadsheets save them."""

import math

import pytest

from bccd_d2.errors import InputError
from bccd_d2.io.cells_table import read_cells

HEADER = "image,class,x_px,equivalent_diameter_px,equivalent_diameter_um,touches_border,type"


@pytest.mark.parametrize(
    ("text", "cut"), [("True", True), ("TRUE", True), ("1", True), ("False", False), ("", False)]
)
def test_flags_numbers_and_texts(text, cut):
    (row,) = read_cells([HEADER, f"a.png, WBC ,12.5,40,,{text},monocyte"], "cells.csv", ["class", "type"])
    assert (row["image"], row["class"], row["type"]) == ("a.png", "WBC", "monocyte")
    assert (row["x_px"], row["equivalent_diameter_px"]) == (12.5, 40)
    assert math.isnan(row["equivalent_diameter_um"])
    assert row["touches_border"] is cut
    assert row["where"] == "cells.csv, line 2"


def test_a_short_row_has_empty_values():
    (row,) = read_cells([HEADER, "a.png,RBC"], "cells.csv")
    assert math.isnan(row["x_px"]) and row["touches_border"] is False and row["type"] == ""


@pytest.mark.parametrize(
    ("line", "columns", "message"),
    [
        (
            "a.png,WBC,12.5,40,,WAHR,",
            [],
            "cells.csv, line 2: expected True or False, found touches_border 'WAHR'",
        ),
        ("a.png,WBC,12.5 px,40,,True,", [], "cells.csv, line 2: expected a number, found x_px '12.5 px'"),
        ("", ["subtype"], "cells.csv: no column subtype; found image, class"),
        ("a" * 200_000, [], "cells.csv: expected a CSV table"),
    ],
)
def test_what_is_no_table_of_cells_is_refused(line, columns, message):
    with pytest.raises(InputError, match=message):
        read_cells([HEADER, line], "cells.csv", columns)
