import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from bccd_d2.errors import InputError
from bccd_d2.io import tiff_source
from bccd_d2.io.images import open_source, page_count, read_image_size

HEIGHT, WIDTH = 70, 110


@pytest.fixture(scope="module")
def rgb():
    """Smooth, so that JPEG keeps it, with another gradient in each channel and no symmetry."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([40 + x, 220 - 2 * y, 30 + x + y], axis=2).astype(np.uint8)


def read(path, **options):
    """The whole image as RGB, and a region of it, which must be the same."""
    with open_source(path, **options) as source:
        whole = source.read(0, 0, source.width, source.height)
        assert whole.dtype == np.uint8
        assert whole.shape == (source.height, source.width, 3)
        x, y, width, height = 13, 7, source.width - 30, source.height - 25
        region = source.read(x, y, width, height)
        assert np.array_equal(region, whole[y : y + height, x : x + width])
        return whole[..., ::-1]


def save(path, image, **options):
    Image.fromarray(image).save(path, **options)
    return path


TIFF_LAYOUTS = {
    "one strip": {},
    "strips": {"rowsperstrip": 16, "compression": "zlib", "predictor": True},
    "lzw": {"rowsperstrip": 7, "compression": "lzw"},
    "tiles": {"tile": (32, 16), "compression": "zlib"},
    "raw tiles": {"tile": (32, 48)},
    "big": {"bigtiff": True, "byteorder": ">", "rowsperstrip": 11},
    "planes": {"planarconfig": "separate"},
    "tiled planes": {"planarconfig": "separate", "tile": (16, 16), "compression": "zlib"},
}


@pytest.mark.parametrize("layout", TIFF_LAYOUTS, ids=str)
def test_tiff_layouts(tmp_path, rgb, layout):
    options = TIFF_LAYOUTS[layout]
    stored = rgb.transpose(2, 0, 1) if "planarconfig" in options else rgb
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    assert np.array_equal(read(tmp_path / "a.tif"), rgb)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_size_of_every_format_and_bytes_after_its_end(tmp_path, rgb, suffix):
    path = save(tmp_path / f"a.{suffix}", rgb)
    path.write_bytes(path.read_bytes() + b"appended by a camera" * 1000)
    assert read_image_size(path) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_orientation_as_pillow_shows_it(tmp_path, rgb, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    if suffix == "jpg":
        Image.fromarray(rgb).save(path, exif=exif, quality=100, subsampling=0)
    else:
        tifffile.imwrite(
            path, rgb, photometric="rgb", rowsperstrip=9, extratags=[(274, 3, 1, orientation, True)]
        )
    turned = Image.fromarray(rgb)
    turned.info["exif"] = exif.tobytes()
    turned.getexif()[0x0112] = orientation
    from PIL import ImageOps

    expected = np.asarray(ImageOps.exif_transpose(turned))
    assert np.abs(read(path).astype(int) - expected).max() <= (6 if suffix == "jpg" else 0)


def test_grey_alpha_palette_and_ink(tmp_path, rgb):
    grey = rgb[..., 0]
    three = np.repeat(grey[..., None], 3, axis=2)
    alpha = np.dstack([rgb, np.full((HEIGHT, WIDTH), 77, np.uint8)])
    palette = Image.fromarray(rgb).quantize(64)
    shown = np.asarray(palette.convert("RGB"))
    for suffix in ("png", "tif"):
        assert np.array_equal(read(save(tmp_path / f"grey.{suffix}", grey)), three)
        assert np.array_equal(read(save(tmp_path / f"alpha.{suffix}", alpha)), rgb)
        palette.save(tmp_path / f"palette.{suffix}")
        assert np.array_equal(read(tmp_path / f"palette.{suffix}"), shown)
    tifffile.imwrite(tmp_path / "white.tif", 255 - grey, photometric="miniswhite")
    assert np.array_equal(read(tmp_path / "white.tif"), three)
    Image.fromarray(grey > 90).save(tmp_path / "bits.tif", compression="group4")
    assert np.array_equal(read(tmp_path / "bits.tif"), np.where(three > 90, 255, 0))
    ink = Image.fromarray(rgb).convert("CMYK")
    ink.save(tmp_path / "ink.tif")
    assert np.array_equal(read(tmp_path / "ink.tif"), rgb)
    ink.save(tmp_path / "ink.jpg", quality=100, subsampling=0)
    assert np.abs(read(tmp_path / "ink.jpg").astype(int) - rgb).max() <= 6


def test_pages_without_the_levels_of_a_pyramid(tmp_path, rgb):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in (rgb, 255 - rgb):
            writer.write(page, photometric="rgb", tile=(32, 32), subifds=1)
            writer.write(page[::2, ::2], photometric="rgb", tile=(32, 32), subfiletype=1)
    assert page_count(path) == 2
    assert np.array_equal(read(path), rgb)
    assert np.array_equal(read(path, page=1), 255 - rgb)
    with pytest.raises(InputError, match="page 2 does not exist, found pages 0 to 1"):
        open_source(path, page=2)
    flat = tmp_path / "flat.tif"
    with tifffile.TiffWriter(flat) as writer:
        writer.write(rgb, photometric="rgb")
        writer.write(rgb[::2, ::2], photometric="rgb", subfiletype=1)
    assert page_count(flat) == 1
    png = save(tmp_path / "a.png", rgb)
    assert page_count(png) == 1
    with pytest.raises(InputError, match="page 1 does not exist, found one image"):
        open_source(png, page=1)


def test_only_what_a_region_needs_is_decoded(tmp_path, rgb, monkeypatch):
    path = tmp_path / "a.tif"
    big = np.tile(rgb, (6, 6, 1))
    tifffile.imwrite(path, big, photometric="rgb", tile=(64, 64), compression="zlib")
    with open_source(path) as source:
        assert np.array_equal(source.read(70, 70, 50, 50)[..., ::-1], big[70:120, 70:120])
        assert len(source._cache) == 1
        monkeypatch.setattr(tiff_source, "_CACHE_BYTES", 5 * 64 * 64 * 3)
        source.read(0, 0, 660, 420)
        assert len(source._cache) <= 5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resolution": (40_000, 40_000), "resolutionunit": "centimeter"}, 0.25),
        ({"resolution": (50_800, 50_800), "resolutionunit": "inch"}, 0.5),
        ({"resolution": (4, 4), "imagej": True, "metadata": {"unit": "um"}}, 0.25),
        ({"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 125, "PhysicalSizeXUnit": "nm"}}, 0.125),
        ({"resolution": (72, 72), "resolutionunit": "inch"}, None),
        ({}, None),
    ],
)
def test_microns_of_a_pixel(tmp_path, rgb, options, expected):
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", **options)
    with open_source(tmp_path / "a.tif") as source:
        assert source.microns_per_pixel == (None if expected is None else pytest.approx(expected))


def png_that_claims(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_decompression_bombs_are_refused_by_their_header(tmp_path, rgb):
    (tmp_path / "a.png").write_bytes(png_that_claims(60_000, 60_000))
    with pytest.raises(InputError, match=r"a\.png: 60000x60000 pixels by its header, more than the limit"):
        open_source(tmp_path / "a.png")
    small = save(tmp_path / "b.png", rgb)
    with pytest.raises(InputError, match="raise the limit"):
        open_source(small, max_pixels=HEIGHT * WIDTH - 1)
    assert np.array_equal(read(small, max_pixels=HEIGHT * WIDTH), rgb)
    strip = tmp_path / "strip.tif"
    tifffile.imwrite(strip, rgb, photometric="rgb", rowsperstrip=HEIGHT, compression="zlib")
    with pytest.raises(InputError, match="a piece of 110x70 pixels must be decoded at once"):
        open_source(strip, max_pixels=1000)
    tifffile.imwrite(strip, rgb, photometric="rgb", rowsperstrip=8, compression="zlib")
    assert np.array_equal(read(strip, max_pixels=1000), rgb)


def broken_files(rgb):
    for suffix, options in (("png", {}), ("jpg", {}), ("bmp", {}), ("tif", {"compression": "tiff_lzw"})):
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(
            buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), **options
        )
        data = buffer.getvalue()
        yield f"cut.{suffix}", data[: len(data) * 2 // 3]
        yield f"empty.{suffix}", b""
        yield f"text.{suffix}", b"no image at all, " * 20
        yield f"start.{suffix}", data[:6]


def test_what_is_no_whole_image_is_an_error_that_names_the_file(tmp_path, rgb):
    for name, content in broken_files(rgb):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            open_source(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "nowhere.png")


def test_a_tiff_with_broken_tiles_is_an_error_when_they_are_read(tmp_path, rgb):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgb, photometric="rgb", tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[-1]
    content = bytearray(path.read_bytes())
    content[offset : offset + 20] = b"\xff" * 20
    path.write_bytes(content)
    with open_source(path) as source:
        source.read(0, 0, 32, 32)
        with pytest.raises(InputError, match=r"a\.tif"):
            source.read(0, 0, WIDTH, HEIGHT)


APERIO = "Aperio Image Library v11.2.1 \r\n110x70 [0,0 110x70] (32x32) JPEG/RGB Q=95|AppMag = 40|MPP = 0.2500"


@pytest.fixture
def slide(tmp_path, rgb):
    path = tmp_path / "a.svs"
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            rgb, photometric="rgb", tile=(32, 32), compression="jpeg", compressionargs={"level": 95},
            description=APERIO, metadata=None,
        )  # fmt: skip
        writer.write(rgb[::4, ::4], photometric="rgb", description=APERIO, metadata=None)
    return path


def test_a_whole_slide_is_read_by_openslide(slide, rgb):
    pytest.importorskip("openslide", reason="extra 'slides' is not installed")
    with open_source(slide) as source:
        assert (source.height, source.width) == (HEIGHT, WIDTH)
        assert source.microns_per_pixel == pytest.approx(0.25)
        assert source.read(5, 6, 7, 8).shape == (8, 7, 3)
    assert np.abs(read(slide).astype(int) - rgb).mean() < 4
    assert page_count(slide) == 1


def test_without_openslide(slide, rgb, monkeypatch, tmp_path):
    monkeypatch.setattr("bccd_d2.io.slide_source.openslide_module", lambda: None)
    assert np.abs(read(slide).astype(int) - rgb).mean() < 4
    assert page_count(slide) == 1
    (tmp_path / "a.mrxs").write_bytes(b"whatever this is")
    with pytest.raises(
        InputError, match=r"a\.mrxs: a whole slide needs OpenSlide: pip install 'bccd_d2\[slides\]'"
    ):
        open_source(tmp_path / "a.mrxs")
