import logging
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.inference.tiling import candidates, is_empty, merge_tiles, plan_tiles
from bccd_d2.structures.cells import Cells

HEIGHT, WIDTH = 170, 250
SIZE, OVERLAP = 100, 40


def disc(cx, cy, radius, height=HEIGHT, width=WIDTH):
    y, x = np.ogrid[0:height, 0:width]
    return (x - cx) ** 2 + (y - cy) ** 2 <= radius**2


def seen_in(tile, masks, classes, scores):
    """What a perfect detector finds in a tile: the part of each mask that lies in it."""
    parts = [mask[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] for mask in masks]
    chosen = [index for index, part in enumerate(parts) if part.any()]
    return Cells.from_masks(
        tile.height,
        tile.width,
        [parts[i] for i in chosen],
        classes=[classes[i] for i in chosen],
        scores=[scores[i] for i in chosen],
    )


def merge(tiles, found):
    return merge_tiles(tiles, [candidates(c, t, HEIGHT, WIDTH, OVERLAP) for t, c in zip(tiles, found)])


def tiles_of(multiple=1):
    return plan_tiles(HEIGHT, WIDTH, SIZE, OVERLAP, multiple)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, WIDTH), st.integers(0, HEIGHT), st.integers(6, 18)), max_size=12),
    st.integers(0, 2**31),
)
def test_every_cell_is_there_once_and_whole_although_tiles_disagree_by_pixels(discs, seed):
    rng = np.random.default_rng(seed)
    apart = []
    for cx, cy, radius in discs:
        if all((cx - x) ** 2 + (cy - y) ** 2 > (radius + r + 3) ** 2 for x, y, r in apart):
            apart.append((cx, cy, radius))
    truth = [disc(*one) for one in apart]
    classes, scores = rng.integers(0, 2, len(apart)), rng.uniform(0.3, 1, len(apart))
    found = []
    for tile in tiles_of():
        moved = [disc(cx + rng.integers(-1, 2), cy + rng.integers(-1, 2), r) for cx, cy, r in apart]
        found.append(
            seen_in(tile, moved, classes, np.clip(scores + rng.uniform(-0.1, 0.1, len(apart)), 0, 1))
        )
    merged = merge(tiles_of(), found)
    visible = [index for index, mask in enumerate(truth) if mask.sum() > 30]
    ious = Cells.from_masks(HEIGHT, WIDTH, truth).ious(merged)
    assert ((ious > 0.3).sum(axis=1)[visible] == 1).all()
    assert len(merged) <= len(truth)
    for index in visible:
        assert ious[index].max() > 0.4
        assert merged.classes[ious[index].argmax()] == classes[index]
    assert (np.diff(merged.scores) <= 0).all()


def test_a_perfect_detector_gives_exactly_what_it_gives_untiled():
    rng = np.random.default_rng(3)
    centres = [
        (x + rng.integers(-6, 7), y + rng.integers(-6, 7))
        for x in range(20, WIDTH, 42)
        for y in range(20, HEIGHT, 42)
    ]
    truth = Cells.from_masks(HEIGHT, WIDTH, [disc(x, y, 14) for x, y in centres])
    whole = list(truth.full_masks())
    for multiple in (1, 16):
        tiles = tiles_of(multiple)
        merged = merge(tiles, [seen_in(t, whole, truth.classes, truth.scores) for t in tiles])
        assert len(merged) == len(truth)
        assert (truth.ious(merged).max(axis=1) == 1).all()


def two_tiles():
    """Two tiles of 120 columns; both show columns 80 to 120, and the border of their cores is at 100."""
    tiles = plan_tiles(120, 200, 120, 40)
    assert [t.x for t in tiles] == [0, 80]
    return tiles


def merged_pair(left, right):
    tiles = two_tiles()
    return merge_tiles(tiles, [candidates(c, t, 120, 200, 40) for t, c in zip(tiles, (left, right))])


def cells_of(masks, scores, classes=None):
    return Cells.from_masks(120, 120, masks, scores=scores, classes=classes)


@pytest.mark.parametrize(
    ("left", "right", "kept"),
    [
        # Left sees the centre at 98 (its own), right at 80 + 21 = 101 (its own): doubled without comparing.
        ((98, 10, 0.9), (21, 10, 0.8), "left"),
        # Left sees it at 102 and right at 98: neither would own it.
        ((102, 10, 0.9), (18, 10, 0.8), "left"),
        # What only the tile that does not own it sees does not count.
        ((104, 8, 0.9), None, None),
        ((96, 8, 0.9), None, "left"),
        # The whole cell wins over a cut one with a better score.
        ((95, 18, 0.5), (15, 18, 0.99), "left"),
        # Right has lost a part and seen too much of the rest: columns 80 to 122, the middle in its core.
        ((97, 18, 0.5), (17, 25, 0.99), "left"),
        # The tile that owns a cell decides on its outline and score.
        ((96, 10, 0.5), (17, 11, 0.99), "left"),
        ((104, 11, 0.99), (23, 10, 0.5), "right"),
    ],
)
def test_of_two_reports_of_a_cell_one_is_kept(left, right, kept):
    """Discs (x in pixels of the tile, radius, score) in the middle row."""
    reports = {
        name: cells_of([disc(given[0], 60, given[1], 120, 120)], [given[2]]) if given else cells_of([], [])
        for name, given in (("left", left), ("right", right))
    }
    found = merged_pair(*reports.values())
    expected = reports[kept] if kept else cells_of([], [])
    assert (found.areas.tolist(), found.scores.tolist()) == (
        expected.areas.tolist(),
        expected.scores.tolist(),
    )


def test_pieces_of_a_cell_larger_than_the_overlap_are_joined(caplog):
    left, right = disc(100, 60, 50, 120, 120), disc(20, 60, 50, 120, 120)
    found = merged_pair(cells_of([left], [0.7]), cells_of([right], [0.9], classes=[3]))
    assert found.areas.tolist() == [disc(100, 60, 50, 120, 200).sum()]
    assert found.boxes.tolist() == [[50, 10, 151, 111]]
    assert (found.scores.tolist(), found.classes.tolist()) == ([0.9], [3])
    assert not caplog.records


def test_a_cut_cell_without_its_rest_is_kept_and_reported(caplog):
    with caplog.at_level(logging.WARNING):
        assert len(merged_pair(cells_of([disc(100, 60, 50, 120, 120)], [0.7]), cells_of([], []))) == 1
    assert "1 cells end at the border of a tile" in caplog.text


def test_a_clump_in_one_tile_and_its_cells_in_the_other_are_not_both_kept():
    one, other = disc(92, 48, 10, 120, 120), disc(92, 71, 10, 120, 120)
    clump, pieces = cells_of([one | other], [0.7]), cells_of([one, other], [0.9, 0.9])
    moved_clump = cells_of([np.roll(one | other, -80, axis=1)], [0.9])
    moved_pieces = cells_of([np.roll(mask, -80, axis=1) for mask in (one, other)], [0.9, 0.9])
    # All lie in the core of the left tile, which decides whatever the scores.
    assert merged_pair(clump, moved_pieces).areas.tolist() == [(one | other).sum()]
    assert merged_pair(pieces, moved_clump).areas.tolist() == [one.sum(), other.sum()]


@pytest.mark.parametrize(("score", "kept"), [(0.95, "clump"), (0.6, "piece")])
def test_between_a_clump_and_a_piece_that_two_tiles_own_the_score_decides(score, kept):
    one, other = disc(84, 60, 9, 120, 120), disc(103, 60, 9, 120, 120)
    # The middle of the clump is at 93.5, left of the border at 100; that of the piece right of it.
    found = merged_pair(cells_of([one | other], [score]), cells_of([np.roll(other, -80, axis=1)], [0.8]))
    assert found.areas.tolist() == [{"clump": (one | other).sum(), "piece": other.sum()}[kept]]


def test_a_cell_inside_another_of_its_class_excludes_it_but_not_one_of_another_class():
    large, small = disc(97, 60, 16, 120, 120), disc(23, 60, 6, 120, 120)
    assert len(merged_pair(cells_of([large], [0.9], [0]), cells_of([small], [0.8], [0]))) == 1
    assert len(merged_pair(cells_of([large], [0.9], [0]), cells_of([small], [0.8], [1]))) == 2


def test_no_cells_at_all():
    assert len(merge(tiles_of(), [seen_in(t, [], [], []) for t in tiles_of()])) == 0


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


def test_noise_and_uneven_light_are_empty_and_the_palest_cell_is_not():
    rng = np.random.default_rng(0)
    light = np.linspace(180, 235, 800)[None, :, None] + np.array([0, -8, 5])
    tile = np.broadcast_to(light, (600, 800, 3)) + rng.normal(0, 3, (600, 800, 3))
    assert is_empty(tile.astype(np.uint8))
    for radius in (8, 40):
        pale = tile.copy()
        pale[disc(300, 200, radius, 600, 800)] -= 25
        assert not is_empty(pale.astype(np.uint8))
    cut = tile.copy()
    cut[disc(-25, 300, 40, 600, 800)] -= 40
    assert not is_empty(cut.astype(np.uint8))
