"""Charts are sound SVG whose shapes stand for the numbers."""

from xml.etree import ElementTree

import pytest

from bccd_d2.audit.charts import Dot, Mark, histogram, lab_to_hex, scatter


def parts(svg, kind, name):
    return [element for element in ElementTree.fromstring(svg).iter(kind) if element.get("class") == name]


def test_bars_are_as_high_as_their_counts():
    svg = histogram(
        [0, 10, 20, 30], [4, 0, 8], x_label="area", what="cells", marks=[Mark(15, "here")], beyond=3
    )
    low, high = parts(svg, "rect", "bar")
    assert float(high.get("height")) == pytest.approx(2 * float(low.get("height")), abs=0.05)
    assert [bar.find("title").text for bar in (low, high)] == ["0 to 10: 4 cells", "20 to 30: 8 cells"]
    (line,) = parts(svg, "line", "mark")
    middle = (float(low.get("x")) + float(high.get("x")) + float(high.get("width"))) / 2
    assert float(line.get("x1")) == pytest.approx(middle, abs=0.1)
    assert "3 beyond" in svg


def test_a_mark_outside_is_left_out():
    svg = histogram([0, 10], [4], x_label="area", what="cells", marks=[Mark(15, "here")])
    assert parts(svg, "line", "mark") == []


def test_nothing_to_count():
    assert "nothing to count" in histogram([], [], x_label="area", what="cells")
    assert "no image" in scatter([], x_label="x", y_label="y")


def test_scatter_puts_images_where_their_values_are():
    dots = [
        Dot(0, 0, "#112233", "#ffffff", "1", "first <&>"),
        Dot(2, 0, "#112233", "#ffffff", "1", "second"),
        Dot(0, 5, "#112233", "#ffffff", "2", "third"),
    ]
    svg = scatter(dots, x_label="x", y_label="y")
    first, second, third = (
        (float(disc.get("cx")), float(disc.get("cy"))) for disc in parts(svg, "circle", "disc")
    )
    assert first[1] == second[1]
    assert first[0] == third[0]
    assert second[0] > first[0]
    assert third[1] < first[1]  # up
    assert "first &lt;&amp;&gt;" in svg


def test_one_image_is_a_scatter_too():
    svg = scatter([Dot(1, 1, "#000000", "#ffffff", "1", "only")], x_label="x", y_label="y")
    assert len(parts(svg, "circle", "disc")) == 1


@pytest.mark.parametrize(
    "lab, colour", [((0, 0, 0), "#000000"), ((100, 0, 0), "#ffffff"), ((53.24, 80.09, 67.2), "#ff0000")]
)
def test_lab_to_hex(lab, colour):
    assert lab_to_hex(lab) == colour
