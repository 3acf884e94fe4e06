import cv2
import numpy as np

from bccd_d2.drawing.overlay import CLASS_COLORS, draw_cells
from bccd_d2.structures.cells import Cells

GREY = np.full((200, 300, 3), 200, np.uint8)


def box(x, y, size=40):
    mask = np.zeros((200, 300), bool)
    mask[y : y + size, x : x + size] = True
    return mask


def drawn(masks, classes, names, **options):
    return draw_cells(GREY, Cells.from_masks(200, 300, masks, classes=classes), names, **options)


def test_cells_are_outlined_and_tinted_in_their_classes_colour():
    picture = drawn([box(100, 100), box(200, 100)], [0, 1], ["RBC", "WBC"], fill=0.5)
    for x, color in ((100, CLASS_COLORS[0]), (200, CLASS_COLORS[1])):
        np.testing.assert_allclose(picture[120, x], color, atol=20)  # the line is anti-aliased
        np.testing.assert_allclose(picture[120, x + 20], (200 + np.array(color)) / 2, atol=1)
    assert (picture[190, 20] == 200).all()
    assert (GREY == 200).all()


def test_a_hole_is_outlined_and_not_tinted():
    mask = box(100, 60, 80) & ~box(120, 80)
    picture = drawn([mask], [0], ["RBC"], fill=0.5)
    assert (picture[100, 140] == 200).all()
    np.testing.assert_allclose(picture[100, 119], CLASS_COLORS[0], atol=20)


def test_a_shrunken_image_shows_its_cells_in_place_and_the_colours_can_be_chosen():
    cells = Cells.from_masks(200, 300, [box(100, 100), box(200, 20)], classes=[0, 1])
    small = np.full((100, 150, 3), 200, np.uint8)
    picture = draw_cells(small, cells, ["a", "b"], colors=[(0, 0, 255), (255, 0, 0)], fill=1.0)
    np.testing.assert_array_equal(picture[60, 60], (0, 0, 255))
    np.testing.assert_array_equal(picture[20, 110], (255, 0, 0))
    assert (picture[75, 60] == 200).all()


def test_the_legend_goes_where_no_cells_are():
    corners = [box(0, 0, 60), box(240, 0, 60), box(0, 140, 60)]
    picture = drawn(corners, [0, 0, 0], ["cell"])
    assert (picture[198, 298] == 255).all()
    assert not (picture[198, 2] == 255).all()


def test_the_scale_bar_is_as_long_as_it_says():
    # Of 300 pixels of 0.2 microns 15 % are 9 microns; 10 are the nearest round length: 50 pixels.
    picture = drawn([], [], ["cell"], microns_per_pixel=0.2)
    dark = (picture[150:, 60:240] < 60).all(axis=2)
    assert dark.sum(axis=1).max() == 50
    assert (drawn([], [], ["cell"])[150:, 60:240] == 200).all()


def test_images_smaller_than_the_legend():
    tiny = np.zeros((8, 8, 3), np.uint8)
    picture = draw_cells(tiny, Cells.from_masks(8, 8, []), ["erythrocyte"], microns_per_pixel=0.1)
    assert picture.shape == (8, 8, 3)
    assert cv2.imencode(".png", picture)[0]
