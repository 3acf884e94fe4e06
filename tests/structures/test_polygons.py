"""Polygons rasterise back to the mask they were made of."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bccd_d2.structures.polygons import mask_to_polygons, mask_to_rings
from bccd_d2.structures.rle import decode_segmentation


def test_a_ring_keeps_its_hole() -> None:
    mask = np.ones((7, 8), np.uint8)
    mask[2:5, 3:6] = 0
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 1
    assert np.array_equal(decode_segmentation(polygons, 7, 8), mask)


@settings(max_examples=300, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 1)).filter(
        np.any
    )
)
def test_any_mask_comes_back_pixel_for_pixel(mask: np.ndarray) -> None:
    assert np.array_equal(decode_segmentation(mask_to_polygons(mask), *mask.shape), mask)


def test_a_hole_that_meets_the_outline_in_a_corner_is_a_ring_of_its_own() -> None:
    mask = np.ones((4, 4), np.uint8)
    mask[1, 1] = mask[0, 0] = 0
    (part,) = mask_to_rings(mask, x=5)
    assert [sorted(ring) for ring in part] == [
        [(5, 1), (5, 4), (6, 0), (6, 1), (9, 0), (9, 4)],
        [(6, 1), (6, 2), (7, 1), (7, 2)],
    ]
