"""Outlines of other tools, by files that can be done by hand; round trips are in tests/inference/writers."""

import json
import zipfile

import numpy as np
import pytest
from roifile import ROI_TYPE, ImagejRoi

from bccd_d2.conversion.importers.outlines import read_geojson, read_imagej, read_outlines
from bccd_d2.errors import InputError
from bccd_d2.structures.polygons import fill_rings

SQUARE = [[2, 3], [6, 3], [6, 5], [2, 5], [2, 3]]
HOLE = [[3, 4], [4, 4], [4, 5], [3, 5], [3, 4]]


def test_a_hole_and_a_second_part_are_rings_like_any_other():
    far = [[8, 8], [9, 8], [9, 9], [8, 9]]
    mask, origin = fill_rings([np.array(ring, float) for ring in (SQUARE, HOLE, far)], 20, 30)
    expected = np.zeros((6, 7), bool)
    expected[0:2, 0:4] = True
    expected[1, 1] = False
    expected[5, 6] = True
    assert origin == (2, 3)
    np.testing.assert_array_equal(mask, expected)


def test_what_lies_beyond_the_image_is_cut_off():
    ring = np.array([[-3, -2], [4, -2], [4, 3], [-3, 3]], float)
    mask, origin = fill_rings([ring], 10, 2)
    assert (mask.shape, mask.all(), origin) == ((3, 2), True, (0, 0))
    outside, _ = fill_rings([ring + 50], 10, 10)
    assert outside.size == 0


@pytest.mark.parametrize(
    "wrap",
    [lambda f: {"type": "FeatureCollection", "features": f}, lambda f: f, lambda f: f[0]],
)
def test_geojson_in_each_of_its_forms(tmp_path, wrap, caplog):
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [SQUARE, HOLE]},
        "properties": {"classification": {"name": "WBC"}, "measurements": {"score": 0.75}},
    }
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}}
    path = tmp_path / "a.geojson"
    path.write_text("\ufeff" + json.dumps(wrap([feature, point])), encoding="utf-8")
    (found,) = read_outlines(path)
    assert (found.class_name, found.score) == ("WBC", 0.75)
    assert found.pixels(20, 20)[0].sum() == 8 - 1
    assert ("1 Point" in caplog.text) == (wrap([feature, point]) is not feature)


def test_imagej_areas_are_read_and_lines_counted(tmp_path, caplog):
    square = ImagejRoi.frompoints(np.array(SQUARE[:4]), name="RBC-0001")
    unnamed = ImagejRoi.frompoints(np.array(SQUARE[:4]), name="0003-0004")
    line = ImagejRoi(roitype=ROI_TYPE.LINE, x1=1, y1=1, x2=5, y2=5)
    rectangle = ImagejRoi(roitype=ROI_TYPE.RECT, left=1, top=2, right=5, bottom=4)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, roi in enumerate((square, unnamed, line, rectangle)):
            archive.writestr(f"{number}.roi", roi.tobytes())
        archive.writestr("__MACOSX/._0.roi", b"\0" * 20)
    found = read_imagej(path)
    assert [(one.class_name, int(one.pixels(20, 20)[0].sum())) for one in found] == [
        ("RBC", 8),
        (None, 8),
        (None, 8),
    ]
    assert "1 line" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"7",
        b"[7]",
        b'{"features": {}}',
        b'[{"geometry": {"type": "Polygon", "coordinates": 3}}]',
        b'[{"geometry": {"type": "Polygon", "coordinates": [[[0, 1], [2, 3]]]}}]',
        b'[{"geometry": {"type": "Polygon", "coordinates": [[[0, 1], [2, 3], [1e30, 2]]]}}]',
    ],
)
def test_files_that_are_no_outlines_are_refused_by_name(tmp_path, content):
    for name, read in (("a.geojson", read_geojson), ("a.roi", read_imagej), ("a.zip", read_imagej)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read(tmp_path / name)
