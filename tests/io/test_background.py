"""Surfaces of uneven light."""

import numpy as np
import pytest

from bccd_d2.io.background import background_surface


def bowl(height=40, width=60):
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.stack([90 - 8 * rows**2, 3 + 2 * columns * rows, 1 + rows - columns], axis=-1).astype(
        np.float32
    )


def test_a_quadratic_surface_is_found_below_the_cells():
    glass = np.ones((40, 60), bool)
    glass[10:25, 15:50] = False
    colours = bowl()
    colours[~glass] = 20
    assert np.allclose(background_surface(colours, glass), bowl(), atol=1e-3)


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_pixels_than_terms_are_still_met(count):
    glass = np.zeros((40, 60), bool)
    glass[5, 7 : 7 + count] = True
    surface = background_surface(bowl(), glass)
    assert np.isfinite(surface).all()
    assert np.allclose(surface[glass], bowl()[glass], atol=0.05)
