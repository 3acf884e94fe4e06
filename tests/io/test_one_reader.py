"""An image is the same picture to conversion, training and prediction, whatever file holds it."""

import sys

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from bccd_d2.data.preprocessing import read_dataset_image
from bccd_d2.errors import InputError
from bccd_d2.io.find_images import find_images
from bccd_d2.io.images import open_source, page_count, read_image, read_image_size

HEIGHT, WIDTH = 90, 120


@pytest.fixture(scope="module")
def rgb():
    """Bright with a darker disc, another level in each channel, no symmetry."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    image = np.stack([150 + x // 2, 240 - y // 2, 160 + (x + y) // 4], axis=2)
    image[np.hypot(y - 30, x - 80) < 20] -= 110
    return image.astype(np.uint8)


def read_everywhere(path):
    """The picture as RGB, read as each part reads it; all the same."""
    with open_source(path) as source:
        predicted = source.read(0, 0, source.width, source.height)
        tile = source.read(10, 20, 30, 40)
    np.testing.assert_array_equal(tile, predicted[20:60, 10:40])
    np.testing.assert_array_equal(read_image(path), predicted)
    np.testing.assert_array_equal(read_dataset_image(str(path), "RGB"), predicted[..., ::-1])
    assert read_image_size(path) == predicted.shape[:2]
    return predicted[..., ::-1]


def deep(rgb, bits, dtype=np.uint16):
    return np.rint(rgb / 255.0 * (2**bits - 1)).astype(dtype)


def jpeg2000(path, rgb):
    path.write_bytes(imagecodecs.jpeg2k_encode(rgb, level=0, reversible=True))


def jpeg2000_12(path, rgb):
    path.write_bytes(imagecodecs.jpeg2k_encode(deep(rgb, 12), level=0, reversible=True, bitspersample=12))


def tiff(dtype=np.uint8, shift=0, bits=None, **options):
    def write(path, rgb):
        pixels = rgb if bits is None else deep(rgb, bits, np.int64) + shift
        tifffile.imwrite(path, np.asarray(pixels).astype(dtype), photometric="rgb", **options)

    return write


def fraction(dtype):
    def write(path, rgb):
        tifffile.imwrite(path, (rgb / 255.0).astype(dtype), photometric="rgb")

    return write


KINDS = {
    "a.jp2": jpeg2000,
    "twelve.jp2": jpeg2000_12,
    "a.webp": lambda path, rgb: Image.fromarray(rgb).save(path, lossless=True),
    "deep.png": lambda path, rgb: cv2.imwrite(str(path), deep(rgb, 12)[..., ::-1]),
    "zstd.tif": tiff(compression="zstd", tile=(32, 32)),
    "zstd12.tif": tiff(np.uint16, bits=12, compression="zstd"),
    "big_endian.tif": tiff(bigtiff=True, byteorder=">"),
    "big_endian16.tif": tiff(np.uint16, bits=16, bigtiff=True, byteorder=">", compression="zlib"),
    "float.tif": fraction(np.float32),
    "double.tif": fraction(np.float64),
    "half.tif": fraction(np.float16),
    "levels_as_float.tif": tiff(np.float32),
    "offset.tif": tiff(np.uint16, shift=32768, bits=12),
    "signed.tif": tiff(np.int16, shift=-32768, bits=16),
    "signed12.tif": tiff(np.int16, shift=-2048, bits=12),
    "shifted.tif": tiff(np.int16, shift=-32768, bits=12),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_is_the_same_picture_to_every_part(tmp_path, rgb, name):
    KINDS[name](tmp_path / name, rgb)
    found = read_everywhere(tmp_path / name)
    assert np.abs(found.astype(int) - rgb).max() <= 1


@pytest.mark.parametrize("writer", [cv2.imwrite, tifffile.imwrite])
def test_hot_pixels_change_nothing_but_themselves(tmp_path, rgb, writer):
    clean, hot = tmp_path / "clean" / "a.tif", tmp_path / "hot" / "a.tif"
    pixels = deep(rgb, 12)
    for path in (clean, hot):
        path.parent.mkdir()
        path = path.with_suffix(".png") if writer is cv2.imwrite else path
        writer(str(path), pixels)
        pixels = pixels.copy()
        pixels[3, 5] = pixels[60, 70] = 65535
    suffix = ".png" if writer is cv2.imwrite else ".tif"
    a, b = (read_everywhere(path.with_suffix(suffix)) for path in (clean, hot))
    changed = (a != b).any(axis=2)
    assert changed.sum() == 2
    assert changed[3, 5] and changed[60, 70]


def test_images_of_a_folder_have_one_full_scale(tmp_path, rgb):
    for name, brightest in (("a", 16000), ("b", 17000)):
        tifffile.imwrite(
            tmp_path / f"{name}.tif", (rgb / 255 * brightest).astype(np.uint16), photometric="rgb"
        )
    a, b = (read_everywhere(tmp_path / f"{name}.tif").astype(int) for name in "ab")
    assert a.mean() / b.mean() == pytest.approx(16 / 17, abs=0.01)
    tifffile.imwrite(tmp_path / "twelve.tif", deep(rgb, 12), photometric="rgb")
    assert np.abs(read_everywhere(tmp_path / "twelve.tif").astype(int) - rgb).max() <= 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.ome.tif", {"metadata": {"axes": "CYX"}, "photometric": "minisblack"}),
        ("b.ome.tif", {"metadata": {"axes": "CYX"}, "photometric": "minisblack", "tile": (32, 48)}),
        ("ij.tif", {"imagej": True, "metadata": {"axes": "CYX", "mode": "composite"}}),
        (
            "deflated.ome.tif",
            {"metadata": {"axes": "CYX"}, "photometric": "minisblack", "compression": "zlib"},
        ),
    ],
)
@pytest.mark.parametrize("bits", [8, 12])
def test_three_channels_in_pages_of_their_own_are_one_colour_picture(tmp_path, rgb, name, options, bits):
    planes = (rgb if bits == 8 else deep(rgb, bits)).transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / name, np.ascontiguousarray(planes), **options)
    assert page_count(tmp_path / name) == 1
    assert np.abs(read_everywhere(tmp_path / name).astype(int) - rgb).max() <= (bits > 8)


@pytest.mark.parametrize("axes", ["ZCYX", "TCYX", "CZYX"])
def test_depths_and_times_stay_pages_of_colour(tmp_path, rgb, axes):
    stack = np.stack([rgb, 255 - rgb]).transpose(0, 3, 1, 2)
    if axes[0] == "C":
        stack = stack.swapaxes(0, 1)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.ascontiguousarray(stack), photometric="minisblack", metadata={"axes": axes})
    assert page_count(path) == 2
    for page, expected in enumerate((rgb, 255 - rgb)):
        with open_source(path, page=page) as source:
            np.testing.assert_array_equal(source.read(0, 0, WIDTH, HEIGHT)[..., ::-1], expected)


@pytest.mark.parametrize(
    "options", [{}, {"planarconfig": "separate"}, {"tile": (32, 32), "compression": "lzw"}]
)
def test_three_samples_that_no_tag_calls_colour_are_colour(tmp_path, rgb, options):
    stored = rgb.transpose(2, 0, 1) if "planarconfig" in options else rgb
    options = {"planarconfig": "contig", **options}
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(stored), photometric="minisblack", **options)
    np.testing.assert_array_equal(read_everywhere(tmp_path / "a.tif"), rgb)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((HEIGHT, WIDTH, 5), {"photometric": "minisblack", "planarconfig": "contig"}),
        ((HEIGHT, WIDTH, 2), {"photometric": "minisblack", "planarconfig": "contig"}),
        ((4, HEIGHT, WIDTH), {"imagej": True, "metadata": {"axes": "CYX"}}),
        ((2, HEIGHT, WIDTH), {"imagej": True, "metadata": {"axes": "CYX"}}),
    ],
)
def test_other_numbers_of_channels_are_refused_with_a_way_out(tmp_path, shape, options):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8), **options)
    number = next(side for side in shape if side < 9)
    for read in (read_image, open_source):
        with pytest.raises(InputError, match=rf"a\.tif: {number} channels .*Image > Type > RGB Color"):
            read(tmp_path / "a.tif")


def test_one_channel_of_transparency_is_no_channel_of_colour(tmp_path, rgb):
    grey = np.stack([rgb[..., 0], np.full((HEIGHT, WIDTH), 77, np.uint8)], axis=2)
    tifffile.imwrite(
        tmp_path / "a.tif", grey, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]
    )
    np.testing.assert_array_equal(read_everywhere(tmp_path / "a.tif"), np.repeat(grey[..., :1], 3, axis=2))


@pytest.mark.parametrize("name", ["low.png", "low.tif", "low16.tif", "low_tiles.tif"])
def test_levels_in_a_sliver_of_the_range_are_said(tmp_path, rgb, name, caplog):
    sliver = 100 + rgb // 32
    options = {"tile": (32, 32)} if "tiles" in name else {}
    if name.endswith("png"):
        Image.fromarray(sliver).save(tmp_path / name)
    else:
        dtype = np.uint16 if "16" in name else np.uint8
        tifffile.imwrite(tmp_path / name, sliver.astype(dtype), photometric="rgb", **options)
    read_everywhere(tmp_path / name)
    (message,) = {record.getMessage() for record in caplog.records}
    assert message.startswith(str(tmp_path / name))
    assert "in a range of 0 to 255" in message


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (32, 32)}])
def test_ycbcr_that_no_jpeg_decoder_turns_is_turned_here(tmp_path, rgb, options):
    stored = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    tags = [(530, 3, 2, (1, 1), True)]
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extratags=tags, **options)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[0].tags["PhotometricInterpretation"].overwrite(6)
    assert np.abs(read_everywhere(tmp_path / "a.tif").astype(int) - rgb).max() <= 3


def test_ycbcr_with_fewer_samples_of_colour_is_refused(tmp_path, rgb):
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")  # no tag says 2x2, as TIFF has it
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[0].tags["PhotometricInterpretation"].overwrite(6)
    with pytest.raises(InputError, match=r"a\.tif: YCbCr with fewer samples of colour.*RGB Color"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_frames_that_are_not_taken_are_said(tmp_path, rgb, name, caplog):
    frames = [Image.fromarray(image) for image in (rgb, 255 - rgb, rgb)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    read_image(tmp_path / name)
    assert f"{name}: 3 frames, of which the first is taken" in caplog.text


@pytest.mark.parametrize("more", [1, 2, 3])
def test_channels_behind_rgb_are_said(tmp_path, rgb, more, caplog):
    stored = np.dstack([rgb, *[rgb[..., :1]] * more])
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["unspecified"] * more)
    np.testing.assert_array_equal(read_everywhere(tmp_path / "a.tif"), rgb)
    assert f"{3 + more} channels (RGB), of which the first 3 are taken" in caplog.text


SIGNATURES = {
    "a.nd2": (b"\xda\xce\xbe\x0a", "Nikon ND2"),
    "b.bin": (b"\xda\xce\xbe\x0a", "Nikon ND2"),
    "c.nd2": (b"what old ND2 files begin with", "Nikon ND2"),
    "a.lif": (b"\x70\0\0\0", "Leica LIF"),
    "a.czi": (b"ZISRAWFILE", "Zeiss CZI"),
    "b.czi": (b"", "Zeiss CZI"),
    "renamed.tif": (b"ZISRAWFILE", "Zeiss CZI"),
    "a.dcm": (bytes(128) + b"DICM", "DICOM"),
    "a.dicom": (b"", "DICOM"),
    "a.vsi": (b"II*\0", "Olympus VSI"),
    "a.oib": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Olympus OIB"),
    "a.zvi": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Zeiss ZVI"),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_formats_of_microscopes_are_named_with_the_way_out(tmp_path, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)  # which would read DICOM
    start, kind = SIGNATURES[name]
    (tmp_path / name).write_bytes(start + bytes(600))
    for read in (read_image, read_image_size, open_source):
        with pytest.raises(InputError, match=f"{name}: an? {kind} file.*OME-TIFF"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "name",
    [
        "ome_rgb_as_channels/ref.png",
        "ome_rgb_as_channels/ome_cyx.ome.tif",
        "ome_rgb_as_channels/ij_composite.tif",
        "multichannel_first_only/three_ch_minisblack.tif",
    ],
)
def test_cases_of_laboratories_are_the_picture_that_they_show(cases, name):
    assert page_count(cases / name) == 1
    np.testing.assert_array_equal(
        read_everywhere(cases / name), np.asarray(Image.open(cases / "ome_rgb_as_channels/ref.png"))
    )


def test_a_case_of_five_channels_is_refused(cases):
    with pytest.raises(InputError, match=r"five_ch\.tif: 5 channels"):
        read_image(cases / "multichannel_first_only/five_ch.tif")


def test_a_case_of_a_folder_of_other_formats(cases, caplog):
    folder = cases / "folder_passes_by_files"
    assert [name for _, name in find_images([folder])] == ["ref.png"]
    assert "6 files passed by: .dcm 1, .gif 1, .jp2 1, .lif 1, .nd2 1, .webp 1" in caplog.text
    for name, kind in (("nikon.nd2", "Nikon ND2"), ("scan.dcm", "DICOM"), ("leica.lif", "Leica LIF")):
        with pytest.raises(InputError, match=f"a {kind} file"):
            read_image(folder / name)
