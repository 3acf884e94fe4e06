"""Copies and overlapping fields of view."""

import cv2
import numpy as np
import pytest

from bccd_d2.audit.similar import ORIENTATIONS, find_similar, fingerprint
from tests.audit.scene import paint


def field(seed, height=480, width=640, count=70):
    """A smear of discs at random places."""
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(count):
        x, y = random.integers(0, (width, height))
        cv2.circle(mask, (int(x), int(y)), int(random.integers(12, 18)), 255, -1)
    return paint(mask, seed=seed)


def found(images):
    return [
        (pair.first, pair.second, pair.how, pair.orientation)
        for pair in find_similar([fingerprint(image) for image in images])
    ]


UNRELATED = [field(seed) for seed in range(8)]


def test_different_fields_are_not_similar():
    assert found(UNRELATED) == []


@pytest.mark.parametrize(("turns", "mirrored"), [(1, False), (0, True), (3, True)])
def test_a_copy_is_found_however_it_lies(turns, mirrored):
    image = UNRELATED[2]
    copy = np.rot90(np.fliplr(image) if mirrored else image, turns)
    name = ORIENTATIONS[turns + 4 * mirrored]
    pairs = found([*UNRELATED, np.ascontiguousarray(copy)])
    assert pairs == [(2, 8, "same", name)]
    assert ("mirrored" in name) == mirrored
    assert (f"{90 * turns}" in name) == (turns > 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], 1),
        lambda image: cv2.resize(image, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA),
        lambda image: np.clip(image * [1.0, 0.8, 0.9] - 20, 0, 255).astype(np.uint8),
        lambda image: image[10:-10, 12:-12],
    ],
    ids=["jpeg", "smaller", "other stain", "cropped"],
)
def test_a_changed_copy_is_found(change):
    assert found([*UNRELATED, np.ascontiguousarray(change(UNRELATED[5]))]) == [(5, 8, "same", "")]


def test_overlapping_fields_are_found_and_their_similarity_is_the_overlap():
    wide = field(100, width=960, count=110)
    images = [*UNRELATED, wide[:, :640], wide[:, 224:864]]  # they share 416 of 640 columns, 65 %
    pairs = find_similar([fingerprint(np.ascontiguousarray(image)) for image in images])
    assert [(pair.first, pair.second, pair.how) for pair in pairs] == [(8, 9, "overlap")]
    assert pairs[0].similarity == pytest.approx(0.65, abs=0.15)


def test_one_cell_in_the_middle_of_every_image_does_not_make_them_copies():
    random = np.random.default_rng(3)
    images = []
    for seed in range(30):
        mask = np.zeros((120, 120), np.uint8)
        centre = tuple(int(value) for value in 60 + random.integers(-6, 7, 2))
        cv2.circle(mask, centre, int(random.integers(22, 34)), 255, -1)
        for x, y in random.integers(0, 120, (5, 2)):  # its neighbours
            cv2.circle(mask, (int(x), int(y)), 9, 255, -1)
        images.append(paint(mask, seed=seed))
    assert found(images) == []
    assert found([*images, images[4]])[:1] == [(4, 30, "same", "")]


def test_above_the_limit_only_whole_copies_are_searched_and_that_is_said(monkeypatch, caplog):
    monkeypatch.setattr("bccd_d2.audit.similar.MAX_SHIFTED_IMAGES", 5)
    wide = field(100, width=960, count=110)
    images = [*UNRELATED, UNRELATED[0], wide[:, :640], wide[:, 160:800]]
    assert found([np.ascontiguousarray(image) for image in images]) == [(0, 8, "same", "")]
    assert "only whole copies" in caplog.text
