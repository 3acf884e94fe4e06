import cv2
import numpy as np
import pytest

from bccd_d2.data.stain import ReinhardNormalizer, foreground_threshold
from bccd_d2.errors import InputError

MEAN, STD = [39.2, 9.0, -22.9], [11.9, 4.6, 4.5]


@pytest.fixture
def smear():
    """BGR cells with a known spread of colours on glass."""
    rng = np.random.default_rng(0)
    lab = np.empty((300, 400, 3), np.float32)
    lab[:] = (90, 1, 2)
    rows, columns = np.mgrid[:300, :400]
    cell = (rows % 100 - 50) ** 2 + (columns % 100 - 50) ** 2 < 35**2
    lab[cell] = rng.normal((45, 15, -20), (7, 4, 5), (cell.sum(), 3))
    return (cv2.cvtColor(lab, cv2.COLOR_LAB2BGR) * 255).clip(0, 255).round().astype(np.uint8), cell


def test_statistics_are_those_of_the_foreground(smear):
    image, cell = smear
    threshold = foreground_threshold(np.ascontiguousarray(image[..., 1]))
    assert ((image[..., 1] <= threshold) == cell).mean() > 0.999
    statistics = ReinhardNormalizer(MEAN, STD).statistics(image)
    np.testing.assert_allclose(statistics.mean, (45, 15, -20), atol=0.5)
    np.testing.assert_allclose(statistics.std, (7, 4, 5), atol=0.5)


def test_the_foreground_reaches_the_target(smear):
    normalizer = ReinhardNormalizer(MEAN, STD)
    reached = normalizer.statistics(normalizer(smear[0]))
    np.testing.assert_allclose(reached.mean, MEAN, atol=0.6)
    np.testing.assert_allclose(reached.std, STD, atol=0.6)


def test_colour_order_does_not_matter(smear):
    image = smear[0]
    bgr = ReinhardNormalizer(MEAN, STD, image_format="BGR")(image)
    rgb = ReinhardNormalizer(MEAN, STD, image_format="RGB")(np.ascontiguousarray(image[..., ::-1]))
    np.testing.assert_array_equal(bgr, rgb[..., ::-1])


@pytest.mark.parametrize("noise", [0, 3])
def test_glass_without_cells_is_left_alone(noise):
    image = 225 + np.random.default_rng(0).integers(-noise, noise + 1, (80, 90, 3))
    image = image.astype(np.uint8)
    normalizer = ReinhardNormalizer(MEAN, STD)
    assert normalizer.statistics(image) is None
    np.testing.assert_array_equal(normalizer(image), image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_mean": [1, 2]}, "INPUT.STAIN.TARGET_MEAN holds 2 numbers"),
        ({"target_std": [1, 0, 1]}, "expected positive"),
        ({"image_format": "L"}, "INPUT.FORMAT is 'L'"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        ReinhardNormalizer(**{"target_mean": MEAN, "target_std": STD} | arguments)
