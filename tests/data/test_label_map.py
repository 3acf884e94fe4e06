import numpy as np
import pytest
from detectron2.structures import BoxMode
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bccd_d2.data.label_map import (
    IGNORED_LABEL,
    ImageInstances,
    instances_from_label_map,
    resize_labels,
    split_ignored,
)
from bccd_d2.errors import InputError
from tests.data.shapes import annotation, disc

masks_strategy = st.integers(1, 17).flatmap(
    lambda h: st.integers(1, 17).flatmap(
        lambda w: hnp.arrays(np.bool_, st.integers(0, 4).map(lambda n: (n, h, w)))
    )
)


def instances_of(masks, **kwargs):
    height, width = masks[0].shape
    return ImageInstances.from_annotations([annotation(m, **kwargs) for m in masks], height, width, "drawn")


@settings(max_examples=150, deadline=None)
@given(masks_strategy, st.data())
def test_label_map_of_a_window_holds_every_instance_whole(masks, data):
    _, height, width = masks.shape
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    found = ImageInstances.from_annotations([annotation(m) for m in masks], height, width, "drawn")
    assert found.areas.tolist() == masks.sum((1, 2)).tolist()

    labels = found.label_map(x, y, w, h)

    assert labels.shape[:2] == (h, w)
    for k, mask in enumerate(masks):
        in_layer = [labels[..., layer] == k + 1 for layer in range(labels.shape[-1])]
        assert sum(layer.any() for layer in in_layer) <= 1
        np.testing.assert_array_equal(np.any(in_layer, axis=0), mask[y : y + h, x : x + w])


@pytest.mark.parametrize("form", ["compressed str", "plain", "polygon"])
def test_every_coco_form_of_a_rectangle_is_read(form):
    mask = np.zeros((20, 30), dtype=bool)
    mask[4:10, 5:25] = True
    entry = annotation(mask)
    if form == "compressed str":
        entry["segmentation"]["counts"] = entry["segmentation"]["counts"].decode("ascii")
    elif form == "plain":
        flat = mask.ravel(order="F").astype(int)
        changes = np.flatnonzero(np.diff(np.concatenate(([0], flat)))).tolist()
        entry["segmentation"] = {"size": [20, 30], "counts": np.diff([0, *changes, 600]).tolist()}
    else:
        entry["segmentation"] = [[5, 4, 25, 4, 25, 10, 5, 10]]
    labels = ImageInstances.from_annotations([entry], 20, 30, "drawn").label_map(0, 0, 30, 20)
    np.testing.assert_array_equal(labels[..., 0] == 1, mask)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": {"size": [9, 9], "counts": b"a"}}, r"cells\.png.*\[9, 9\].*\[20, 20\]"),
        ({"segmentation": {"size": [20, 20], "counts": b"15"}}, "runs cover 6 pixels, expected 20 x 20"),
        ({"segmentation": [[0, 0, 9, 9, 0, 1e30]]}, "annotation 0: polygon with coordinate 1e\\+30"),
        ({}, r"cells\.png: annotation 0 has no segmentation"),
    ],
)
def test_a_broken_or_missing_segmentation_is_named(change, message):
    entry = {key: v for key, v in annotation(disc(20, 20, 10, 10, 5)).items() if key != "segmentation"}
    with pytest.raises(InputError, match=message):
        ImageInstances.from_annotations([entry | change], 20, 20, "cells.png")


def test_splitting_gives_tight_boxes_and_the_right_classes():
    labels = np.zeros((10, 12, 2), dtype=np.uint16)
    labels[2:5, 3:9, 0] = 1
    labels[4:10, 0:4, 1] = 3  # overlaps label 1 at (4, 3)
    labels[0, 11, 0] = 4
    instances = instances_from_label_map(labels, np.array([5, 6, 7, 8]), np.array([0, 0, 24, 2.0]))
    assert instances.gt_boxes.tensor.tolist() == [[3, 2, 9, 5], [0, 4, 4, 10]]
    assert instances.gt_classes.tolist() == [5, 7]
    assert instances.gt_masks.tensor.sum((1, 2)).tolist() == [18, 24]
    np.testing.assert_array_equal(
        instances.gt_boxes.tensor.numpy(), instances.gt_masks.get_bounding_boxes().tensor.numpy()
    )


def test_boxes_that_people_drew_larger_than_the_mask_stay_so():
    mask = np.zeros((60, 80), bool)
    mask[30:40, 20:40] = True
    boxes = {"bbox": [15, 25, 40, 20], "bbox_mode": BoxMode.XYWH_ABS}  # twice the sides of [20, 30, 40, 40]
    drawn = annotation(mask) | boxes
    around = annotation(mask) | {**boxes, "bbox": [20, 30, 20, 10]}
    found = ImageInstances.from_annotations(
        [drawn, around, {**drawn, "bbox": [20, 30, 0, 0]}], 60, 80, "drawn"
    )
    assert found.box_scales.tolist() == [2, 1, 1]
    assert instances_of([mask]).box_scales.tolist() == [1]

    # What the window shows of the cell is 10 px wide; the box is clipped to the window.
    labels = found.label_map(x=30, y=0, width=50, height=60)
    split = instances_from_label_map(labels, found.cells.classes, np.zeros(3), found.box_scales)
    assert split.gt_boxes.tensor.tolist() == [[0, 25, 15, 45], [0, 30, 10, 40], [0, 30, 10, 40]]
    assert split.gt_masks.tensor.sum((1, 2)).tolist() == [100, 100, 100]


def test_resizing_labels_keeps_layers_and_inverts_repetition():
    labels = np.random.default_rng(0).integers(0, 9, (6, 5, 2)).astype(np.uint16)
    larger = resize_labels(labels, 18, 15)
    np.testing.assert_array_equal(larger, labels.repeat(3, 0).repeat(3, 1))
    np.testing.assert_array_equal(resize_labels(larger, 6, 5), labels)


def test_regions_to_ignore_share_a_label_and_leave_the_instances_as_they_were():
    cells = [disc(40, 60, 12, 12, 8), disc(40, 60, 40, 20, 8)]
    regions = [disc(40, 60, 12, 16, 10), disc(40, 60, 50, 30, 6), disc(40, 60, 50, 30, 6)]
    # A region stands between the cells; the last two are the same one, written for two categories.
    order = [cells[0], regions[0], cells[1], *regions[1:]]
    entries = [annotation(mask, k, iscrowd=k not in (0, 2)) for k, mask in enumerate(order)]
    found = ImageInstances.from_annotations(entries, 40, 60, "drawn")
    assert found.cells.classes.tolist() == [0, 2]
    assert found.areas.tolist() == [mask.sum() for mask in cells]

    labels = found.label_map(0, 0, 60, 40, min_visible=1.0)
    assert set(np.unique(labels)) == {0, 1, 2, IGNORED_LABEL}
    instances, ignored = split_ignored(labels)
    split = instances_from_label_map(instances, found.cells.classes, np.zeros(2))
    np.testing.assert_array_equal(split.gt_masks.tensor.numpy(), cells)
    # What is a cell is not ignored, whatever is drawn over it.
    np.testing.assert_array_equal(ignored, np.any(regions, axis=0) & ~np.any(cells, axis=0))
