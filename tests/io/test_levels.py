import numpy as np
import pytest

from bccd_d2.errors import InputError
from bccd_d2.io.levels import full_scale, to_uint8


@pytest.mark.parametrize(
    ("largest", "full"), [(200, 255), (1023, 1023), (1024, 4095), (4095, 4095), (9000, 16383), (40000, 65535)]
)
def test_full_scale_is_that_of_the_smallest_camera_that_holds_the_levels(largest, full):
    assert full_scale(np.array([3, largest], np.uint16)) == full


def test_truth_values_and_fractions_go_up_to_one():
    assert full_scale(np.array([False])) == full_scale(np.array([0.2])) == 1


def test_levels_are_scaled_rounded_and_clipped():
    twelve_bits = np.array([0, 8, 2048, 4095, 5000], np.uint16)
    # 8 * 255 / 4095 = 0.498, 2048 * 255 / 4095 = 127.53
    assert to_uint8(twelve_bits, full=4095.0).tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(np.array([-5, 0, 1000], np.int16), 1023.0).tolist() == [0, 0, 249]
    assert to_uint8(np.array([0.0, 0.5, 1.0]), 1.0).tolist() == [0, 128, 255]
    assert to_uint8(np.array([False, True]), 1.0).tolist() == [0, 255]


def test_eight_bits_are_left_alone():
    image = np.array([1, 2], np.uint8)
    assert to_uint8(image, 255.0) is image


@pytest.mark.parametrize("level", [1.5, np.nan, np.inf])
def test_floats_beyond_one_are_refused(level):
    with pytest.raises(InputError, match=r"image: .*expected levels in \[0, 1\]"):
        full_scale(np.array([0.1, level]))
