"""Sizes come from headers, and files that were cut short are noticed without decoding them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image, read_image_size

RANDOM = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
FORMATS = ["png", "jpg", "bmp", "tif"]


def save(folder: Path, suffix: str, **options: object) -> Path:
    path = folder / f"image.{suffix}"
    Image.fromarray(RANDOM).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_size_of_every_format(tmp_path: Path, suffix: str) -> None:
    assert read_image_size(save(tmp_path, suffix)) == (40, 64)


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.98))
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str, share: float) -> None:
    whole = save(tmp_path, suffix).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=f"cut.{suffix}"):
        read_image_size(path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_bytes_after_the_end_do_no_harm(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path, suffix)
    path.write_bytes(path.read_bytes() + b"appended by a camera" * 1000)
    assert read_image_size(path) == (40, 64)


def test_empty_foreign_and_absent_files(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png: empty file"):
        read_image_size(path)
    path.write_text("no image")
    with pytest.raises(InputError, match=r"a\.png: 8 bytes of no known image format"):
        read_image(path, "RGB")
    with pytest.raises(FileNotFoundError):
        read_image_size(tmp_path / "absent.png")
