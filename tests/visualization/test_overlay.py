import numpy as np
import pytest

from bccd_d2.visualization.overlay import CLASS_COLORS, draw_cells

GREY = np.full((200, 300, 3), 200, np.uint8)


def box(x, y, size=40):
    mask = np.zeros((200, 300), bool)
    mask[y : y + size, x : x + size] = True
    return mask


def test_cells_are_outlined_and_tinted_in_their_classes_colour():
    drawn = draw_cells(GREY, [box(100, 100), box(200, 100)], [0, 1], ["RBC", "WBC"], fill=0.5)
    for x, color in ((100, CLASS_COLORS[0]), (200, CLASS_COLORS[1])):
        np.testing.assert_allclose(drawn[120, x], color, atol=20)  # the line is anti-aliased
        np.testing.assert_allclose(drawn[120, x + 20], (200 + np.array(color)) / 2, atol=1)
    assert (drawn[190, 20] == 200).all()
    assert (GREY == 200).all()


def test_the_legend_grows_with_the_classes():
    white = [
        (draw_cells(GREY, [], [], names) == 255).all(axis=2).sum()
        for names in (["cell"], ["RBC", "WBC", "PLT"])
    ]
    assert 0 < white[0] < white[1]


@pytest.mark.parametrize("mask", [np.zeros((200, 300), bool), np.ones((200, 300), bool)])
def test_empty_and_full_masks(mask):
    assert draw_cells(GREY, [mask], [0], ["cell"]).shape == GREY.shape
