import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import build_anchor_generator
from detectron2.modeling.proposal_generator.rpn import build_rpn_head
from detectron2.structures import Boxes
from detectron2.structures import pairwise_iou as all_ious

from bccd_d2.config import get_bccd_cfg, load_config
from bccd_d2.errors import InputError
from bccd_d2.modeling.anchors import (
    Anchors,
    ScaledBoxes,
    best_anchors,
    cluster_shapes,
    recall_table,
    shape_iou,
)

LEVELS = Anchors(sizes=[[24], [48], [96]], ratios=[[0.5, 1.0, 2.0]] * 3, strides=[4, 8, 16])


def test_overlaps_by_hand():
    assert shape_iou(np.array([[2.0, 2]]), np.array([[4.0, 2], [1, 1]])) == pytest.approx(
        np.array([[0.5, 0.25]])
    )


def test_crowds_are_left_out_and_boxes_are_scaled():
    boxes = [
        {"bbox": [10, 20, 30, 40], "category_id": 1},
        {"bbox": [0, 0, 9, 9], "category_id": 0, "iscrowd": 1},
    ]
    dicts = [
        {"height": 101, "width": 200, "annotations": []},
        {"height": 100, "width": 201, "annotations": boxes},
    ]
    scaled = ScaledBoxes.from_dicts(dicts, 0.5)
    assert scaled.boxes.tolist() == [[5, 10, 20, 30]]
    assert scaled.shapes.tolist() == [[15, 20]]
    assert (scaled.image_sizes.tolist(), scaled.images.tolist(), scaled.classes.tolist()) == (
        [[50, 100]],
        [1],
        [1],
    )
    assert scaled.crowds == 1
    with pytest.raises(InputError, match="expected annotated boxes, found none in 1 images"):
        ScaledBoxes.from_dicts(dicts[:1], 0.5)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_the_best_anchor_is_the_best_of_all_that_detectron2_makes(offset):
    cfg = get_bccd_cfg()
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p4"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[20, 30], [70, 110]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.2]]
    cfg.MODEL.ANCHOR_GENERATOR.OFFSET = offset
    height, width = 96, 120  # padded to 96 x 128
    generator = build_anchor_generator(cfg, [ShapeSpec(stride=4), ShapeSpec(stride=16)])
    every = Boxes.cat(generator([torch.zeros(1, 1, 24, 32), torch.zeros(1, 1, 6, 8)]))
    random = np.random.default_rng(0)
    corner = random.uniform(0, (width - 10, height - 10), (50, 2))
    size = random.uniform(5, (width, height) - corner)
    boxes = np.concatenate([corner, corner + size], axis=1)
    best = best_anchors(boxes, np.tile((height, width), (50, 1)), Anchors.from_config(cfg))
    expected = all_ious(Boxes(torch.from_numpy(boxes).float()), every).max(dim=1)
    assert best.overlaps == pytest.approx(expected.values.numpy(), abs=1e-4)
    overlaps = all_ious(Boxes(torch.from_numpy(boxes)), Boxes(torch.from_numpy(best.boxes))).diagonal()
    assert best.overlaps == pytest.approx(overlaps.numpy())
    count = len(generator([torch.zeros(1, 1, 24, 32), torch.zeros(1, 1, 6, 8)])[0])
    assert best.levels.tolist() == [int(index >= count) for index in expected.indices]


def test_clusters_are_the_groups_there_are():
    groups = [(10, 10), (20, 10), (50, 50)]
    shapes = np.array([(w + d, h - d) for w, h in groups for d in (-1, 0, 1)], dtype=float)
    assert cluster_shapes(shapes, 3).tolist() == [[10, 10], [20, 10], [50, 50]]
    assert cluster_shapes(shapes[:3], 1).tolist() == [[10, 10]]
    # As many as there are boxes, some of them equal.
    assert cluster_shapes(np.array([[5.0, 5.0]] * 2), 2).tolist() == [[5, 5], [5, 5]]


def test_sizes_are_fitted_level_by_level():
    # A level is for sizes up to sqrt(2) from 6 strides: 17 to 34, 34 to 68, 68 to 136, and beyond for the outer ones.
    assert LEVELS.level_of(
        np.array([[5.0, 5], [33, 33], [35, 35], [17.5, 70], [69, 69], [900, 900]])
    ).tolist() == [*(0, 0, 1, 1, 2, 2)]
    few, many = [(50.0, 50.0)] * 19, [(80.0, 80.0)] * 30 + [(100.0, 120.0)] * 30
    fitted = LEVELS.fitted(np.array(few + many), 1)
    assert fitted.sizes[:2] == [[24], [48]]  # none, and too few
    assert fitted.sizes[2] == [94.9]  # of the medians 90 and 100
    assert LEVELS.fitted(np.array(few + many), 2).sizes == [[20.2, 28.5], [40.4, 57.1], [80.0, 109.5]]
    assert (fitted.ratios, fitted.strides) == (LEVELS.ratios, LEVELS.strides)
    assert LEVELS.fitted(np.array(many), 1, [0.8, 1.25]).ratios == [[0.8, 1.25]] * 3


def test_recall_by_class_and_size():
    # Squares around a point of every grid. Those of 48 and 24 are anchors; the anchor of 48 overlaps that of 40 by
    # (40 / 48)^2 = 0.694 and that of 66 by (48 / 66)^2 = 0.529.
    sides = np.array([48.0, 40, 66, 24])
    centre = np.full((4, 2), 96.0)
    boxes = ScaledBoxes(
        boxes=np.concatenate([centre - sides[:, None] / 2, centre + sides[:, None] / 2], axis=1),
        image_sizes=np.full((4, 2), 192),
        images=np.zeros(4, np.int64),
        classes=np.array([0, 0, 0, 1]),
        crowds=0,
    )
    rows = recall_table(boxes, ["RBC", "Platelets"], {"a": LEVELS}, [0.6, 0.7])
    assert [(row["boxes"], row["number"], row["a >= 0.6"], row["a >= 0.7"]) for row in rows] == [
        ("all", 4, 75, 50),
        ("RBC", 3, pytest.approx(200 / 3), pytest.approx(100 / 3)),
        ("Platelets", 1, 100, 100),
        ("17 to 34 px", 1, 100, 100),
        ("34 to 68 px", 3, pytest.approx(200 / 3), pytest.approx(100 / 3)),
    ]
    assert rows[2]["a mean"] == 1
    assert rows[0]["a mean"] == pytest.approx((1 + (40 / 48) ** 2 + (48 / 66) ** 2 + 1) / 4)


def test_the_written_anchors_are_what_a_model_is_built_with(tmp_path, request):
    configs = request.config.rootpath / "configs"
    anchors = Anchors(
        [[10, 20.5], [30, 40], [50, 60], [70, 80], [90, 100]], [[0.8, 1.25]] * 5, [4, 8, 16, 32, 64]
    )
    (tmp_path / "anchors.yaml").write_text(anchors.yaml("Two sizes a level."))
    (tmp_path / "model.yaml").write_text(
        f'_BASE_: ["{configs}/mask_rcnn_R_18_FPN_lite.yaml", "anchors.yaml"]\n'
    )
    cfg = load_config(tmp_path / "model.yaml")
    assert Anchors.from_config(cfg) == anchors
    shapes = [ShapeSpec(channels=8, stride=stride) for stride in anchors.strides]
    generator = build_anchor_generator(cfg, shapes)
    for level, cell in enumerate(generator.cell_anchors):
        corners = cell.numpy()
        assert corners[:, 2:] - corners[:, :2] == pytest.approx(anchors.shapes(level), rel=1e-5)
    objectness, deltas = build_rpn_head(cfg, shapes)([torch.zeros(1, 8, 4, 4)])
    assert (objectness[0].shape[1], deltas[0].shape[1]) == (4, 16)


def test_levels_must_be_named_by_their_stride():
    cfg = get_bccd_cfg()
    cfg.MODEL.RPN.IN_FEATURES = ["res4"]
    with pytest.raises(InputError, match=r"IN_FEATURES: expected names such as 'p2', found \['res4'\]"):
        Anchors.from_config(cfg)
