"""Masks guessed from boxes: drawn cells whose outline is known."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bccd_d2.conversion.importers.boxes import read_voc
from bccd_d2.io.images import read_image
from bccd_d2.segmentation.weak_masks import guess_masks

HEIGHT, WIDTH = 160, 240
BACKGROUND, RED, VIOLET = (225, 228, 222), (200, 140, 150), (110, 70, 170)


def smear(*discs: tuple, noise: float = 2.0) -> NDArray[np.uint8]:
    """RGB background with discs ``(x, y, radius, colour)`` drawn in order, and noise."""
    image = np.full((HEIGHT, WIDTH, 3), BACKGROUND, np.uint8)
    for x, y, radius, colour in discs:
        cv2.circle(image, (x, y), radius, colour, -1, cv2.LINE_AA)
    noisy = image + np.random.default_rng(0).normal(0, noise, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def disc(x: int, y: int, radius: int) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(mask, (x, y), radius, 1, -1)
    return mask > 0


def around(*discs: tuple, margin: int = 4) -> NDArray[np.int64]:
    boxes = [
        (x - r - margin, y - r - margin, x + r + margin + 1, y + r + margin + 1) for x, y, r, *_ in discs
    ]
    return np.clip(np.array(boxes, np.int64).reshape(-1, 4), 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


CELLS = ((50, 50, 24, RED), (150, 60, 34, VIOLET), (60, 120, 20, RED))


def test_cells_on_background_are_found():
    guessed = guess_masks(smear(*CELLS), around(*CELLS))
    assert guessed.failed == []
    for number, cell in enumerate(CELLS, start=1):
        assert iou(guessed.labels == number, disc(*cell[:3])) > 0.9


def test_a_pale_centre_belongs_to_the_cell():
    ring = (*CELLS, (50, 50, 11, BACKGROUND))
    guessed = guess_masks(smear(*ring), around(*CELLS))
    assert iou(guessed.labels == 1, disc(50, 50, 24)) > 0.9


def test_cells_that_touch_are_parted_where_the_colour_changes():
    cells = ((90, 80, 30, VIOLET), (142, 80, 22, RED))
    guessed = guess_masks(smear(*cells), around(*cells))
    assert iou(guessed.labels == 1, disc(90, 80, 30)) > 0.9
    assert iou(guessed.labels == 2, disc(142, 80, 22)) > 0.9


def test_a_neighbour_without_box_is_left_out():
    cells = ((70, 80, 26, RED), (112, 80, 16, VIOLET))
    guessed = guess_masks(smear(*cells), around(cells[0], margin=6))
    neighbour = disc(112, 80, 16)
    assert (guessed.labels[neighbour] > 0).mean() < 0.12
    assert iou(guessed.labels == 1, disc(70, 80, 26) & ~neighbour) > 0.88


def test_a_pale_cell_is_found_at_a_lower_threshold(monkeypatch: pytest.MonkeyPatch):
    cells = (*CELLS, (190, 120, 24, (211, 204, 207)))
    guessed = guess_masks(smear(*cells, noise=0.5), around(*cells))
    assert guessed.failed == []
    assert iou(guessed.labels == 4, disc(190, 120, 24)) > 0.8
    monkeypatch.setattr("bccd_d2.segmentation.weak_masks.LEVELS", (0.8,))
    assert guess_masks(smear(*cells, noise=0.5), around(*cells)).failed == [3]


def test_a_box_on_bare_background_fails():
    boxes = np.vstack([around(*CELLS), [[190, 100, 230, 140]]])
    guessed = guess_masks(smear(*CELLS), boxes)
    assert guessed.failed == [3]
    assert guessed.labels.max() == 3


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, WIDTH - 3), st.integers(0, HEIGHT - 3), st.integers(3, 90), st.integers(3, 90)
        ),
        max_size=6,
    )
)
def test_every_box_has_a_connected_mask_inside_or_failed(boxes):
    corners = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], np.int64).reshape(-1, 4)
    corners = np.clip(corners, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    labels, failed = guess_masks(smear(*CELLS), corners)
    for box, (x0, y0, x1, y1) in enumerate(corners.tolist()):
        rows, columns = np.nonzero(labels == box + 1)
        assert (rows.size == 0) == (box in failed)
        if rows.size:
            slack_x, slack_y = 0.05 * (x1 - x0) / 2 + 1, 0.05 * (y1 - y0) / 2 + 1
            assert columns.min() >= x0 - slack_x and columns.max() < x1 + slack_x
            assert rows.min() >= y0 - slack_y and rows.max() < y1 + slack_y
            assert cv2.connectedComponents((labels == box + 1).astype(np.uint8), connectivity=4)[0] == 2


@pytest.mark.real_data
def test_real_white_cells_are_near_their_drawn_masks(real_voc_root: Path):
    overlaps = []
    for path in sorted((real_voc_root / "wbc_masks").glob("*.png"))[1:60:6]:
        boxes = read_voc(real_voc_root / "Annotations" / f"{path.stem}.xml").cells
        drawn = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127
        corners = np.clip([cell.box for cell in boxes], 0, [drawn.shape[1], drawn.shape[0]] * 2)
        guessed = guess_masks(read_image(real_voc_root / "JPEGImages" / f"{path.stem}.jpg", "RGB"), corners)
        white = [number for number, cell in enumerate(boxes, start=1) if cell.class_name == "WBC"]
        if len(white) == 1 and cv2.connectedComponents(drawn.astype(np.uint8))[0] == 2:
            overlaps.append(iou(guessed.labels == white[0], drawn))
    assert len(overlaps) >= 5
    assert np.mean(overlaps) > 0.8
