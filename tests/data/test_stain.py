import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import lab2rgb, rgb2lab

from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.augmentation import build_stain_augmentation
from bccd_d2.data.label_map import CellInput
from bccd_d2.data.stain import ReinhardNormalizer, StainTarget, foreground_weight
from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image
from tests.data.shapes import disc, smear
from tools.fit_stain import median_target

TARGET = StainTarget((39.2, 9.0, -22.9), (11.9, 4.6, 4.5))


def normalizer(**changes):
    return ReinhardNormalizer(**{"target": TARGET} | changes)


def draw_smear(mean=(45, 15, -20), std=(7, 4, 5), seed=0):
    """BGR cells with these CIELAB statistics on light background, and where the cells are."""
    rng = np.random.default_rng(seed)
    lab = np.empty((300, 400, 3), np.float32)
    lab[:] = (90, 1, 2)
    rows, columns = np.mgrid[:300, :400]
    cell = (rows % 100 - 50) ** 2 + (columns % 100 - 50) ** 2 < 35**2
    lab[cell] = rng.normal(mean, std, (cell.sum(), 3))
    return (cv2.cvtColor(lab, cv2.COLOR_LAB2BGR) * 255).clip(0, 255).round().astype(np.uint8), cell


def in_float64(image, found, target):
    """Reinhard's formula without any shortcut."""
    lab = rgb2lab(image[..., ::-1])
    cells = lab[image[..., 1] <= found.threshold]
    moved = (lab - cells.mean(0)) * (np.array(target.std) / cells.std(0)) + target.mean
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # background may leave the gamut
        moved = lab2rgb(moved)[..., ::-1] * 255
    weight = foreground_weight(found)[image[..., 1]][..., None] / 255
    return weight * moved + (1 - weight) * image


def test_statistics_are_those_of_the_foreground():
    image, cell = draw_smear()
    found = normalizer().statistics(image)
    assert ((image[..., 1] <= found.threshold) == cell).mean() > 0.999
    np.testing.assert_allclose(found.mean, (45, 15, -20), atol=0.5)
    np.testing.assert_allclose(found.std, (7, 4, 5), atol=0.5)
    assert found.background == pytest.approx(image[~cell][:, 1].mean(), abs=1)


def test_close_to_the_formula_in_float64():
    image, _ = draw_smear()
    # Background stays within the gamut, outside of which conversions differ in how they clip.
    target = StainTarget((44.0, 12.0, -16.0), (6.0, 4.6, 4.0))
    one = normalizer(target=target)
    error = np.abs(one(image) - in_float64(image, one.statistics(image), target))
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


def test_the_background_is_kept():
    image, cell = draw_smear()
    np.testing.assert_array_equal(normalizer()(image)[~cell], image[~cell])


def test_colour_order_does_not_matter():
    image, _ = draw_smear()
    rgb = normalizer(image_format="RGB")(np.ascontiguousarray(image[..., ::-1]))
    np.testing.assert_array_equal(normalizer()(image), rgb[..., ::-1])


def test_a_crop_without_cells_of_an_image_with_cells_is_left_alone():
    image, _ = draw_smear()
    one = normalizer()
    background = np.ascontiguousarray(image[:10, :10])
    np.testing.assert_array_equal(one.apply(background, one.statistics(image)), background)


def test_the_target_of_a_data_set_is_the_median():
    targets = [StainTarget((float(k), 0.0, 0.0), (1.0, float(k), 1.0)) for k in (1, 2, 90)]
    assert median_target(targets) == StainTarget((2.0, 0.0, 0.0), (1.0, 2.0, 1.0))
    with pytest.raises(InputError, match="no image shows cells"):
        median_target([])


@pytest.mark.real_data
def test_the_default_target_is_near_the_median_of_real_images_and_they_reach_it(real_pairs_root):
    normalizer = ReinhardNormalizer.from_config(get_bccd_cfg())
    images = [read_image(str(path)) for path in sorted(real_pairs_root.glob("**/original/*"))[::6]]
    before = [normalizer.statistics(image) for image in images]
    assert None not in before
    np.testing.assert_allclose(median_target(before).mean, normalizer.target.mean, atol=5)
    after = [normalizer.statistics(normalizer.apply(i, s)) for i, s in zip(images, before)]
    spread = np.std([one.mean for one in after], axis=0) / np.std([one.mean for one in before], axis=0)
    assert (spread < 0.25).all()


# Random stain

MASKS = [disc(120, 160, x, y, 14) for x in (30, 80, 130) for y in (30, 90)]
IMAGE = smear(120, 160, MASKS)


def build_random(**changes):
    cfg = get_bccd_cfg()
    for key, value in changes.items():
        cfg.merge_from_list([f"INPUT.STAIN.{key}", value])
    return build_stain_augmentation(cfg), ReinhardNormalizer.from_config(cfg)


def apply(augmentation, measure, image=IMAGE):
    labels = np.zeros((*image.shape[:2], 1), np.uint16)
    crop = CellInput(image, labels, np.zeros(0, int), np.zeros(0), 1.0, measure.statistics(image))
    augmentation(crop)
    assert (crop.sem_seg == 0).all()
    return crop.image


def test_without_jitter_it_is_the_normalization_of_testing():
    augmentation, measure = build_random(ENABLED=True)
    np.testing.assert_array_equal(apply(augmentation, measure), measure(IMAGE))


@pytest.mark.parametrize("enabled", [True, False])
def test_random_targets_spread_around_the_base_within_bounds(enabled):
    augmentation, measure = build_random(ENABLED=enabled, JITTER_MEAN=[6.0, 0.0, 4.0], JITTER_STD=0.2)
    found = measure.statistics(IMAGE)
    base = measure.target if enabled else found
    np.random.seed(0)  # noqa: NPY002  what Detectron2 seeds
    targets = [augmentation.draw_target(found) for _ in range(200)]
    shifts = np.array([target.mean for target in targets]) - base.mean
    factors = np.array([target.std for target in targets]) / base.std
    for values, width in ((shifts[:, 0], 6), (shifts[:, 2], 4), (factors[:, 1] - 1, 0.2)):
        assert -width <= values.min() < -0.9 * width
        assert 0.9 * width < values.max() <= width
    assert (shifts[:, 1] == 0).all()


def test_the_strongest_jitter_keeps_nuclei_and_red_cells_apart():
    # BGR of a red cell, a nucleus and a platelet of Giemsa-stained smears, each with some texture.
    image = IMAGE.copy()
    colors = {0: (150, 140, 215), 1: (130, 40, 90), 2: (170, 110, 160)}
    noise = np.random.default_rng(0).integers(-10, 11, image.shape)
    for k, mask in enumerate(MASKS):
        image[mask] = np.clip(np.array(colors[k % 3]) + noise[mask], 0, 255)
    augmentation, measure = build_random(ENABLED=True, JITTER_MEAN=[15.0, 15.0, 15.0], JITTER_STD=0.5)

    def distances(picture):
        lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
        means = [lab[MASKS[k] | MASKS[k + 3]].mean(0) for k in range(3)]
        return np.array([np.linalg.norm(means[i] - means[j]) for i, j in ((0, 1), (0, 2), (1, 2))])

    normalized = distances(measure(image))
    np.random.seed(0)  # noqa: NPY002
    for _ in range(40):
        assert (distances(apply(augmentation, measure, image)) > 0.4 * normalized).all()
