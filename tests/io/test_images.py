"""Sizes come from headers, and files that were cut short are noticed without decoding them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bccd_d2.io.images import read_image_size

RANDOM = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
FORMATS = ["png", "jpg", "bmp", "tif"]


def save(folder: Path, suffix: str, **options: object) -> Path:
    path = folder / f"image.{suffix}"
    Image.fromarray(RANDOM).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_size_of_every_format(tmp_path: Path, suffix: str) -> None:
    assert read_image_size(save(tmp_path, suffix)) == (40, 64)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_bytes_after_the_end_do_no_harm(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path, suffix)
    path.write_bytes(path.read_bytes() + b"appended by a camera" * 1000)
    assert read_image_size(path) == (40, 64)
