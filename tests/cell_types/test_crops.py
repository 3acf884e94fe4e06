"""Crops of typed cells: where they are cut, how they are read, split and varied."""

import cv2
import numpy as np
import pytest

from bccd_d2.cell_types.crops import (
    MARGIN,
    CropAugmentation,
    TypeCrops,
    cut_crop,
    read_type_folders,
    read_type_points,
    split_by_image,
)
from bccd_d2.errors import InputError
from bccd_d2.io.sources import ArraySource


def test_a_crop_has_the_point_in_its_middle():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:14, 30:34] = 200
    crop = cut_crop(ArraySource(image), 32, 12, 16, 16)
    assert np.array_equal(crop, image[4:20, 24:40])
    half = cut_crop(ArraySource(image), 32, 12, 16, 8)
    assert half.shape == (8, 8, 3)
    assert (half[3:5, 3:5] == 200).all()


def test_what_lies_outside_the_image_is_mirrored():
    image = np.arange(25, dtype=np.uint8).reshape(5, 5, 1).repeat(3, axis=2)
    crop = cut_crop(ArraySource(image), 0, 5, 4, 4)[..., 0]
    assert crop.tolist() == [[16, 15, 15, 16], [21, 20, 20, 21], [21, 20, 20, 21], [16, 15, 15, 16]]
    assert cut_crop(ArraySource(image), 2.5, 2.5, 40, 40).shape == (40, 40, 3)


def test_points_become_crops_of_their_types(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    image = np.zeros((50, 50, 3), np.uint8)
    image[20, 30] = 255
    cv2.imwrite(str(tmp_path / "images" / "1.png"), image)
    table = tmp_path / "labels" / "1.txt"
    table.write_text("30 20 7\n5 5 0\n9 9 10\n")
    types = {"0": "normal", "7": "teardrop", "10": None}
    crops = read_type_points(tmp_path, types, side=10, size=10)
    assert crops.pixels.shape == (2, round(10 * MARGIN), round(10 * MARGIN), 3)
    assert crops.labels.tolist() == [1, 0]
    assert crops.images.tolist() == ["1.png", "1.png"]
    brightest = np.argwhere(crops.pixels[0, ..., 0] == 255)
    assert len(brightest) == 1
    assert abs(brightest[0] - 7).max() <= 1
    assert "1 cells of type 10 are left out" in caplog.text
    table.write_text("30 20 7\n5 5 99\n")
    with pytest.raises(InputError, match=r"1\.txt, line 2: expected 'x y type' with a type of 0, 7, 10"):
        read_type_points(tmp_path, types, side=10, size=10)
    table.write_bytes("\ufeff30 20 7\n".encode())
    assert read_type_points(tmp_path, types, side=10, size=10).labels.tolist() == [1]
    table.write_bytes(b"30 20 7 \xe9\n")
    with pytest.raises(InputError, match=r"1\.txt: not UTF-8"):
        read_type_points(tmp_path, types, side=10, size=10)


def test_an_empty_folder_of_a_type_is_named(tmp_path):
    (tmp_path / "EO").mkdir()
    with pytest.raises(InputError, match="EO: expected images of eosinophil, found none"):
        read_type_folders(tmp_path, {"EO": "eosinophil"}, 10, 10)


def test_no_image_is_in_both_parts_and_rare_types_are_shared_out():
    generator = np.random.default_rng(0)
    images = np.array([f"{index:02}" for index in range(40) for _ in range(20)])
    labels = generator.choice(3, len(images), p=[0.8, 0.15, 0.05])
    crops = TypeCrops(np.zeros((len(images), 2, 2, 3), np.uint8), labels, images, np.zeros((len(images), 2)))
    chosen = split_by_image(crops, 0.2, seed=1)
    assert not set(images[chosen]) & set(images[~chosen])
    shares = np.bincount(labels[chosen], minlength=3) / np.bincount(labels)
    assert (abs(shares - 0.2) < 0.08).all()
    assert np.array_equal(chosen, split_by_image(crops, 0.2, seed=1))
    assert not np.array_equal(chosen, split_by_image(crops, 0.2, seed=2))


def test_augmentation_varies_colour_and_place_and_repeats_with_its_seed():
    crop = np.full((48, 48, 3), 230, np.uint8)
    cv2.circle(crop, (24, 24), 9, (120, 60, 130), -1)
    views = [view for seed in (0, 0, 1) for view in [CropAugmentation(32, scale=0.1, seed=seed)(crop)]]
    assert all(view.shape == (32, 32, 3) and view.dtype == np.uint8 for view in views)
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])
