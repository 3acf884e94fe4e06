"""Masks of every kind and file format are read for what they mean, or refused."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from bccd_d2.conversion.dataset_spec import read_spec
from bccd_d2.errors import InputError
from bccd_d2.io.file_kinds import upright
from bccd_d2.io.mask_colours import nearest_class
from bccd_d2.io.masks import MaskRule, read_mask
from tests.conversion.drawn import draw_mask

MASK = draw_mask() > 0


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def grey(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * 255


def save_palette(path: Path, mask: np.ndarray) -> None:
    image = Image.fromarray(np.where(mask, 0, 1).astype(np.uint8), "P")
    image.putpalette([255, 255, 255, 0, 0, 0])  # index 0 is white: the colours tell, not the indices
    image.save(path)


def save_big_endian_tiff(path: Path, mask: np.ndarray) -> None:
    tifffile.imwrite(path, mask.astype(np.uint16) * 65535, byteorder=">")


WRITERS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "1-bit.png": lambda path, mask: save(path, mask),
    "grey.png": lambda path, mask: save(path, grey(mask)),
    "zero-one.png": lambda path, mask: save(path, mask.astype(np.uint8)),
    "palette.png": save_palette,
    "rgb.png": lambda path, mask: save(path, grey(mask), "RGB"),
    "rgba.png": lambda path, mask: save(path, grey(mask), "RGBA"),
    "grey-alpha.png": lambda path, mask: save(path, grey(mask), "LA"),
    "16-bit.png": lambda path, mask: save(path, mask.astype(np.uint16) * 65535),
    "rgb.bmp": lambda path, mask: save(path, grey(mask), "RGB"),
    "1-bit.tif": lambda path, mask: save(path, mask, compression="group4"),
    "lzw.tif": lambda path, mask: save(path, grey(mask), compression="tiff_lzw"),
    "16-bit.tif": lambda path, mask: tifffile.imwrite(path, mask.astype(np.uint16) * 65535),
    "big-endian.tif": save_big_endian_tiff,
    "32-bit.tif": lambda path, mask: tifffile.imwrite(path, mask.astype(np.uint32) * 7),
    "grey-alpha.tif": lambda path, mask: save(path, grey(mask), "LA"),
    "palette.tif": save_palette,
    "64-bit.tif": lambda path, mask: tifffile.imwrite(path, mask.astype(np.int64)),
    "double.tif": lambda path, mask: tifffile.imwrite(path, mask.astype(np.float64)),
    "big.tif": lambda path, mask: tifffile.imwrite(path, grey(mask), bigtiff=True, byteorder=">"),
    "jpeg2000.tif": lambda path, mask: tifffile.imwrite(path, grey(mask), compression="jpeg2000"),
    "float.tif": lambda path, mask: tifffile.imwrite(path, mask.astype(np.float32)),
    "planar.tif": lambda path, mask: tifffile.imwrite(
        path, np.stack([grey(mask)] * 3), photometric="rgb", planarconfig="separate"
    ),
    "bool.npy": lambda path, mask: np.save(path, mask),
    "float.npy": lambda path, mask: np.save(path, mask.astype(np.float64)),
    "one-deep.npy": lambda path, mask: np.save(path, grey(mask)[None]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_binary_mask_reads_the_same_from_every_format(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, MASK)
    array = read_mask(tmp_path / name)
    assert array.dtype == np.uint8
    assert np.array_equal(array, MASK)


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_jpeg_mask_wants_a_threshold(tmp_path: Path, quality: int) -> None:
    path = save(tmp_path / "m.jpg", grey(MASK), quality=quality)
    with pytest.raises(InputError, match=r"m\.jpg: a mask of \d+ values .* expected 0 and one other"):
        read_mask(path)
    read = read_mask(path, read_spec("jpeg_masks").mask)
    outline = cv2.dilate(grey(MASK), np.ones((3, 3))) != cv2.erode(grey(MASK), np.ones((3, 3)))
    assert np.array_equal(read[~outline], MASK[~outline])


def test_alpha_and_single_channels(tmp_path: Path) -> None:
    black = np.zeros((*MASK.shape, 4), np.uint8)
    black[..., 3] = grey(MASK)
    path = save(tmp_path / "m.png", black)
    with pytest.raises(InputError, match="only the alpha channel varies"):
        read_mask(path)
    assert np.array_equal(read_mask(path, MaskRule(channel="alpha")), MASK)
    with pytest.raises(InputError, match="3 channels, expected one named 'alpha'"):
        read_mask(save(tmp_path / "rgb.png", black[..., :3]), MaskRule(channel="alpha"))


def test_palette_indices_are_classes(tmp_path: Path) -> None:
    indices = np.zeros((30, 40), np.uint8)
    indices[5:15, 5:15], indices[5:15, 20:30], indices[20:25, 5:10] = 1, 2, 3
    image = Image.fromarray(indices, "P")
    image.putpalette([0, 0, 0, 10, 20, 30, 10, 20, 30, 99, 0, 0])
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", read_spec("palette").mask), indices)


def test_cytoplasm_and_nucleus_are_one_class(tmp_path: Path) -> None:
    values = np.zeros((60, 60), np.uint8)
    cv2.circle(values, (30, 30), 20, 128, -1)
    cv2.circle(values, (30, 30), 8, 255, -1)
    rule = read_spec("wbc_grey").mask
    assert rule.class_names == ["WBC"]
    assert np.array_equal(read_mask(save(tmp_path / "m.png", values), rule), values > 0)
    compressed = read_mask(save(tmp_path / "m.jpg", values, quality=90), rule)
    assert np.count_nonzero(compressed != (values > 0)) < 0.03 * values.size


def smooth_circles(size: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """An anti-aliased drawing of a red and a green cell that touch and a white one, and its exact classes."""
    big = Image.new("RGB", (8 * size, 8 * size))
    draw = ImageDraw.Draw(big)
    for colour, (x, y) in (("#ff0000", (25, 30)), ("#00ff00", (64, 30)), ("#ffffff", (60, 85))):
        draw.ellipse([8 * (x - 20), 8 * (y - 20), 8 * (x + 20), 8 * (y + 20)], fill=colour)
    exact = np.asarray(big)[4::8, 4::8]
    classes = np.select([exact[..., 2] > 0, exact[..., 0] > 0, exact[..., 1] > 0], [3, 1, 2], 0)
    return np.asarray(big.resize((size, size), Image.Resampling.BOX)), classes


def test_anti_aliased_edges_grow_no_rims(tmp_path: Path) -> None:
    drawing, exact = smooth_circles()
    colours = {(0, 0, 0): "background", (255, 0, 0): "RBC", (0, 255, 0): "WBC", (255, 255, 255): "Platelets"}
    # grey and olive lie half-way between the others: what a plain nearest colour would paint around every cell
    colours |= {(128, 128, 128): "dust", (128, 128, 0): "stain"}
    rule = MaskRule(kind="classes", colours=tuple(colours.items()), tolerance=8, max_unlisted=0.1)
    classes = read_mask(save(tmp_path / "m.png", drawing), rule)
    distance = [(drawing.astype(int) - colour) ** 2 for colour in colours]
    plain = np.sum(distance, axis=-1).argmin(axis=0)
    assert np.count_nonzero(plain > 3) > 50
    assert np.count_nonzero(classes > 3) <= 12  # two pixels beside each other may hit grey by chance
    wrong = classes != exact
    assert np.count_nonzero(wrong) < 0.02 * wrong.size


def test_other_colours_than_those_listed_are_refused(tmp_path: Path) -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:10] = (12, 200, 33)
    with pytest.raises(InputError, match=r"200 of 400 pixels have other values .* most often 12, 200, 33"):
        read_mask(save(tmp_path / "m.png", pixels), read_spec("rgb_classes").mask)
    with pytest.raises(InputError, match="most often 9"):
        read_mask(save(tmp_path / "g.png", np.full((4, 4), 9, np.uint8)), read_spec("palette").mask)


LEVELS = st.sampled_from([0, 100, 255])


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.uint8, (6, 7, 3), elements=LEVELS),
    st.lists(st.tuples(LEVELS, LEVELS, LEVELS), min_size=1, max_size=27, unique=True),
)
def test_exact_colours_keep_their_class_and_others_get_a_known_one(
    pixels: np.ndarray, listed: list[tuple[int, int, int]]
) -> None:
    meaning = np.arange(5, 5 + len(listed), dtype=np.uint8)
    colours = [tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()]
    classes, unlisted, commonest = nearest_class(pixels, np.array(listed), meaning, 0)
    outside = [colour for colour in colours if colour not in listed]
    assert unlisted == len(outside)
    assert set(np.unique(classes)) <= set(meaning)
    if outside:
        value = tuple(map(int, commonest.split(", ")))
        assert outside.count(value) == max(map(outside.count, outside))
    else:
        assert [listed[kind - 5] for kind in classes.ravel()] == colours


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("m.png", np.uint8),
        ("m.png", np.uint16),
        ("m.tif", np.uint16),
        ("m.tif", np.uint32),
        ("m.tif", np.int32),
    ]
    + [("m.npy", dtype) for dtype in (np.uint8, np.int64, np.float32)],
)
def test_label_maps_keep_every_value(tmp_path: Path, name: str, dtype: type) -> None:
    labels = np.zeros((30, 40), dtype)
    labels[2:10, 2:10], labels[2:10, 10:20], labels[20:25, 5:9] = 1, 2, 200
    if dtype not in (np.uint8,):
        labels[28:, :] = 40000
    if name.endswith("npy"):
        np.save(tmp_path / name, labels)
    elif name.endswith("tif"):
        tifffile.imwrite(tmp_path / name, labels, compression="zlib")
    else:
        Image.fromarray(labels).save(tmp_path / name)
    assert np.array_equal(read_mask(tmp_path / name, read_spec("label_maps").mask), labels)


def test_arrays_that_are_no_masks(tmp_path: Path) -> None:
    path = tmp_path / "m.npy"
    np.save(path, np.array([{"masks": 1}], dtype=object))
    with pytest.raises(InputError, match="not a plain NumPy array"):
        read_mask(path)
    np.save(path, np.zeros((4, 5, 6)))
    with pytest.raises(InputError, match=r"shape \(4, 5, 6\), expected \(height, width\)"):
        read_mask(path)
    np.save(path, np.full((4, 4), 0.5))
    with pytest.raises(InputError, match="label map of fractions"):
        read_mask(path, MaskRule(kind="instances"))
    np.save(path, np.full((4, 4), -1))
    with pytest.raises(InputError, match="label -1"):
        read_mask(path, MaskRule(kind="instances"))
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((5, 9, 9), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="a stack of shape"):
        read_mask(tmp_path / "m.tif")


def test_all_cells_is_taken_for_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every pixel is a cell"):
        read_mask(save(tmp_path / "m.png", np.full((9, 9), 255, np.uint8)))
    assert not read_mask(save(tmp_path / "e.png", np.zeros((9, 9), np.uint8))).any()


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "classes"},
        {"kind": "classes", "values": ((0, "background"), (1, "a")), "colours": (((0, 0, 0), "background"),)},
        {"kind": "classes", "values": ((0, "background"), (1, "a"), (1, "b"))},
        {"channel": "violet"},
    ],
)
def test_rules_that_make_no_sense_are_refused(options: dict) -> None:
    with pytest.raises(InputError):
        MaskRule(**options)


@pytest.mark.parametrize("stored", [0, 255])
def test_in_a_dense_field_the_part_around_the_cells_is_background_whatever_the_palette(tmp_path, stored):
    """Cells cover two thirds of the image; the palette falls from white to black."""
    mask = np.zeros((64, 96), np.uint8)
    for y in range(2, 60, 10):
        for x in range(2, 90, 10):
            mask[y : y + 8, x : x + 8] = 1
    assert mask.mean() > 0.5
    image = Image.fromarray(np.where(mask, stored, 255 - stored).astype(np.uint8), "P")
    image.putpalette([level for grey in range(255, -1, -1) for level in (grey, grey, grey)])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)


@pytest.mark.parametrize("orientation", [2, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_turned_tiffs_are_turned_as_their_tag_says(
    tmp_path: Path, orientation: int, compression: str | None, mode: str
) -> None:
    image = Image.fromarray(grey(MASK))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.tif", tiffinfo={274: orientation}, compression=compression)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), upright(MASK, orientation))


@pytest.mark.parametrize("palette", [[0, 0, 0, 255, 255, 255], [0, 0, 0, 1, 1, 1], [0, 0, 0, 200, 200, 200]])
def test_bmps_of_eight_bits_and_two_colours(tmp_path: Path, palette: list[int]) -> None:
    image = Image.fromarray(MASK.astype(np.uint8), "P")
    image.putpalette(palette)
    image.save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.bmp"), MASK)
