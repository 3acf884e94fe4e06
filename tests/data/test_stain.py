import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import lab2rgb, rgb2lab

from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.stain import (
    ReinhardNormalizer,
    StainTarget,
    foreground_weight,
    median_target,
)
from bccd_d2.errors import InputError

TARGET = StainTarget((39.2, 9.0, -22.9), (11.9, 4.6, 4.5))


def normalizer(**changes):
    return ReinhardNormalizer(**{"target": TARGET} | changes)


def draw_smear(mean=(45, 15, -20), std=(7, 4, 5), seed=0):
    """BGR cells with these CIELAB statistics on light glass, and where the cells are."""
    rng = np.random.default_rng(seed)
    lab = np.empty((300, 400, 3), np.float32)
    lab[:] = (90, 1, 2)
    rows, columns = np.mgrid[:300, :400]
    cell = (rows % 100 - 50) ** 2 + (columns % 100 - 50) ** 2 < 35**2
    lab[cell] = rng.normal(mean, std, (cell.sum(), 3))
    return (cv2.cvtColor(lab, cv2.COLOR_LAB2BGR) * 255).clip(0, 255).round().astype(np.uint8), cell


def in_float64(image, found, target, background):
    """Reinhard's formula without any shortcut."""
    lab = rgb2lab(image[..., ::-1])
    cells = lab[image[..., 1] <= found.threshold]
    moved = (lab - cells.mean(0)) * (np.array(target.std) / cells.std(0)) + target.mean
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glass may leave the gamut
        moved = lab2rgb(moved)[..., ::-1] * 255
    weight = foreground_weight(found)[image[..., 1]][..., None] / 255 if background == "keep" else 1
    return weight * moved + (1 - weight) * image


def test_statistics_are_those_of_the_foreground():
    image, cell = draw_smear()
    found = normalizer().statistics(image)
    assert ((image[..., 1] <= found.threshold) == cell).mean() > 0.999
    np.testing.assert_allclose(found.mean, (45, 15, -20), atol=0.5)
    np.testing.assert_allclose(found.std, (7, 4, 5), atol=0.5)
    assert found.glass == pytest.approx(image[~cell][:, 1].mean(), abs=1)


@pytest.mark.parametrize("background", ["keep", "normalize"])
def test_close_to_the_formula_in_float64(background):
    image, _ = draw_smear()
    # Glass stays within the gamut, outside of which conversions differ in how they clip.
    target = StainTarget((44.0, 12.0, -16.0), (6.0, 4.6, 4.0))
    one = normalizer(target=target, background=background)
    error = np.abs(one(image) - in_float64(image, one.statistics(image), target, background))
    assert error.mean() < 1
    assert np.percentile(error, 99) < 5


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.floats(30, 60), st.floats(-10, 25), st.floats(-30, 10)),
    st.tuples(st.floats(4, 10), st.floats(3, 7), st.floats(3, 7)),
)
def test_whatever_the_stain_the_foreground_reaches_the_target(mean, std):
    one = normalizer(target=StainTarget((42.0, 9.0, -18.0), (8.0, 4.0, 4.5)))
    image, _ = draw_smear(mean, std)
    reached = one.statistics(one(image))
    np.testing.assert_allclose(reached.mean, one.target.mean, atol=1.2)
    np.testing.assert_allclose(reached.std, one.target.std, atol=1.2)


def test_an_image_at_the_target_stays():
    image, _ = draw_smear()
    own = normalizer().statistics(image)
    again = normalizer(target=own)(image)
    assert np.abs(again.astype(int) - image).mean() < 0.7
    once = normalizer()(image)
    twice = normalizer()(once)
    assert np.abs(twice.astype(int) - once).mean() < 0.7


def test_glass_is_kept_or_moved():
    image, cell = draw_smear()
    np.testing.assert_array_equal(normalizer()(image)[~cell], image[~cell])
    moved = normalizer(background="normalize")(image)
    assert (moved[~cell] != image[~cell]).any(axis=-1).mean() > 0.9
    dark = image[..., 1] <= normalizer().statistics(image).threshold
    np.testing.assert_array_equal(moved[dark], normalizer()(image)[dark])


@pytest.mark.parametrize("channel", ["green", "grey", "saturation"])
def test_every_channel_finds_the_cells(channel):
    image, cell = draw_smear(std=(3, 2, 2))
    changed = (normalizer(channel=channel)(image) != image).any(axis=-1)
    assert (changed & cell).sum() / (changed | cell).sum() > 0.95


def test_statistics_of_all_pixels_are_reinhard_s_original():
    image, _ = draw_smear()
    found = normalizer(foreground="all").statistics(image)
    lab = rgb2lab(image[..., ::-1]).reshape(-1, 3)
    np.testing.assert_allclose(found.mean, lab.mean(0), atol=0.3)
    np.testing.assert_allclose(found.std, lab.std(0), atol=0.3)


def test_a_flat_channel_is_not_blown_up():
    image, cell = draw_smear(std=(7, 0.05, 0.05))
    flat = normalizer(min_std=2.0)(image)
    assert cv2.cvtColor(flat, cv2.COLOR_BGR2LAB)[cell][:, 1].std() < 3


def test_a_large_image_is_sampled_without_changing_the_result():
    image, _ = draw_smear()
    large = np.tile(image, (5, 5, 1))
    small, sampled = normalizer().statistics(image), normalizer().statistics(large)
    np.testing.assert_allclose(sampled.mean, small.mean, atol=0.2)
    np.testing.assert_allclose(sampled.std, small.std, atol=0.2)


def test_colour_order_does_not_matter():
    image, _ = draw_smear()
    rgb = normalizer(image_format="RGB")(np.ascontiguousarray(image[..., ::-1]))
    np.testing.assert_array_equal(normalizer()(image), rgb[..., ::-1])


@pytest.mark.parametrize("noise", [0, 3])
def test_glass_without_cells_is_left_alone(noise):
    image = (225 + np.random.default_rng(0).integers(-noise, noise + 1, (80, 90, 3))).astype(np.uint8)
    assert normalizer().statistics(image) is None
    np.testing.assert_array_equal(normalizer()(image), image)


def test_a_crop_without_cells_of_an_image_with_cells_is_left_alone():
    image, _ = draw_smear()
    one = normalizer()
    glass = np.ascontiguousarray(image[:10, :10])
    np.testing.assert_array_equal(one.apply(glass, one.statistics(image)), glass)


def test_the_target_of_a_data_set_is_the_median():
    targets = [StainTarget((float(k), 0.0, 0.0), (1.0, float(k), 1.0)) for k in (1, 2, 90)]
    assert median_target(targets) == StainTarget((2.0, 0.0, 0.0), (1.0, 2.0, 1.0))
    with pytest.raises(InputError, match="no image shows cells"):
        median_target([])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("STAIN.TARGET_MEAN", [1.0, 2.0], "INPUT.STAIN.TARGET_MEAN holds 2 numbers"),
        ("STAIN.TARGET_STD", [1.0, 0.0, 1.0], "expected numbers above 0"),
        ("STAIN.CHANNEL", "red", r"INPUT\.STAIN\.CHANNEL is 'red'; expected one of green"),
        ("STAIN.FOREGROUND", "some", r"INPUT\.STAIN\.FOREGROUND is 'some'"),
        ("FORMAT", "L", r"INPUT\.FORMAT is 'L'"),
    ],
)
def test_bad_values_are_named(key, value, message):
    cfg = get_bccd_cfg()
    cfg.merge_from_list([f"INPUT.{key}", value])
    with pytest.raises(InputError, match=message):
        ReinhardNormalizer(cfg)
