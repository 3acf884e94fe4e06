"""Charts of the audit's page."""

from bccd_d2.audit.page import histogram, lab_to_hex, stain_scatter


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_bars_are_as_high_as_their_counts_and_marks_lie_at_their_value():
    found = {"edges": [0, 10, 20, 30], "counts": [4, 0, 8], "beyond": 3}
    figure = histogram(found, "area, pixels", "cells", {"median": 15, "outside": 50})
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [4, 0, 8]
    assert [bar.get_x() for bar in axes.patches] == [0, 10, 20]
    assert [list(line.get_xdata()) for line in axes.lines] == [[15, 15]]
    assert "median: 15" in texts(figure)
    assert any(text.startswith("3 beyond") for text in texts(figure))


def image(cell, background, stain):
    return {"lab": {"cell_mean": cell, "background_mean": background}, "stain": stain}


def test_images_lie_at_the_b_of_their_background_and_cells_in_their_colours():
    shown = [image([50, 0, -20], [90, 0, 3], "stain 2"), image([50, 10, 5], [90, 0, None], None)]
    figure = stain_scatter(shown)
    tile, disc = figure.axes[0].lines
    assert tile.get_xydata().tolist() == disc.get_xydata().tolist() == [[3, -20]]
    assert (tile.get_color(), disc.get_color()) == (lab_to_hex([90, 0, 3]), lab_to_hex([50, 0, -20]))
    assert "2" in texts(figure)


def test_nothing_to_show_is_said():
    assert "nothing to count" in texts(
        histogram({"edges": [], "counts": [], "beyond": 0}, "area", "cells", {})
    )
    assert "no image with cells and background" in texts(stain_scatter([]))
