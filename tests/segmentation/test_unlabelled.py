"""Cells without a mask are found as regions, at the border too; haze and platelets are not."""

import cv2
import numpy as np
import pytest

from bccd_d2.segmentation import unlabelled
from bccd_d2.segmentation.instances import label_instances
from bccd_d2.segmentation.unlabelled import find_unlabelled
from tests.audit.scene import RADIUS, cells, disc, paint

LABELLED = [(60, 60), (150, 50), (240, 70), (70, 170), (170, 150)]
UNLABELLED = [(0, 250), (300, 160)]


def smear(*, shaded: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """RGB smear of seven cells with pale middles, and the mask of five of them."""
    image = np.full((300, 340, 3), (238, 240, 235), np.uint8)
    mask = np.zeros((300, 340), np.uint8)
    for x, y in LABELLED + UNLABELLED:
        cv2.circle(image, (x, y), 28, (120, 70, 150), -1, cv2.LINE_AA)
        cv2.circle(image, (x, y), 8, (215, 205, 220), -1, cv2.LINE_AA)
    for x, y in LABELLED:
        cv2.circle(mask, (x, y), 27, 1, -1)
    cv2.circle(image, (120, 250), 4, (90, 30, 90), -1)  # debris far smaller than a cell
    noise = np.random.default_rng(1).normal(0, 4, image.shape)
    light = np.linspace(0.6, 1.0, 340)[None, :, None] if shaded else 1.0
    return np.clip(image * light + noise, 0, 255).astype(np.uint8), mask


@pytest.mark.parametrize("shaded", [False, True])
def test_the_two_unlabelled_cells_are_found(shaded: bool) -> None:
    image, mask = smear(shaded=shaded)
    labels = label_instances(mask).labels
    regions = find_unlabelled(image, labels)
    assert regions.dtype == np.int32
    assert regions.max() == 2
    assert not regions[labels > 0].any()
    for x, y in UNLABELLED:
        cell = cv2.circle(np.zeros(mask.shape, np.uint8), (x, y), 28, 1, -1) > 0
        (region,) = set(np.unique(regions[cell])) - {0}
        found = regions == region
        assert np.count_nonzero(found & cell) > 0.9 * np.count_nonzero(cell)
        assert np.count_nonzero(found & ~cell) < 0.35 * np.count_nonzero(cell)


LEFT_OUT = (165, 140)


def labelled(mask):
    return np.ascontiguousarray(label_instances(mask).labels)


def test_haze_is_not_a_cell_but_is_found_when_edges_do_not_count(monkeypatch):
    mask = cells()
    image = paint(mask).astype(np.float64)
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    distance = np.hypot(columns - LEFT_OUT[0], rows - LEFT_OUT[1])
    haze = np.exp(-((distance / 45) ** 2))[..., None] * (mask == 0)[..., None]
    image = (image * (1 - 0.75 * haze) + np.array([110, 60, 150]) * 0.75 * haze).astype(np.uint8)
    assert not find_unlabelled(image, labelled(mask)).any()
    monkeypatch.setattr(unlabelled, "STEP", 0.0)
    assert find_unlabelled(image, labelled(mask)).max() == 1


def test_a_platelet_is_too_small():
    mask = cells()
    image = paint(disc(mask.copy(), *LEFT_OUT, radius=RADIUS // 3))
    assert not find_unlabelled(image, labelled(mask)).any()
