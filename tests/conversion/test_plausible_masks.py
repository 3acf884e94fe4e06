"""A conversion says so where masks cannot be those of their images; nothing becomes one huge cell without a word."""

import itertools
import logging
import unicodedata

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import label

from bccd_d2.audit.measure import examine_pair
from bccd_d2.conversion.convert import ConversionOptions, convert_dataset
from bccd_d2.conversion.dataset_spec import read_spec
from bccd_d2.conversion.pairs import find_pairs
from bccd_d2.errors import InputError
from bccd_d2.io.file_kinds import upright


def smear(seed, height=150, width=200):
    """An image and its mask: eight cells somewhere."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    for y, x in np.stack([rng.uniform(20, height - 20, 8), rng.uniform(20, width - 20, 8)], axis=1):
        mask |= np.hypot(np.arange(height)[:, None] - y, np.arange(width)[None] - x) < 12
    colour = np.where(mask[..., None], (190, 120, 150), (225, 220, 225)) + rng.normal(0, 4, (*mask.shape, 3))
    return np.clip(colour, 0, 255).astype(np.uint8), mask


def save(root, name, image, mask, orientation=1, suffix="png"):
    for folder, pixels in (("images", image), ("masks", mask * np.uint8(255))):
        (root / folder).mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = orientation if folder == "images" else 1
        kind = suffix if folder == "images" else "png"
        Image.fromarray(pixels).save(root / folder / f"{name}.{kind}", exif=exif)


def convert(root, tmp_path, **options):
    return convert_dataset(root, tmp_path / "out", **options)


def test_right_masks_are_no_matter_of_doubt(tmp_path, caplog):
    for number in range(4):
        save(tmp_path, f"{number}", *smear(number))
    with caplog.at_level(logging.WARNING):
        assert not convert(tmp_path, tmp_path).doubts
    assert "mask" not in caplog.text


@pytest.mark.parametrize("kind", ["binary", "labels"])
def test_a_white_background_is_refused_and_inverting_helps(tmp_path, kind):
    image, mask = smear(0)
    save(tmp_path, "a", image, ~mask)
    spec = read_spec("label_maps") if kind == "labels" else ConversionOptions().spec
    with pytest.raises(InputError, match=r"a\.png: the background is taken for a cell.*invert: true"):
        convert(tmp_path, tmp_path, options=ConversionOptions(spec=spec))
    save(tmp_path, "b", *smear(1))
    assert convert(tmp_path, tmp_path, skip_bad=True).instances.total() > 2


def crowded():
    """Cells that leave less than half of the image to the background, which still surrounds them."""
    mask = np.zeros((150, 200), bool)
    for x, y in itertools.product(range(-5, 210, 24), range(-5, 160, 24)):
        mask |= np.hypot(np.arange(150)[:, None] - y, np.arange(200)[None] - x) < 11
    return np.where(mask[..., None], (190, 120, 150), (225, 220, 225)).astype(np.uint8), mask


@pytest.mark.parametrize("background", [1, 200, 255])
@pytest.mark.parametrize("spec", ["kaggle", "label_maps"])
def test_a_background_with_a_number_is_refused_in_crowded_smears_too(tmp_path, background, spec):
    image, mask = crowded()
    assert (~mask).mean() < 0.5
    save(tmp_path, "a", image, mask)
    cells = label(mask) if spec == "label_maps" else 0
    Image.fromarray(np.where(mask, cells, background).astype(np.uint8)).save(tmp_path / "masks/a.png")
    with pytest.raises(InputError, match=r"a\.png: the background is taken for a cell"):
        convert(tmp_path, tmp_path, options=ConversionOptions(spec=read_spec(spec)))
    with pytest.raises(InputError, match=r"a\.png: the background is taken for a cell"):
        examine_pair(find_pairs(tmp_path)[0], read_spec(spec))


def test_cells_that_grew_together_are_a_warning_only(tmp_path, caplog):
    image, mask = smear(0)
    mask[::12] = mask[:, ::12] = True
    mask |= np.arange(200) % 12 < 7
    image[mask] = (180, 110, 140)
    save(tmp_path, "a", image, mask)
    assert convert(tmp_path, tmp_path).instances.total() == 1
    assert "one instance covers most of the image and touches all its sides (1 images)" in caplog.text
    assert "1 of 1 images have no or only one instance" in caplog.text


def test_masks_of_other_images_are_a_warning(tmp_path, caplog):
    for number in range(3):
        save(tmp_path, f"{number}", smear(number)[0], smear(number + 10)[1])
    convert(tmp_path, tmp_path)
    assert "the mask does not lie on what the image shows (Otsu's foreground) (3 images)" in caplog.text
    assert "images/0.png" in caplog.text


@pytest.mark.parametrize("orientation", [2, 3, 4])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_orientations_that_masks_do_not_share_are_counted(tmp_path, caplog, orientation, suffix):
    for number in range(2):
        image, mask = smear(number)
        save(tmp_path, f"{number}", image, mask, orientation, suffix)
    convert(tmp_path, tmp_path)
    assert (
        f"turned by its EXIF orientation {orientation}, the mask is not; it fits the image as stored"
        in caplog.text
    )
    assert "(2 images)" in caplog.text


def test_a_mask_drawn_on_the_upright_image_is_counted_too(tmp_path, caplog):
    image, mask = smear(0)
    save(tmp_path, "a", image, upright(mask, 3), 3)
    convert(tmp_path, tmp_path)
    assert "EXIF orientation 3, the mask is not (1 images)" in caplog.text


@pytest.mark.parametrize("orientation", [5, 6, 8])
def test_an_image_turned_by_a_quarter_is_said_in_words(tmp_path, orientation):
    save(tmp_path, "a", *smear(0), orientation)
    words = f"the image is turned by its EXIF orientation {orientation}, the mask is not"
    with pytest.raises(InputError, match=words):
        convert(tmp_path, tmp_path)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_mask_turned_by_a_quarter_is_said_in_words(tmp_path, orientation, suffix):
    image, mask = smear(0)
    save(tmp_path, "a", image, mask)
    (tmp_path / "masks/a.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(mask * np.uint8(255)).save(tmp_path / f"masks/a.{suffix}", exif=exif)
    with pytest.raises(
        InputError, match=f"the mask is turned by its EXIF orientation {orientation}, the image"
    ):
        convert(tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["a.ome.tif", "a.OME.TIF", "a.ome.tiff"])
def test_ome_is_part_of_the_extension(tmp_path, name):
    image, mask = smear(0)
    save(tmp_path, "a", image, mask)
    (tmp_path / "masks/a.png").unlink()
    tifffile.imwrite(tmp_path / "masks" / name, mask * np.uint8(255))
    assert convert(tmp_path, tmp_path).instances.total() > 2


def test_what_systems_leave_in_folders_is_passed_by(tmp_path, caplog):
    save(tmp_path, "a", *smear(0))
    for name in ("images/._a.png", "images/.hidden.png", "masks/Thumbs.db", "masks/._a.png", "images/x.webp"):
        (tmp_path / name).write_bytes(b"none of ours")
    save(tmp_path / "__MACOSX", "._a", *smear(0))
    assert convert(tmp_path, tmp_path).images.total() == 1
    assert "1 files passed by: .webp 1" in caplog.text


def test_composed_and_decomposed_names_are_equal(tmp_path):
    save(tmp_path, "a", *smear(0))
    for folder, form in (("images", "NFC"), ("masks", "NFD")):
        (tmp_path / folder / "a.png").rename(tmp_path / folder / unicodedata.normalize(form, "Müller_é.png"))
    assert convert(tmp_path, tmp_path).images.total() == 1


def test_case_of_an_inverting_lookup_table(cases, tmp_path):
    summary = convert(cases / "imagej_inverted_lut_mask", tmp_path)
    assert summary.instances.total() == 13


def test_case_of_exif(cases, tmp_path, caplog):
    with pytest.raises(InputError, match="turned by its EXIF orientation 6, the mask is not"):
        convert(cases / "exif_mask/c_exif6", tmp_path)
    convert(cases / "exif_mask/c_exif", tmp_path)
    assert "EXIF orientation 3, the mask is not" in caplog.text
    assert "(4 images)" in caplog.text
