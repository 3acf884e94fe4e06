import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bccd_d2.errors import InputError
from bccd_d2.io.levels import Levels, agree, find_levels, to_uint8


def scene(low, high, dtype=np.uint16, size=100):
    """Every level between two, evenly, as an image has them."""
    return np.linspace(low, high, size * size).reshape(size, size).astype(dtype)


def span(pixels, **options):
    levels = find_levels(pixels, **options)
    return levels.black, levels.white


@pytest.mark.parametrize(
    ("largest", "white"),
    [(200, 255), (1023, 1023), (1100, 4095), (4095, 4095), (9000, 16383), (40000, 65535)],
)
def test_white_is_that_of_the_smallest_camera_that_holds_the_levels(largest, white):
    assert span(scene(3, largest)) == (0, white)


@given(st.lists(st.integers(0, 9999), min_size=1, max_size=5), st.integers(4096, 65535))
def test_hot_pixels_change_nothing(places, level):
    pixels = scene(300, 3900)
    cold = find_levels(pixels)
    pixels.ravel()[places] = level
    assert span(pixels) == (cold.black, cold.white) == (0, 4095)


@pytest.mark.parametrize(
    ("pixels", "expected", "word"),
    [
        (scene(0, 255, np.uint8), (0, 255), ""),
        (scene(32768 + 300, 32768 + 3900), (32768, 32768 + 4095), "32768 is taken as black"),
        (scene(32768 + 900, 32768 + 16000), (32768, 32768 + 16383), "32768 is taken as black"),
        (scene(-32768 + 300, -32768 + 3900, np.int16), (-32768, -32768 + 4095), "-32768 is taken as black"),
        (scene(-2000, 2000, np.int16), (-2048, 2047), "signed levels from"),
        (scene(-30000, 30000, np.int16), (-32768, 32767), "signed levels from"),
        (scene(-100, 100, np.int8), (-128, 127), "signed levels from"),
        (scene(-20, 3900, np.int16), (0, 4095), ""),
        (scene(100, 30000, np.int16), (0, 32767), ""),
        (scene(0.1, 0.9, np.float32), (0, 1), ""),
        (scene(0.1, 1.2, np.float32), (0, 1), "those above 1 are taken as white"),
        (scene(20, 240, np.float64), (0, 255), "255 is taken as white"),
        (scene(20, 3900, np.float32), (0, 4095), "4095 is taken as white"),
        (scene(-0.9, 0.9, np.float32), (-1, 1), "-1 is taken as black"),
        (scene(60, 70, np.uint8), (0, 255), "between 60 and 69 in a range of 0 to 255"),
        (scene(1000, 1200), (0, 4095), "stretch the contrast"),
        (scene(0.01, 0.06, np.float32), (0, 1), "between 0.01"),
        (np.array([[False, True]]), (0, 1), ""),
    ],
)
def test_levels_that_are_unusual_are_read_rightly_or_said(pixels, expected, word):
    levels = find_levels(pixels)
    assert (levels.black, levels.white) == expected
    assert word in levels.warning
    assert bool(levels.warning) == bool(word)


@pytest.mark.parametrize("low, high", [(-40.0, 3.0), (0.0, 1e7), (0.1, np.nan), (0.1, np.inf)])
def test_floats_of_which_nothing_says_what_is_white_are_refused(low, high):
    pixels = scene(0, 1, np.float32) if not np.isfinite(high) else scene(low, high, np.float32)
    pixels[0, 0] = high
    with pytest.raises(InputError, match=r"a\.tif: .*expected levels in \[0, 1\]"):
        find_levels(pixels, "a.tif")


def test_a_declared_depth_counts_unless_levels_exceed_it():
    assert span(scene(0, 900), declared_bits=12) == (0, 4095)
    assert span(scene(0, 9000), declared_bits=12) == (0, 16383)


def test_images_of_one_set_have_one_white():
    """16,000 and 17,000 as brightest levels are one camera; a quarter of the brightness is another."""
    sixteen, seventeen = find_levels(scene(0, 16000)), find_levels(scene(0, 17000))
    assert agree(sixteen, [seventeen, sixteen]).white == agree(seventeen, [sixteen]).white == 65535
    twelve = find_levels(scene(0, 3900))
    assert agree(twelve, [seventeen, sixteen, twelve]).white == 4095
    assert agree(twelve, [find_levels(scene(0, top)) for top in (6000, 10000)]).white == 16383


@pytest.mark.parametrize("high", [17000, 30000, 32000])
def test_white_of_a_signed_type_is_its_largest_level(high):
    own = find_levels(scene(100, high, np.int16))
    assert own.white == agree(own, []).white == agree(own, [own]).white == 32767


def test_levels_are_scaled_rounded_and_clipped():
    twelve_bits = np.array([0, 8, 2048, 4095, 5000], np.uint16)
    # 8 * 255 / 4095 = 0.498, 2048 * 255 / 4095 = 127.53
    assert to_uint8(twelve_bits, Levels(0, 4095, 0, 4095)).tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(np.array([-5, 0, 1000], np.int16), Levels(0, 1023, 0, 1000)).tolist() == [0, 0, 249]
    assert to_uint8(np.array([0.0, 0.5, 1.0]), Levels(0, 1, 0, 1)).tolist() == [0, 128, 255]
    assert to_uint8(np.array([False, True]), Levels(0, 1, 0, 1)).tolist() == [0, 255]
    assert to_uint8(np.array([32768, 34815]), Levels(32768, 36863, 0, 1)).tolist() == [0, 127]
    image = np.array([1, 2], np.uint8)
    assert to_uint8(image, Levels(0, 255, 1, 2)) is image
