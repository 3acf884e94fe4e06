import numpy as np
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.structures.detections import Detections


def detections(boxes, masks, height=60, width=90):
    number = len(boxes)
    return Detections(
        height,
        width,
        np.asarray(boxes, np.float32),
        np.arange(number),
        np.linspace(1, 0.5, number, dtype=np.float32),
        np.asarray(masks, np.float32),
    )


coordinate = st.floats(0, 1, width=32)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=6),
    st.integers(0, 2**31),
    st.integers(2, 28),
)
def test_masks_are_pasted_as_detectron2_pastes_them(corners, seed, size):
    rng = np.random.default_rng(seed)
    # Inside the outermost pixels: at the border of the image masks go on.
    corners = 1 + np.array(corners, np.float32).reshape(-1, 2, 2) * [88, 58]
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=9) > 1e-2]
    masks = rng.random((len(boxes), size, size), np.float32)
    cells = detections(boxes, masks).paste()
    expected = paste_masks_in_image(torch.from_numpy(masks), torch.from_numpy(boxes), (60, 90)).numpy()
    probabilities = paste_masks_in_image(
        torch.from_numpy(masks), torch.from_numpy(boxes), (60, 90), threshold=-1
    ).numpy()
    for index in range(len(boxes)):
        differs = cells.full_masks()[index] != expected[index]
        # Only where the probability is one half to rounding may they differ.
        assert np.isin(probabilities[index][differs], (126, 127, 128)).all()
        assert differs.sum() <= 2


def test_pasted_cells_keep_boxes_classes_and_scores():
    found = detections([[10, 5, 20, 25], [50, 30, 50.4, 30.4]], np.ones((2, 4, 4)))
    cells = found.paste()
    assert (cells.height, cells.width) == (60, 90)
    assert np.array_equal(cells.boxes, found.boxes)
    assert cells.classes.tolist() == [0, 1]
    assert cells.scores.tolist() == [1, 0.5]
    assert cells.windows[0].tolist() == [10, 5, 20, 25]
    # At the centre of a corner pixel the mask of ones has faded to 0.7 across and 0.6 down: 0.42. All others stay above
    # one half. No centre of a pixel lies in a box of 0.4 pixels: an empty mask, not an error.
    assert cells.areas.tolist() == [10 * 20 - 4, 0]


def test_a_mask_goes_on_to_the_border_that_cuts_its_cell():
    """A mask of 0.6, which falls below one half within a quarter of a sample at each side of its box but there."""
    boxes = [[0.3, 10, 20, 20], [70, 10, 89.7, 20], [30, 0.3, 40, 20], [30, 40, 40, 59.7], [1.2, 30, 20, 40]]
    cells = detections(boxes, np.full((5, 4, 4), 0.6)).paste()
    assert cells.windows[0, 0] == 0
    assert cells.windows[1, 2] == 90
    assert cells.windows[2, 1] == 0
    assert cells.windows[3, 3] == 60
    assert cells.windows[4, 0] > 1, "a box that ends before the border is like any other"
    # A sample is 5 pixels long there: 0.6 falls to one half 1.67 px before a side, so 20 - 1.67 is left.
    assert cells.windows[0].tolist()[2] == 18


def marked():
    """One cell with a box and a mask without symmetry."""
    mask = np.zeros((1, 4, 4))
    mask[0, 0, 1] = 1
    return detections([[10, 20, 30, 26]], mask, height=60, width=90)


def test_a_mirror_image():
    mirrored = marked().mirrored()
    assert mirrored.boxes.tolist() == [[60, 20, 80, 26]]
    assert np.argwhere(mirrored.masks[0]).tolist() == [[0, 2]]
    again = mirrored.mirrored()
    assert np.array_equal(again.boxes, marked().boxes)
    assert np.array_equal(again.masks, marked().masks)


def test_a_quarter_turn():
    turned = marked().turned()
    assert (turned.height, turned.width) == (90, 60)
    # x becomes the row counted from below: 90 - 30 = 60 to 90 - 10 = 80; y becomes the column.
    assert turned.boxes.tolist() == [[20, 60, 26, 80]]
    assert np.argwhere(turned.masks[0]).tolist() == [[2, 0]]
