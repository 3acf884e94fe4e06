"""Issues of images with planted faults."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from bccd_d2.audit.issues import find_issues, typical_areas
from bccd_d2.audit.measure import measure_pair
from bccd_d2.audit.words import issue_sentence
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.pairs import find_pairs
from bccd_d2.segmentation.instances import InstanceRule
from tests.audit.scene import PLACES, RADIUS, blank, cells, disc, paint, write_pair

CELL_AREA = int(np.count_nonzero(disc(blank(), 100, 100)))


def measured(root: Path, spec=None):
    """Measures of all pairs below ``root``, by stem."""
    return [measure_pair(pair, root, spec or DatasetSpec()) for pair in find_pairs(root)]


def issues_of(tmp_path, image, mask, spec=None):
    write_pair(tmp_path, "one", image, mask)
    measures = measured(tmp_path, spec)
    return find_issues(measures[0], typical_areas(measures)[0]), measures[0]


def test_clean_image_has_no_issue(tmp_path):
    mask = cells()
    found, measures = issues_of(tmp_path, paint(mask), mask)
    assert found.issues == []
    assert found.score == 0
    assert not found.empty
    assert not found.misfit
    assert found.typical_area == CELL_AREA
    assert len(measures.cells) == 12
    assert (measures.height, measures.width, measures.image_format) == (240, 320, "PNG")
    assert measures.file_name == "original/one.png"
    assert issue_sentence(found, 12) == "No issue found."


def test_every_planted_fault_is_found_once_and_for_what_it_is(tmp_path):
    mask = cells()
    shown = mask.copy()  # what the image shows
    for drawn in (mask, shown):
        disc(drawn, 60 + 2 * RADIUS - 6, 50)  # a second cell that touches the first
    disc(shown, 165, 140)  # a cell without an outline
    disc(shown, 319, 80)  # the same, cut by the border
    disc(mask, 95, 200)  # an outline around nothing
    for drawn in (mask, shown):
        disc(drawn, 230, 210, 5)  # a fragment of 81 pixels
    mask[5:8, 5:8] = 255  # a speck of 9 pixels
    found, measures = issues_of(
        tmp_path, paint(shown), mask, DatasetSpec(instances=InstanceRule(min_area=20))
    )
    assert found.counts == {
        "merged": 1, "unlabelled": 1, "cut_unlabelled": 1, "fragment": 1, "faint": 1, "speck": 1,
    }  # fmt: skip
    boxes = {issue.kind: issue.box for issue in found.issues}
    assert boxes["merged"] == (48, 38, 43, 25)
    assert boxes["faint"] == (83, 188, 25, 25)
    assert boxes["speck"] == (5, 5, 3, 3)
    assert boxes["fragment"] == (225, 205, 11, 11)
    x, y, width, height = boxes["cut_unlabelled"]
    assert x + width == 320
    assert y < 80 < y + height
    # 12 cells of which two are one outline, the outline around nothing and the fragment
    assert len(measures.cells) == 14
    # merged, unlabelled and faint count 1, cut and fragment 0.5, speck 0.25; two cells are missing
    assert found.score == pytest.approx(4.25 / (14 + 2 + 5))
    assert issue_sentence(found, 14) == (
        "1 outline seems to hold more than one cell, 1 place looks like a cell without an outline, "
        "1 cell cut by the image border has no outline, 1 outline lies where the image shows background, "
        "1 outline is far too small for a cell and 1 speck of a few pixels, of 14 outlined cells."
    )


def test_an_image_of_16_bits_a_channel_is_measured(tmp_path):
    mask = cells()
    write_pair(tmp_path, "one", paint(mask), mask)
    (tmp_path / "original/one.png").unlink()
    deep = paint(mask).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "original/one.tif", deep, photometric="rgb")
    (measures,) = measured(tmp_path)
    assert (measures.image_format, measures.mask_format, len(measures.cells)) == ("TIFF", "PNG", 12)


def test_empty_mask(tmp_path):
    found, measures = issues_of(tmp_path, paint(cells()), blank())
    assert found.empty
    assert np.isnan(found.typical_area)
    assert len(measures.cells) == 0
    assert issue_sentence(found, 0) == "The mask is empty."


def test_mask_of_another_image_is_called_that_and_nothing_else(tmp_path):
    mask = np.roll(cells(), 35, axis=1)
    found, _ = issues_of(tmp_path, paint(cells()), mask)
    assert found.misfit
    assert found.issues == []
    assert found.score >= 1
    assert "may belong to another one" in issue_sentence(found, 12)


def test_typical_cell_comes_from_images_of_the_same_size_where_there_are_few(tmp_path):
    full = cells()
    write_pair(tmp_path, "full", paint(full), full)
    few = cells(PLACES[:2])
    write_pair(tmp_path, "few", paint(few), few)
    none = blank()
    write_pair(tmp_path, "none", paint(none), none)
    double = cv2.resize(full, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    write_pair(tmp_path, "large", paint(double), double)
    measures = measured(tmp_path)
    areas = dict(zip((m.stem for m in measures), typical_areas(measures)))
    assert areas == {"few": CELL_AREA, "full": CELL_AREA, "large": 4 * CELL_AREA, "none": CELL_AREA}
    assert typical_areas([]) == []
