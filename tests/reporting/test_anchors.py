import numpy as np
import pytest

from bccd_d2.config import get_bccd_cfg
from bccd_d2.errors import InputError
from bccd_d2.reporting.anchors import best_anchors


def test_best_anchors_by_hand():
    cfg = get_bccd_cfg()
    cfg.MODEL.RPN.IN_FEATURES = ["p3", "p4"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES, cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[16], [32]], [[1.0]]
    boxes = np.array([[8.0, 8, 24, 24], [0, 0, 32, 16]])
    best = best_anchors(cfg, boxes, 60, 60)
    # The first is an anchor of p3 itself, half of the second is one of p3; of p4 none overlaps it as much.
    assert best.overlaps == pytest.approx([1, 1 / 2])
    assert best.levels.tolist() == [0, 0]
    assert best.boxes[0].tolist() == [8, 8, 24, 24]
    assert (best.strides, best.sizes) == ([8, 16], [[16], [32]])
    cfg.MODEL.RPN.IN_FEATURES = ["res4"]
    with pytest.raises(InputError, match="expected names such as 'p2'"):
        best_anchors(cfg, boxes, 60, 60)
