import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.preprocessing import BACKGROUND_LEVEL, ColorNormalizer, white_balance_gain
from bccd_d2.io.sources import ArraySource, sample_image
from tests.data.shapes import dataset_dict, disc, smear

DISCS = [disc(120, 160, 40, 40, 20), disc(120, 160, 110, 70, 25)]


@given(lamp=st.tuples(*[st.floats(0.6, 1.1)] * 3))
@settings(max_examples=25, deadline=None)
def test_the_lamp_does_not_change_a_balanced_image(lamp):
    smooth = cv2.GaussianBlur(smear(120, 160, DISCS), (0, 0), 2)
    lit = np.rint(smooth * np.array(lamp)).clip(0, 255).astype(np.uint8)
    normalizer = ColorNormalizer(white_balance=True)
    difference = normalizer.balance(smooth).astype(int) - normalizer.balance(lit)
    assert np.abs(difference).max() <= 4  # rounding to levels, magnified by the gain
    background = np.percentile(normalizer.balance(lit).reshape(-1, 3), 90, axis=0)
    assert background == pytest.approx([BACKGROUND_LEVEL] * 3, abs=2)


def test_cells_of_any_stain_come_to_one_density_and_nuclei_stay_apart():
    rng = np.random.default_rng(3)
    # Optical densities of 80 % background, 16 % red cells and 4 % nuclei, and a tenth of noise.
    tones = np.array([[0, 0, 0], [0.5, 0.9, 0.8], [1.4, 1.8, 0.9]])
    density = tones[rng.choice(3, size=(200, 150), p=[0.8, 0.16, 0.04])] * rng.normal(1, 0.1, (200, 150, 1))
    target = [0.25, 0.4, 0.22]
    normalizer = ColorNormalizer(white_balance=True, cell_density=target)
    for strength in ([1, 1, 1], [0.4, 0.5, 0.3], [1.2, 0.7, 0.9]):
        image = np.rint(BACKGROUND_LEVEL * np.exp(-density * strength)).clip(1, 255).astype(np.uint8)
        balanced = -np.log(np.maximum(normalizer.balance(image), 1) / BACKGROUND_LEVEL)
        red, nuclei = (np.median(balanced[density[..., 1] > least], axis=0) for least in (0.5, 1.5))
        assert red == pytest.approx(target, rel=0.15)
        assert nuclei == pytest.approx(np.array(target) * [2.8, 2, 9 / 8], rel=0.15)


def test_an_image_of_one_colour_keeps_it():
    plain = np.full((40, 50, 3), 90, np.uint8)
    white = ColorNormalizer(white_balance=True)
    both = ColorNormalizer(white_balance=True, cell_density=[0.25, 0.4, 0.22])
    np.testing.assert_array_equal(both.balance(plain), white.balance(plain))


def test_a_black_image_is_not_amplified_without_limit():
    assert white_balance_gain(np.full((50, 50, 3), 2, np.uint8)).tolist() == [3, 3, 3]


@pytest.mark.parametrize("size", [(700, 600), (999, 1001), (60, 6500)])
def test_training_and_prediction_measure_the_same_pixels(size):
    image = np.full((*size, 3), 100, np.uint8)
    image[1::2] = 200  # every second row is left out of both samples
    normalizer = ColorNormalizer(white_balance=True)
    predicted = normalizer.measure(sample_image(ArraySource(image)))
    np.testing.assert_array_equal(normalizer.statistics(image).table, predicted.table)
    np.testing.assert_array_equal(normalizer.balance(image), normalizer.apply(image, predicted))


def test_training_testing_and_a_crop_get_the_balance_of_the_whole_image(tmp_path):
    record = dataset_dict(tmp_path / "a.png", DISCS)
    image = cv2.imread(record["file_name"])
    cfg = get_bccd_cfg()
    cfg.INPUT.WHITE_BALANCE = True
    cfg.INPUT.CELL_DENSITY = [0.25, 0.4, 0.22]
    cfg.INPUT.AUGMENTATION.PRESET, cfg.INPUT.RANDOM_FLIP = "none", "none"
    cfg.INPUT.CROP.ENABLED = False
    normalizer = ColorNormalizer.from_config(cfg)
    expected = normalizer.balance(image)
    assert not np.array_equal(expected, image)
    for is_train in (True, False):
        shown = BCCDDatasetMapper(cfg, is_train)(record)["image"].numpy().transpose(1, 2, 0)
        assert np.array_equal(shown, expected)
    part = normalizer.apply(image[:50, :60], normalizer.statistics(image))
    assert np.array_equal(part, expected[:50, :60])
