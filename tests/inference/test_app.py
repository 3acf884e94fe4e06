import cv2
import numpy as np
import pytest

from bccd_d2.errors import InputError
from bccd_d2.inference.app import (
    CELL_HEADERS,
    UploadLimits,
    cell_table,
    chosen,
    count_table,
    find_cells,
    format_color,
    parse_color,
    picture,
)
from bccd_d2.inference.finder import PredictionOptions
from bccd_d2.inference.writers import write_formats
from bccd_d2.reporting.overlay import CLASS_COLORS
from tests.inference.drawn_cells import DarkThings

LIMITS = UploadLimits(megabytes=0.1, megapixels=0.02)


@pytest.fixture
def result(tmp_path):
    """Two dark squares of 10x10 and 20x20 on a pale image, as cells."""
    image = np.full((100, 150, 3), 220, np.uint8)
    image[10:20, 30:40] = image[50:70, 100:120] = 40
    cv2.imwrite(str(tmp_path / "squares.png"), image)
    return find_cells(tmp_path / "squares.png", DarkThings(options=PredictionOptions(0.05)), LIMITS)


def test_the_cells_of_an_upload(result):
    assert result.name == "squares"
    rows = {row[list(CELL_HEADERS).index("area_px")]: row for row in cell_table(result)}
    assert set(rows) == {100, 400}
    x, y = (list(CELL_HEADERS).index(name) for name in ("x_px", "y_px"))
    assert (rows[100][x], rows[100][y]) == (35, 15)
    name, number, share, framed = count_table(result)[-1]
    assert (name, number, share, framed) == ("all", 2, 100.0, 2)


def test_threshold_and_colours_decide_about_pictures_and_files(result, tmp_path):
    assert len(chosen(result, 0.0, ["#000000"]).cells) == 2
    assert len(chosen(result, 1.1, ["#000000"]).cells) == 0
    seen, blue = (chosen(result, 0.0, [color] * len(result.class_names)) for color in ("#ff0000", "#0000ff"))
    write_formats(seen, tmp_path, ["overlay"])
    written = cv2.imread(str(tmp_path / "overlays" / "squares.png"))
    for drawn in (picture(seen), written[..., ::-1]):
        red = drawn[..., 0].astype(int) - drawn[..., 1] > 60
        assert red[48:72, 98:122].sum() > 40
    shown = picture(blue)[48:72, 98:122].astype(int)
    assert (shown[..., 0] <= shown[..., 2] + 20).all()


@pytest.mark.parametrize(
    ("text", "color"),
    [("#0a80ff", (255, 128, 10)), ("rgba(10, 128.4, 254.6, 1)", (255, 128, 10)), ("rgb(1,2,3)", (3, 2, 1))],
)
def test_colours_as_browsers_say_them(text, color):
    assert parse_color(text) == color


def test_colours_go_there_and_back():
    assert [parse_color(format_color(color)) for color in CLASS_COLORS] == list(CLASS_COLORS)
    for text in ("red", "#12345", "rgba(1, 2)", ""):
        with pytest.raises(InputError, match="expected #rrggbb"):
            parse_color(text)


def test_limits_and_files_that_are_no_images(tmp_path):
    predictor = DarkThings(options=PredictionOptions(0.05))
    (tmp_path / "heavy.png").write_bytes(b"\0" * 150_000)
    with pytest.raises(InputError, match=r"^heavy.png: 0.1 MB, this page accepts 0.1 MB"):
        find_cells(tmp_path / "heavy.png", predictor, LIMITS)
    for suffix in (".png", ".tif"):
        path = tmp_path / f"wide{suffix}"
        cv2.imwrite(str(path), np.full((150, 200, 3), 220, np.uint8))
        with pytest.raises(InputError, match=rf"^wide{suffix}: 200x150 pixels"):
            find_cells(path, predictor, LIMITS)
    (tmp_path / "notes.png").write_bytes(b"notes")
    with pytest.raises(InputError, match=r"^notes.png") as error:
        find_cells(tmp_path / "notes.png", predictor, LIMITS)
    assert str(tmp_path) not in str(error.value)
    with pytest.raises(InputError, match="expected numbers above 0"):
        UploadLimits(megapixels=0)
