"""Images of one stain come into one group."""

import numpy as np
import pytest

from bccd_d2.conversion.stain_clusters import cluster_stains, stain_features
from bccd_d2.errors import InputError
from tests.conversion.drawn import draw_mask


def smear(
    glass: tuple[int, int, int], cell: tuple[int, int, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    mask = draw_mask(seed)
    clean = np.where(mask[..., None] > 0, np.uint8(cell), np.uint8(glass))
    noisy = clean + np.random.default_rng(seed).normal(0, 5, clean.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), mask


def test_features_are_the_colours_of_glass_and_cells() -> None:
    image, mask = smear((255, 255, 255), (0, 0, 0), 0)
    features = stain_features(image, mask)
    assert features.shape == (6,)
    assert features[:3] == pytest.approx([100, 0, 0], abs=2)
    assert features[3] < 5
    assert stain_features(image, np.zeros_like(mask))[0] == pytest.approx(features[0], abs=1)


def test_three_stains_make_three_groups() -> None:
    stains = [
        ((245, 245, 240), (110, 60, 150)),
        ((225, 235, 205), (60, 80, 120)),
        ((240, 238, 245), (160, 50, 90)),
    ]
    features, sizes, truth = {}, {}, {}
    for seed in range(12):
        image, mask = smear(*stains[seed % 3], seed)
        stem = f"image{seed:02}"
        features[stem], sizes[stem], truth[stem] = stain_features(image, mask), mask.shape, seed % 3
    groups = cluster_stains(features, sizes, 3)
    assert len(set(groups.values())) == 3
    assert len({(truth[stem], group) for stem, group in groups.items()}) == 3
    assert groups["image00"] == "stain 1"
    backwards = {stem: features[stem] for stem in sorted(features, reverse=True)}
    assert cluster_stains(backwards, sizes, 3) == groups


def test_another_size_is_another_group() -> None:
    features = {stem: np.full(6, 50.0) for stem in "abcd"}
    sizes = {"a": (10, 10), "b": (10, 10), "c": (20, 20), "d": (10, 10)}
    groups = cluster_stains(features, sizes, 2)
    assert groups["a"] == groups["b"] == groups["d"] != groups["c"]


def test_too_few() -> None:
    with pytest.raises(InputError, match="expected at least 2"):
        cluster_stains({}, {}, 1)
    assert cluster_stains({"a": np.zeros(6)}, {"a": (1, 1)}, 8) == {"a": "stain 1"}
