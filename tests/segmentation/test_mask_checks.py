"""Masks that cannot be those of their images: inverted, turned, of another image; and masks with reversed levels."""

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from bccd_d2.io.file_kinds import upright
from bccd_d2.io.masks import MaskRule, read_mask
from bccd_d2.segmentation.mask_checks import fills_image, measure_fit

CENTRES = [(30, 40), (70, 120), (100, 60), (25, 170), (110, 150)]


@pytest.fixture(scope="module")
def mask():
    cells = np.zeros((140, 200), bool)
    for y, x in CENTRES:
        cells |= np.hypot(*np.ogrid[-y : 140 - y, -x : 200 - x]) < 16
    return cells


@pytest.fixture(scope="module")
def image(mask):
    noise = np.random.default_rng(0).normal(0, 4, (*mask.shape, 3))
    return np.clip(np.where(mask[..., None], (190, 120, 150), (225, 220, 225)) + noise, 0, 255).astype(
        np.uint8
    )


def test_a_right_mask_an_inverted_one_and_one_of_another_image(image, mask):
    assert measure_fit(image, mask).fit > 0.9
    assert measure_fit(image, ~mask).is_inverted
    assert not measure_fit(image, mask).is_unrelated
    assert measure_fit(image, np.roll(mask, 25, axis=1)).is_unrelated
    one_class = mask & (np.arange(200) > 145)
    assert not measure_fit(image, one_class).is_unrelated
    assert np.isnan(measure_fit(image, np.zeros_like(mask)).fit)


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_a_mask_of_the_image_as_it_is_stored_fits_turned(image, mask, orientation):
    shown = upright(image, orientation)
    assert measure_fit(shown, mask, orientation).fits_turned
    assert not measure_fit(shown, upright(mask, orientation), orientation).fits_turned


def test_a_background_touches_all_sides():
    assert fills_image([0, 0, 60, 50], 0.6 * 50 * 60, 50, 60)
    assert not fills_image([0, 0, 60, 50], 0.4 * 50 * 60, 50, 60)
    assert not fills_image([0, 0, 59, 50], 0.9 * 50 * 60, 50, 60)


def white_is_zero(path, mask, **options):
    tifffile.imwrite(path, mask, photometric="miniswhite", **options)


def inverted_palette(path, mask):
    picture = Image.fromarray(mask, "P")
    picture.putpalette([255 - level for level in range(256) for _ in range(3)])
    picture.save(path)


REVERSED = {
    # ImageJ: 255 is stored for cells and shown black.
    "imagej.tif": lambda path, cells: white_is_zero(path, cells * np.uint8(255)),
    "compressed.tif": lambda path, cells: white_is_zero(path, cells * np.uint8(255), compression="zlib"),
    "bits.tif": lambda path, cells: white_is_zero(path, cells),
    "deep.tif": lambda path, cells: white_is_zero(path, cells * np.uint16(65535)),
    "lut.png": lambda path, cells: inverted_palette(path, cells * np.uint8(255)),
    # Others mean what is shown.
    "shown.tif": lambda path, cells: white_is_zero(path, ~cells * np.uint8(255)),
    "shown_bits.tif": lambda path, cells: white_is_zero(path, ~cells),
    "shown_lut.png": lambda path, cells: inverted_palette(path, ~cells * np.uint8(255)),
}


@pytest.mark.parametrize("name", REVERSED)
def test_masks_with_reversed_levels_are_read_as_they_are_meant(tmp_path, mask, name):
    REVERSED[name](tmp_path / name, mask)
    np.testing.assert_array_equal(read_mask(tmp_path / name), mask)


def test_labels_with_an_inverting_table_are_those_that_are_stored(tmp_path, mask):
    _, labels = cv2.connectedComponents(mask.view(np.uint8))
    white_is_zero(tmp_path / "a.tif", labels.astype(np.uint8))
    inverted_palette(tmp_path / "a.png", labels.astype(np.uint8))
    for name in ("a.tif", "a.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name, MaskRule("instances")), labels)


@pytest.mark.parametrize("orientation", [3, 4, 6])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_mask_is_turned_by_its_own_orientation(tmp_path, mask, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        white_is_zero(path, mask * np.uint8(255), extratags=[(274, 3, 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(mask * np.uint8(255)).save(path, exif=exif)
    np.testing.assert_array_equal(read_mask(path), upright(mask, orientation))
