"""Building blocks of pages."""

import base64
from xml.etree import ElementTree

import cv2
import numpy as np
from matplotlib.figure import Figure

from bccd_d2.drawing.pages import (
    Outline,
    circle_path,
    count,
    join,
    jpeg_uri,
    number,
    outline_path,
    svg_picture,
    svg_uri,
)

IMAGE = np.zeros((60, 80, 3), np.uint8)
IMAGE[:, 40:] = (200, 40, 40)


def decoded(uri, kind):
    assert uri.startswith(f"data:{kind};base64,")
    return base64.b64decode(uri.partition(",")[2])


def test_numbers_and_lists_in_words():
    assert (number(1234567), number(0.5, 2), number(None)) == ("1,234,567", "0.50", "\N{EN DASH}")
    assert (count(1, "cell", "cells"), count(4347, "cell", "cells")) == ("1 cell", "4,347 cells")
    assert [join(["a"]), join(["a", "b"]), join(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_a_picture_shows_its_part_of_the_image_below_its_outlines():
    mask = np.zeros((60, 80), bool)
    mask[10:20, 50:70] = True
    outlines = [
        Outline("a b", outline_path(mask[10:20], 0, 10), "<first>"),
        Outline("c", circle_path(60, 30, 5)),
    ]
    svg = ElementTree.fromstring(svg_picture(IMAGE, outlines, "smear & co", 20, (40, 0, 40, 60)))
    assert svg.get("viewBox") == "40 0 40 60"
    assert svg.get("aria-label") == "smear & co"
    image, first, second = svg
    shown = cv2.imdecode(np.frombuffer(decoded(image.get("href"), "image/jpeg"), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (20, 13, 3), "at most 20 pixels a side"
    assert np.abs(shown[..., ::-1].astype(int) - (200, 40, 40)).max() < 12
    assert (first.get("class"), first.find("title").text) == ("a b", "<first>")
    assert first.find("path").get("d") == "M50.5 10.5 50.5 19.5 69.5 19.5 69.5 10.5Z"
    assert second.find("title") is None
    assert second.find("path").get("d").startswith("M55.0 30.0a5.0 5.0")


def test_an_empty_mask_has_no_path_and_two_pieces_have_two():
    assert outline_path(np.zeros((5, 5), bool), 0, 0) == ""
    assert outline_path(np.eye(5, dtype=bool)[[0, 2, 4]] & [1, 0, 0, 0, 1], 0, 0).count("M") == 2


def test_small_images_are_not_enlarged_and_charts_are_the_same_bytes_twice():
    data = decoded(jpeg_uri(IMAGE, 1000), "image/jpeg")
    assert cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape == IMAGE.shape

    def chart():
        figure = Figure()
        figure.subplots().plot([1, 2])
        return svg_uri(figure)

    assert chart() == chart()
    assert b"<svg" in decoded(chart(), "image/svg+xml")
