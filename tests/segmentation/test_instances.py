"""Components become instances: specks, holes, classes, label maps and cuts, on shapes worked out by hand."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from bccd_d2.errors import InputError
from bccd_d2.segmentation.instances import (
    InstanceRule,
    class_of_labels,
    clean_instances,
    cut_touching,
    label_classes,
    label_instances,
)

SMALL_MASKS = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))


def discs(*circles: tuple[int, int, int], shape: tuple[int, int] = (120, 200)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for x, y, radius in circles:
        cv2.circle(mask, (x, y), radius, 1, -1)
    return mask


@settings(max_examples=150, deadline=None)
@given(SMALL_MASKS, st.sampled_from([4, 8]), st.integers(1, 6))
def test_components_agree_with_scipy(mask: np.ndarray, connectivity: int, min_area: int) -> None:
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    expected, count = ndimage.label(mask, structure)
    areas = np.bincount(expected.ravel(), minlength=1)[1:]
    labels, counts = label_instances(mask, InstanceRule(min_area, connectivity=connectivity))
    assert (counts["components"], counts["specks dropped"]) == (count, int((areas < min_area).sum()))
    assert labels.dtype == np.int32
    kept = np.isin(expected, np.flatnonzero(areas >= min_area) + 1)
    assert np.array_equal(labels > 0, kept)
    number = int((areas >= min_area).sum())
    assert len(set(zip(labels[kept], expected[kept]))) == number == labels.max(initial=0)


def test_specks_relative_to_the_median_cell() -> None:
    mask = discs((30, 30, 20), (90, 30, 20), (150, 30, 20), (30, 90, 9))
    assert label_instances(mask).labels.max() == 4
    labels, counts = label_instances(mask, InstanceRule(min_area_relative=0.25))
    assert (labels.max(), counts["specks dropped"]) == (3, 1)


def test_holes_are_filled_up_to_a_size() -> None:
    mask = discs((60, 60, 30))
    mask[50:53, 50:53] = 0  # 9 pixels
    mask[65:75, 55:65] = 0  # 100 pixels
    labels, counts = label_instances(mask, InstanceRule(fill_holes=50))
    assert counts["holes filled"] == 1
    assert labels[51, 51] == 1
    assert labels[70, 60] == 0
    assert label_instances(mask, InstanceRule(fill_holes=100)).counts["holes filled"] == 2


def test_a_hole_between_cells_or_at_the_border_is_no_hole() -> None:
    labels = np.zeros((30, 30), np.int32)
    labels[5:25, 5:15], labels[5:25, 15:25] = 1, 2
    labels[10:12, 14:16] = 0  # enclosed by both
    labels[20:22, 8:10] = 0  # enclosed by 1 alone
    cleaned, counts = clean_instances(labels, InstanceRule(fill_holes=10))
    assert counts["holes filled"] == 1
    assert not cleaned[10:12, 14:16].any()
    mask = np.ones((20, 20), np.uint8)
    mask[0:2, 8:10] = 0
    assert label_instances(mask, InstanceRule(fill_holes=10)).counts["holes filled"] == 0


def test_label_maps_keep_touching_and_torn_cells() -> None:
    labels = np.zeros((40, 60), np.uint16)
    labels[5:25, 5:25], labels[5:25, 25:45] = 700, 3  # touching
    labels[30:38, 2:22], labels[30:38, 40:50] = 9, 9  # one cell in two parts
    labels[0, 0] = 12
    cleaned, counts = clean_instances(labels, InstanceRule())
    assert +counts == {"components": 4, "specks dropped": 1}
    assert [cleaned[10, 30], cleaned[33, 5], cleaned[33, 45], cleaned[10, 10]] == [1, 2, 2, 3]


def test_touching_classes_stay_apart() -> None:
    classes = np.zeros((40, 60), np.uint8)
    classes[5:25, 5:25], classes[5:25, 25:45], classes[30:38, 5:25] = 1, 2, 1
    labels = label_classes(classes, InstanceRule()).labels
    assert labels.max() == 3
    by_label = class_of_labels(labels, classes)
    assert by_label[int(labels[10, 10])] == 1
    assert by_label[int(labels[10, 30])] == 2
    assert by_label[int(labels[33, 10])] == 1
    assert len(by_label) == 3


def test_two_touching_discs_are_cut_and_one_is_not() -> None:
    mask = discs((40, 50, 20), (74, 50, 20), (140, 50, 20), (170, 100, 15))
    labels, counts = label_instances(mask, InstanceRule(cut=0.02))
    assert +counts == {"components": 3, "components cut apart": 1, "instances added by cuts": 1}
    assert labels.max() == 4
    assert labels[50, 40] != labels[50, 74]
    assert np.array_equal(labels > 0, mask > 0)
    boundary = np.flatnonzero(np.diff(labels[50, 40:74]))
    assert boundary == pytest.approx([16], abs=2)  # half-way between the centres


def test_a_crumb_is_not_cut_off() -> None:
    mask = discs((50, 50, 20), (76, 50, 7), (140, 30, 20), (140, 90, 20))
    labels = label_instances(mask).labels
    _, cut, added = cut_touching(labels, 0.005, median_area=1000)
    assert (cut, added) == (0, 0)


@pytest.mark.parametrize(
    "options",
    [{"min_area": 0}, {"min_area_relative": 1.0}, {"connectivity": 6}, {"fill_holes": -1}, {"cut": 0.0}],
)
def test_options_out_of_range(options: dict) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        InstanceRule(**options)
