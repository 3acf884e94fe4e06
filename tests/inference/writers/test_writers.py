"""Each format is read back by a library made for it, and gives the same pixels and values."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import roifile
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools.coco import COCO

from bccd_d2.cell_types.typer import CellTypes
from bccd_d2.conversion.importers.outlines import read_outlines
from bccd_d2.drawing.overlay import CLASS_COLORS
from bccd_d2.errors import InputError
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers import DEFAULT_FORMATS, FORMATS, format_files, parse_formats, write_formats
from bccd_d2.inference.writers.colours import typed_classes
from bccd_d2.inference.writers.images import instance_colors, overview
from bccd_d2.io.sources import ArraySource
from bccd_d2.structures.cells import Cells
from tests.inference.drawn_cells import ring_and_friends


@pytest.fixture(scope="module")
def result():
    return ring_and_friends(microns=0.25)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    written = write_formats(result, folder, FORMATS)
    assert [path.relative_to(folder).as_posix() for path in written] == format_files(result.name, FORMATS)
    return folder


def one_mask(mask, window=None):
    height, width = window or mask.shape
    image = np.zeros((height, width, 3), np.uint8)
    return ImageResult("a.png", ArraySource(image), Cells.from_masks(height, width, [mask]), ["cell"])


def pixels_inside(geometry, height, width):
    """The pixels whose middle lies in a geometry that runs along their edges."""
    y, x = np.mgrid[:height, :width] + 0.5
    return shapely.contains_xy(geometry, x, y)


def test_label_image(folder, result):
    with tifffile.TiffFile(folder / "labels" / f"{result.name}.tif") as file:
        labels = file.asarray()
        assert labels.dtype == np.uint16
        numerator, denominator = file.pages[0].tags["XResolution"].value
        # 0.25 microns a pixel are 40,000 pixels a centimetre.
        assert numerator / denominator == pytest.approx(40_000)
        assert file.pages[0].tags["ResolutionUnit"].value == 3
    np.testing.assert_array_equal(labels, result.cells.label_image())
    assert labels[76, 101] == 4  # the better one is on top


def test_label_images_over_many_tiles(tmp_path):
    rng = np.random.default_rng(0)
    origins = [(int(x), int(y)) for x, y in rng.integers(0, (1300, 1080), (60, 2))]
    cells = Cells.from_masks(1111, 1333, [np.ones((31, 33))] * 60, origins=origins, scores=rng.random(60))
    result = ImageResult("a.png", ArraySource(np.zeros((1111, 1333, 3), np.uint8)), cells, ["cell"])
    write_formats(result, tmp_path, ["labels"])
    labels = cells.label_image()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "labels" / "a.png.tif"), labels)
    picture = cv2.imread(str(tmp_path / "labels" / "a.png.png"))
    np.testing.assert_array_equal(picture, instance_colors(cells)[labels])


def test_label_images_have_32_bits_when_16_do_not_count_the_cells(tmp_path):
    pixels = np.ones((1, 1))
    origins = [(index % 300, index // 300) for index in range(65_536)]
    cells = Cells.from_masks(300, 300, [pixels] * len(origins), origins=origins)
    for number, dtype in ((65_535, np.uint16), (65_536, np.uint32)):
        result = ImageResult("a", ArraySource(np.zeros((300, 300, 3), np.uint8)), cells[:number], ["cell"])
        path = tmp_path / f"{number}.tif"
        FORMATS["labels"][0][2](result, path)
        labels = tifffile.imread(path)
        assert labels.dtype == dtype
        assert labels.ravel()[number - 1] == number


def test_the_colours_tell_neighbours_apart():
    origins = [(x, y) for y in range(0, 60, 10) for x in range(0, 60, 10)]
    cells = Cells.from_masks(60, 60, [np.ones((10, 10))] * len(origins), origins=origins)
    colors = instance_colors(cells)
    assert colors[0].tolist() == [0, 0, 0]
    grid = colors[1:].reshape(6, 6, 3).astype(int)
    assert (grid[1:] != grid[:-1]).any(axis=-1).all()
    assert (grid[:, 1:] != grid[:, :-1]).any(axis=-1).all()


def test_large_pictures_are_shrunk(tmp_path, monkeypatch):
    monkeypatch.setattr("bccd_d2.inference.writers.images.MAX_PICTURE_SIDE", 100)
    result = ring_and_friends()
    write_formats(result, tmp_path, ["labels", "overlay"])
    picture = cv2.imread(str(tmp_path / "labels" / f"{result.name}.png"))
    np.testing.assert_array_equal(
        picture, instance_colors(result.cells)[result.cells.label_image()][::2, ::2]
    )
    overlay = cv2.imread(str(tmp_path / "overlays" / f"{result.name}.png"))
    assert overlay.shape == (75, 100, 3)


def test_an_overview_read_in_blocks_shows_what_the_image_shows(monkeypatch):
    monkeypatch.setattr("bccd_d2.inference.writers.images._BLOCK", 64)
    image = np.zeros((200, 301, 3), np.uint8)
    image[80:120, 100:200] = 255
    small = overview(ArraySource(image), 100)
    assert small.shape == (66, 100, 3)
    expected = cv2.resize(image, (100, 66), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).mean() < 4
    np.testing.assert_array_equal(overview(ArraySource(image), 301), image)


def test_geojson_has_what_qupath_imports(folder, result):
    content = json.loads((folder / "geojson" / f"{result.name}.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    features = content["features"]
    assert [feature["geometry"]["type"] for feature in features] == [
        *("Polygon", "Polygon", "MultiPolygon", "Polygon")
    ]
    for index, feature in enumerate(features):
        geometry = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert geometry.is_valid
        np.testing.assert_array_equal(pixels_inside(geometry, 150, 200), result.cells.full_masks()[index])
        assert feature["properties"]["measurements"]["area_px"] == geometry.area
        assert feature["properties"]["objectType"] == "detection"
    assert features[0]["properties"]["classification"] == {"name": "RBC", "color": [0, 158, 115]}
    assert len(features[0]["geometry"]["coordinates"]) == 2
    # What is not known is not there: only the WBC has a nucleus.
    nuclei = [feature["properties"]["measurements"].get("nucleus_fraction") for feature in features]
    assert nuclei == [None, pytest.approx(100 / result.cells.areas[1]), None, None]
    assert features[1]["properties"]["measurements"]["area_um2"] == result.cells.areas[1] / 16
    assert len({feature["id"] for feature in features}) == 4


def roi_geometry(roi):
    """Even-odd union of the paths of a region, as ImageJ fills them."""
    geometry = shapely.Polygon()
    for ring in roi.coordinates(multi=True) if roi.composite else [roi.coordinates()]:
        geometry = geometry.symmetric_difference(shapely.Polygon(ring))
    return geometry


def test_imagej_regions(folder, result):
    regions = roifile.roiread(folder / "roi" / f"{result.name}.zip")
    assert [region.name for region in regions] == ["RBC-0001", "WBC-0002", "Platelet-0003", "Platelet-0004"]
    assert [region.composite for region in regions] == [True, False, True, False]
    for index, region in enumerate(regions):
        np.testing.assert_array_equal(
            pixels_inside(roi_geometry(region), 150, 200), result.cells.full_masks()[index]
        )
        assert [region.left, region.top, region.right, region.bottom] == result.cells.windows[index].tolist()
        assert region.group == result.cells.classes[index] + 1
        blue, green, red = CLASS_COLORS[result.cells.classes[index]]
        assert region.stroke_color == bytes((255, red, green, blue))


def test_imagej_regions_of_a_slide_wider_than_16_bits(tmp_path):
    cells = Cells.from_masks(50, 100_000, [np.ones((4, 6))], origins=[(90_000, 20)])
    result = ImageResult("a", ArraySource(np.zeros((1, 1, 3), np.uint8)), cells, ["cell"])
    write_formats(result, tmp_path, ["roi"])
    (region,) = roifile.roiread(tmp_path / "roi" / "a.zip")
    assert roi_geometry(region).bounds == (90_000, 20, 90_006, 24)


def test_the_table_of_cells(folder, result):
    table = pd.read_csv(folder / "csv" / f"{result.name}.csv")
    assert table.columns.tolist() == ["image", *result.measurements]
    assert (table["image"] == result.name).all()
    assert table["class"].tolist() == ["RBC", "WBC", "Platelet", "Platelet"]
    for name, column in result.measurements.items():
        if column.dtype != object:
            np.testing.assert_allclose(table[name], column.astype(float), atol=6e-5, err_msg=name)
    assert table["touches_border"].dtype == bool
    assert table["area_px"].dtype == np.int64


def test_an_image_without_cells_in_every_format(tmp_path):
    image = np.zeros((20, 30, 3), np.uint8)
    write_formats(
        ImageResult("a", ArraySource(image), Cells.from_masks(20, 30, []), ["cell"]), tmp_path, FORMATS
    )
    assert COCO(str(tmp_path / "coco" / "a.json")).getAnnIds() == []
    assert not tifffile.imread(tmp_path / "labels" / "a.tif").any()
    assert json.loads((tmp_path / "geojson" / "a.geojson").read_text())["features"] == []
    assert roifile.roiread(tmp_path / "roi" / "a.zip") == []
    assert len(pd.read_csv(tmp_path / "csv" / "a.csv")) == 0


@settings(max_examples=40, deadline=None)
@given(
    masks=st.lists(npst.arrays(bool, (14, 17)).filter(np.any), min_size=1, max_size=5),
    classes=st.lists(st.integers(0, 2), min_size=5, max_size=5),
)
def test_all_formats_hold_the_same_cells(tmp_path_factory, masks, classes):
    """Cells that overlap, have holes and parts: to the pixel, but for label images, which show the better score."""
    folder = tmp_path_factory.mktemp("out")
    scores = np.linspace(0.9, 0.5, len(masks))
    cells = Cells.from_masks(14, 17, masks, classes=classes[: len(masks)], scores=scores)
    names = ["RBC", "WBC", "Platelet"]
    result = ImageResult("a.png", ArraySource(np.zeros((14, 17, 3), np.uint8)), cells, names)
    write_formats(result, folder, FORMATS)
    expected = [names[index] for index in cells.classes]

    coco = COCO(str(folder / "coco" / "a.png.json"))
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [coco.cats[annotation["category_id"]]["name"] for annotation in annotations] == expected
    table = pd.read_csv(folder / "csv" / "a.png.csv")
    assert table["class"].tolist() == expected and table["id"].tolist() == list(range(1, len(cells) + 1))
    features = json.loads((folder / "geojson" / "a.png.geojson").read_text())["features"]
    assert all(shapely.from_geojson(json.dumps(feature["geometry"])).is_valid for feature in features)
    geojson, rois = (read_outlines(folder / file) for file in ("geojson/a.png.geojson", "roi/a.png.zip"))
    assert [cell.class_name for cell in geojson] == [cell.class_name for cell in rois] == expected
    labels = tifffile.imread(folder / "labels" / "a.png.tif")
    kinds = pd.read_csv(folder / "labels" / "a.png.csv")
    assert kinds["class"].tolist() == expected and kinds["id"].tolist() == table["id"].tolist()
    np.testing.assert_array_equal(labels, cells.label_image())
    for index, mask in enumerate(masks):
        assert annotations[index]["area"] == table["area_px"][index] == mask.sum()
        np.testing.assert_array_equal(coco.annToMask(annotations[index]), mask)
        for outline in (geojson[index], rois[index]):
            pixels, (x, y) = outline.pixels(14, 17)
            whole = np.zeros((14, 17), bool)
            whole[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
            np.testing.assert_array_equal(whole, mask)


def test_the_legend_counts_cells_by_type_where_they_have_one(result):
    types = CellTypes(["", "monocyte", "", ""], np.ones(4), [""] * 4)
    cells, names, _ = typed_classes(replace(result, types=types))
    assert names == ["RBC", "Platelet", "WBC: monocyte"]
    assert cells.classes.tolist() == [0, 2, 1, 1]


def test_masks_without_pixels_are_refused():
    with pytest.raises(ValueError, match="without a pixel"):
        one_mask(np.zeros((4, 4), bool))


def test_formats_are_checked():
    assert parse_formats("csv, coco,csv") == ("coco", "csv")
    assert parse_formats(",".join(DEFAULT_FORMATS)) == ("coco", "csv", "overlay")
    for text in ("csv,png", " ", ""):
        with pytest.raises(InputError, match="expected some of coco,labels,geojson,roi,csv,overlay"):
            parse_formats(text)
