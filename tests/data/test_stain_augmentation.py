import cv2
import numpy as np
import pytest

from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.cell_input import CellInput
from bccd_d2.data.stain import ReinhardNormalizer
from bccd_d2.data.stain_augmentation import build_stain_augmentation
from bccd_d2.errors import InputError
from tests.data.shapes import disc, smear

MASKS = [disc(120, 160, x, y, 14) for x in (30, 80, 130) for y in (30, 90)]
IMAGE = smear(120, 160, MASKS)


def build(**changes):
    cfg = get_bccd_cfg()
    for key, value in changes.items():
        cfg.merge_from_list([f"INPUT.STAIN.{key}", value])
    return build_stain_augmentation(cfg), ReinhardNormalizer(cfg)


def apply(augmentation, measure, image=IMAGE):
    labels = np.zeros((*image.shape[:2], 1), np.uint16)
    crop = CellInput(image, labels, np.zeros(0, int), np.zeros(0), 1.0, measure.statistics(image))
    augmentation(crop)
    assert (crop.sem_seg == 0).all()
    return crop.image


def test_without_normalization_and_jitter_there_is_none():
    assert build()[0] is None


def test_without_jitter_it_is_the_normalization_of_testing():
    augmentation, measure = build(ENABLED=True)
    np.testing.assert_array_equal(apply(augmentation, measure), measure(IMAGE))


@pytest.mark.parametrize("enabled", [True, False])
def test_targets_spread_around_the_base_within_bounds(enabled):
    augmentation, measure = build(ENABLED=enabled, JITTER_MEAN=[6.0, 0.0, 4.0], JITTER_STD=0.2)
    found = measure.statistics(IMAGE)
    base = measure.target if enabled else found
    np.random.seed(0)  # noqa: NPY002  what Detectron2 seeds
    targets = [augmentation.get_transform(IMAGE, found).target for _ in range(200)]
    shifts = np.array([target.mean for target in targets]) - base.mean
    factors = np.array([target.std for target in targets]) / base.std
    for values, width in ((shifts[:, 0], 6), (shifts[:, 2], 4), (factors[:, 1] - 1, 0.2)):
        assert -width <= values.min() < -0.9 * width
        assert 0.9 * width < values.max() <= width
    assert (shifts[:, 1] == 0).all()


def test_jitter_alone_stays_around_the_image():
    augmentation, measure = build(JITTER_MEAN=[0.0, 0.0, 0.0], JITTER_STD=0.001)
    assert np.abs(apply(augmentation, measure).astype(int) - IMAGE).mean() < 0.7


def test_an_image_without_cells_is_left_alone():
    augmentation, measure = build(ENABLED=True, JITTER_STD=0.2)
    glass = np.full((40, 40, 3), 230, np.uint8)
    np.testing.assert_array_equal(apply(augmentation, measure, glass), glass)


def test_the_strongest_jitter_keeps_nuclei_and_red_cells_apart():
    # BGR of a red cell, a nucleus and a platelet of Giemsa-stained smears, each with some texture.
    image = IMAGE.copy()
    colors = {0: (150, 140, 215), 1: (130, 40, 90), 2: (170, 110, 160)}
    noise = np.random.default_rng(0).integers(-10, 11, image.shape)
    for k, mask in enumerate(MASKS):
        image[mask] = np.clip(np.array(colors[k % 3]) + noise[mask], 0, 255)
    augmentation, measure = build(ENABLED=True, JITTER_MEAN=[15.0, 15.0, 15.0], JITTER_STD=0.5)

    def distances(picture):
        lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
        means = [lab[MASKS[k] | MASKS[k + 3]].mean(0) for k in range(3)]
        return np.array([np.linalg.norm(means[i] - means[j]) for i, j in ((0, 1), (0, 2), (1, 2))])

    normalized = distances(measure(image))
    np.random.seed(0)  # noqa: NPY002
    for _ in range(40):
        assert (distances(apply(augmentation, measure, image)) > 0.4 * normalized).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("JITTER_MEAN", [1.0, 2.0]),
        ("JITTER_MEAN", [0.0, 0.0, 16.0]),
        ("JITTER_STD", 0.6),
        ("JITTER_STD", -0.1),
    ],
)
def test_jitter_out_of_bounds_is_named(key, value):
    with pytest.raises(InputError, match=rf"INPUT\.STAIN\.{key} is"):
        build(ENABLED=True, **{key: value})
