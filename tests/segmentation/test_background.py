"""Surfaces of uneven light."""

import numpy as np
import pytest

from bccd_d2.segmentation.background import background_surface


def bowl(height=40, width=60):
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.stack([90 - 8 * rows**2, 3 + 2 * columns * rows, 1 + rows - columns], axis=-1).astype(
        np.float32
    )


def test_a_quadratic_surface_is_found_below_the_cells():
    background = np.ones((40, 60), bool)
    background[10:25, 15:50] = False
    colours = bowl()
    colours[~background] = 20
    assert np.allclose(background_surface(colours, background), bowl(), atol=1e-3)


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_pixels_than_terms_are_still_met(count):
    background = np.zeros((40, 60), bool)
    background[5, 7 : 7 + count] = True
    surface = background_surface(bowl(), background)
    assert np.isfinite(surface).all()
    assert np.allclose(surface[background], bowl()[background], atol=0.05)
