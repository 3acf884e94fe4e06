"""What is a cell without a mask, and what is not."""

import numpy as np
import pytest

from bccd_d2.conversion import unlabelled
from bccd_d2.conversion.instances import label_instances
from bccd_d2.conversion.unlabelled import find_unlabelled
from tests.audit.scene import RADIUS, cells, disc, paint

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


@pytest.mark.parametrize("place", [(0, 80), (319, 80), (165, 0), (165, 239)])
def test_half_a_cell_at_the_border_is_found(place):
    mask = cells()
    regions = find_unlabelled(paint(disc(mask.copy(), *place)), labelled(mask))
    assert regions.max() == 1
    assert regions[place[1], place[0]] == 1
