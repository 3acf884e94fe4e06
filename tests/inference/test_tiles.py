import math
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.inference.tiles import plan_tiles


def test_an_image_of_no_more_pixels_than_a_tile_is_one_tile():
    (tile,) = plan_tiles(50, 200, 100, 20)
    assert (tile.x, tile.y, tile.width, tile.height) == (0, 0, 200, 50)
    assert tile.core == (-math.inf, -math.inf, math.inf, math.inf)


def test_two_tiles_share_the_plane_in_the_middle_of_their_overlap():
    left, right = plan_tiles(100, 180, 100, 20)
    assert [(t.x, t.y, t.width, t.height) for t in (left, right)] == [(0, 0, 100, 100), (80, 0, 100, 100)]
    assert left.core[2] == right.core[0] == 90
    assert (left.row, left.column, right.row, right.column) == (0, 0, 0, 1)


def test_tiles_lie_on_multiples_but_for_the_last_of_a_line():
    xs = sorted({tile.x for tile in plan_tiles(100, 1000, 300, 50, multiple=64)})
    # 300 - 50 = 250 holds 192 = 3 * 64; ceil(950 / 192) = 5 tiles, ceil(950 / 5 / 64) * 64 = 192 apart, of 192 + 50.
    assert xs == [0, 192, 384, 576, 1000 - 242]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(64, 150),
    st.data(),
    st.sampled_from([1, 7, 64, 128]),
)
def test_tiles_cover_the_image_and_overlap_enough(height, width, size, data, multiple):
    overlap = data.draw(st.integers(0, size // 2))
    tiles = plan_tiles(height, width, size, overlap, multiple)
    covered = np.zeros((height, width), int)
    owners = np.zeros((height, width), int)
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width)[None] + 0.5
    for tile in tiles:
        assert tile.x >= 0
        assert tile.y >= 0
        covered[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] += 1
        x0, y0, x1, y1 = tile.core
        owners += (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    assert covered.min() >= 1
    assert (owners == 1).all()
    assert len({(tile.width, tile.height) for tile in tiles}) == 1
    for a, b in pairwise(tiles):
        if a.row == b.row:
            assert a.x + a.width - b.x >= overlap


def test_tiles_are_no_larger_than_the_image_needs():
    # One pixel more than a tile: two tiles of half the image and the overlap, not two of nearly all of it.
    left, right = plan_tiles(100, 101, 100, 20)
    assert [(t.x, t.width) for t in (left, right)] == [(0, 61), (40, 61)]
    # ceil((20000 - 256) / (4096 - 256)) = 6 tiles of ceil(19744 / 6) + 256 = 3547.
    assert {t.width for t in plan_tiles(20_000, 20_000, 4096, 256)} == {3547}


def test_the_number_of_tiles_grows_with_the_area():
    few, many = (len(plan_tiles(side, side, 1664, 256, 128)) for side in (10_000, 20_000))
    # 1664 - 256 = 1408 = 11 * 128; ceil(9744 / 1408) = 7 and ceil(19744 / 1408) = 15 tiles.
    assert few == 7 * 7
    assert many == 15 * 15
