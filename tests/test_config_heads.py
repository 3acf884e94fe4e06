from pathlib import Path

import pytest

from bccd_d2.config import load_config
from bccd_d2.config_heads import class_weights, score_thresholds
from bccd_d2.errors import InputError

LITE = Path(__file__).resolve().parents[1] / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"
THREE = ["MODEL.ROI_HEADS.NUM_CLASSES", "3", "DATASETS.CLASS_NAMES", "['RBC', 'WBC', 'Platelets']"]
WEIGHTS, THRESHOLDS = "MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS", "MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # Nothing would read the key.
        ("MODEL.RPN.FOCAL_GAMMA 1.0", "expected MODEL.RPN.OBJECTNESS_LOSS 'focal'"),
        ("MODEL.ROI_BOX_HEAD.FOCAL_ALPHA 0.3", "expected MODEL.ROI_BOX_HEAD.CLS_LOSS 'focal'"),
        ("MODEL.ROI_MASK_HEAD.BOUNDARY_WIDTH 7", "expected MODEL.ROI_MASK_HEAD.LOSS 'boundary_bce'"),
        ("MODEL.ROI_HEADS.NMS_SIGMA 0.3", "expected MODEL.ROI_HEADS.NMS_KIND 'soft_gaussian'"),
        ("MODEL.ROI_HEADS.MASK_NMS.THRESH 0.3", "expected MODEL.ROI_HEADS.MASK_NMS.ENABLED True"),
        (
            "MODEL.ROI_HEADS.NMS_KIND soft_gaussian MODEL.ROI_HEADS.NMS_THRESH_TEST 0.4",
            "NMS_THRESH_TEST is 0.4, but has no effect: NMS_KIND is 'soft_gaussian'",
        ),
        (
            "MODEL.ROI_MASK_HEAD.NAME MaskRCNNConvUpsampleHead MODEL.ROI_MASK_HEAD.LOSS dice",
            "LOSS is 'dice', but has no effect: expected MODEL.ROI_MASK_HEAD.NAME CellMaskHead",
        ),
        (
            "MODEL.META_ARCHITECTURE GeneralizedRCNN MODEL.ROI_HEADS.NAME StandardROIHeads "
            "MODEL.ROI_HEADS.NMS_KIND soft_linear",
            "expected MODEL.ROI_HEADS.NAME CellROIHeads or CellCascadeROIHeads",
        ),
        (
            "MODEL.META_ARCHITECTURE GeneralizedRCNN MODEL.IGNORE_THRESH 0.7",
            "expected MODEL.META_ARCHITECTURE CellRCNN",
        ),
        # Two keys for one thing.
        ("MODEL.RPN.LOSS_WEIGHT 2.0", "MODEL.LOSS_WEIGHTS.RPN_CLS and RPN_LOC take its place"),
        ("MODEL.RPN.BBOX_REG_LOSS_WEIGHT 2.0", "MODEL.LOSS_WEIGHTS.RPN_LOC"),
        ("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT 2.0", "MODEL.LOSS_WEIGHTS.BOX_REG"),
        (
            f"MODEL.ROI_BOX_HEAD.CLS_LOSS focal MODEL.ROI_BOX_HEAD.FOCAL_ALPHA 0.3 {WEIGHTS} [1.0,2.0]",
            "CLASS_WEIGHTS and FOCAL_ALPHA both weigh",
        ),
        # Regions to ignore would become cells.
        ("MODEL.PROPOSAL_GENERATOR.NAME RPN", "MODEL.PROPOSAL_GENERATOR.NAME: expected CellRPN"),
        (
            "MODEL.ROI_HEADS.NAME CascadeROIHeads",
            "MODEL.ROI_HEADS.NAME: expected CellROIHeads or CellCascade",
        ),
        # Values.
        ("MODEL.ROI_MASK_HEAD.LOSS iou", "expected one of bce, dice, bce_dice, boundary_bce, found 'iou'"),
        ("MODEL.IGNORE_THRESH 1.5", r"IGNORE_THRESH: expected a number in \[0, 1\], found 1.5"),
        ("MODEL.LOSS_WEIGHTS.MASK -1.0", "LOSS_WEIGHTS.MASK: expected a number from 0 on, found -1.0"),
        (
            "MODEL.ROI_MASK_HEAD.LOSS boundary_bce MODEL.ROI_MASK_HEAD.BOUNDARY_WIDTH 4",
            "expected an odd number of mask pixels from 3 on, found 4",
        ),
        (
            "MODEL.ROI_HEADS.NMS_KIND soft_gaussian MODEL.ROI_HEADS.NMS_SIGMA 0.0",
            "NMS_SIGMA: expected a number above 0",
        ),
    ],
)
def test_what_contradicts_or_has_no_effect_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        load_config(LITE, options.split())


def test_detectron2s_weights_of_losses_still_work_with_detectron2s_classes():
    stock = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.PROPOSAL_GENERATOR.NAME", "RPN"]
    assert load_config(LITE, [*stock, "MODEL.RPN.LOSS_WEIGHT", "2.0"]).MODEL.RPN.LOSS_WEIGHT == 2


def test_values_are_given_by_order_or_by_name():
    def both(weights, thresholds):
        cfg = load_config(LITE, [*THREE, WEIGHTS, weights, THRESHOLDS, thresholds])
        return class_weights(cfg), score_thresholds(cfg)

    assert both("[]", "[]") == (None, [0.05] * 3)
    assert both("[1, 2.0, 3, 0.5]", "[0.4, 0.5, 0.6]") == ([1, 2, 3, 0.5], [0.4, 0.5, 0.6])
    weights = "[['Platelets', 4], ['background', 0.5]]"
    assert both(weights, "[['WBC', 0.7]]") == ([1, 1, 4, 0.5], [0.05, 0.7, 0.05])
    focal = ["MODEL.ROI_BOX_HEAD.CLS_LOSS", "focal", "MODEL.ROI_BOX_HEAD.FOCAL_ALPHA", "0.3"]
    assert class_weights(load_config(LITE, [*THREE, *focal])) == [0.3, 0.3, 0.3, 0.7]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (WEIGHTS, "[1.0, 2.0, 3.0]", r"expected 4 numbers \(one a class and background\), found"),
        (WEIGHTS, "[0.0, 0.0, 0.0, 0.0]", "not all 0"),
        (WEIGHTS, "[1.0, 1.0, 1.0, -1.0]", "expected numbers from 0 on"),
        (WEIGHTS, "['WBC', 2.0]", r"or \[name, number\] pairs, found"),
        (WEIGHTS, "[['cell', 2.0]]", "expected each of RBC, WBC, Platelets, background at most once"),
        (THRESHOLDS, "[['WBC', 0.2], ['WBC', 0.3]]", "expected each of RBC, WBC, Platelets at most once"),
        (THRESHOLDS, "[0.5]", r"expected 3 numbers \(one a class\)"),
        (THRESHOLDS, "[0.5, 0.01, 0.5]", r"from MODEL.ROI_HEADS.SCORE_THRESH_TEST \(0.05\) to below 1"),
    ],
)
def test_values_that_do_not_fit_the_classes_are_refused(key, value, message):
    with pytest.raises(InputError, match=message):
        load_config(LITE, [*THREE, key, value])
