"""RPN and heads on a tiny network: losses, regions to ignore, suppression."""

import math

import numpy as np
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from fvcore.nn import sigmoid_focal_loss
from torch.nn.functional import cross_entropy

from bccd_d2.errors import InputError
from bccd_d2.modeling.mask_head import dice_loss, true_class_masks
from bccd_d2.modeling.partial_labels import PartialLabels, ignored_share, with_partial_labels
from bccd_d2.modeling.roi_heads import cells_of_instances, keep_features_exact, softmax_focal_loss
from bccd_d2.modeling.suppression import BoxSuppression, MaskSuppression
from tests.modeling.tiny import CASCADE, SIDE, STOCK, detect, losses_of, sample, tiny_config, tiny_model

LOW_SCORES = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "TEST.DETECTIONS_PER_IMAGE", "200")


@pytest.mark.parametrize("ours", [(), CASCADE], ids=["standard", "cascade"])
def test_by_default_losses_and_detections_are_detectron2s(ours):
    stock = [*STOCK, *ours]
    if ours:
        stock += ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads"]
    mine, theirs = tiny_model(*ours, *LOW_SCORES), tiny_model(*stock, *LOW_SCORES)
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    batch = [sample(), sample([(70, 70, 30)])]
    found, expected = losses_of(mine, batch), losses_of(theirs, batch)
    assert {k: v.item() for k, v in found.items()} == {k: v.item() for k, v in expected.items()}
    found, expected = detect(mine), detect(theirs)
    assert len(found) > 20
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.pred_masks, expected.pred_masks)


@pytest.mark.parametrize("ours", [(), CASCADE], ids=["standard", "cascade"])
def test_each_loss_is_multiplied_by_its_weight_once(ours):
    weights = {"RPN_CLS": 2.0, "RPN_LOC": 2.0 * 1.5, "CLS": 5.0, "BOX_REG": 7.0, "MASK": 11.0}
    options = [
        *("MODEL.RPN.LOSS_WEIGHT", "2.0", "MODEL.RPN.BBOX_REG_LOSS_WEIGHT", "1.5"),
        *("MODEL.LOSS_WEIGHTS.CLS", "5.0", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT", "7.0"),
        *("MODEL.LOSS_WEIGHTS.MASK", "11.0"),
    ]
    for more in ((), ("MODEL.ROI_MASK_HEAD.LOSS", "dice", "MODEL.RPN.OBJECTNESS_LOSS", "focal")):
        plain = losses_of(tiny_model(*ours, *more), [sample()])
        weighted = losses_of(tiny_model(*ours, *more, *options), [sample()])
        assert len(plain) == (9 if ours else 5)
        for name, value in plain.items():
            key = name.removeprefix("loss_").split("_stage")[0].upper()
            assert value > 0
            assert weighted[name].item() == pytest.approx(weights[key] * value.item(), rel=1e-5), name


@pytest.fixture(scope="module")
def region():
    """The right half; the second disc of the sample lies in it."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[:, SIDE // 2 :] = True
    return mask


def anchors_of(rpn):
    return rpn.anchor_generator([torch.zeros(1, 16, SIDE // s, SIDE // s) for s in (4, 8, 16, 32, 64)])


@pytest.mark.parametrize("focal", [(), ("MODEL.RPN.OBJECTNESS_LOSS", "focal")], ids=["bce", "focal"])
def test_anchors_in_ignored_regions_have_no_label_and_no_gradient(region, focal):
    rpn = tiny_model(*focal).proposal_generator
    rpn.batch_size_per_image = 100_000  # all anchors
    anchors = anchors_of(rpn)
    everything = Boxes.cat(anchors)
    share = ignored_share(everything.tensor, region)
    cells = sample([(30, 44, 20)])["instances"]
    batch = [with_partial_labels(cells, PartialLabels(region)), cells]
    losses, logits, deltas = rpn_losses(rpn, anchors, batch)
    losses["loss_rpn_cls"].backward(retain_graph=True)
    losses["loss_rpn_loc"].backward()
    ignored, free = (torch.cat([one.grad[k] for one in logits]) for k in (0, 1))
    assert (ignored[share > 0.5] == 0).all()
    assert (ignored != 0).equal((free != 0) & (share <= 0.5))
    assert (free[share > 0.5] != 0).any()
    assert (torch.cat([one.grad[0] for one in deltas])[share > 0.5] == 0).all()
    assert (torch.cat([one.grad[0] for one in deltas]) != 0).any()


def rpn_losses(rpn, anchors, batch):
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(len(batch), len(one), generator=generator).requires_grad_() for one in anchors]
    deltas = [torch.zeros(len(batch), len(one), 4, requires_grad=True) for one in anchors]
    torch.manual_seed(0)
    with EventStorage():
        labels, boxes = rpn.label_and_sample_anchors(anchors, batch)
        return rpn.losses(anchors, logits, labels, deltas, boxes), logits, deltas


def test_no_anchor_in_an_ignored_region_is_positive_not_even_the_best_of_a_cell(region):
    rpn = tiny_model().proposal_generator
    anchors = anchors_of(rpn)
    # A cell of 4 px beside the region: its best anchor, of 24 px, lies mostly in the region.
    cells = sample([(66, 64, 3)])["instances"]
    region = region & ~cells.gt_masks.tensor[0]
    labels, _ = rpn.label_and_sample_anchors(anchors, [cells])
    share = ignored_share(Boxes.cat(anchors).tensor, region)
    assert (share[labels[0] == 1] > 0.5).any()
    labels, _ = rpn.label_and_sample_anchors(anchors, [with_partial_labels(cells, PartialLabels(region))])
    assert (labels[0][share > 0.5] == -1).all()


def test_focal_objectness_counts_all_anchors_and_divides_by_the_positive_ones():
    rpn = tiny_model("MODEL.RPN.OBJECTNESS_LOSS", "focal").proposal_generator
    rpn.focal = (0.3, 1.5)
    anchors = anchors_of(rpn)
    batch = [sample()["instances"]]
    losses, logits, _ = rpn_losses(rpn, anchors, batch)
    labels, _ = rpn.label_and_sample_anchors(anchors, batch)
    counted = labels[0] >= 0
    assert counted.sum() > 1000  # far more than a sample of 64
    chosen, truth = torch.cat(logits, 1)[0][counted], labels[0][counted].float()
    expected = sigmoid_focal_loss(chosen, truth, 0.3, 1.5, "sum") / (truth == 1).sum()
    torch.testing.assert_close(losses["loss_rpn_cls"], expected)
    # Lin's prior: an untrained network gives every anchor a probability of 0.01.
    bias = build_model(
        tiny_config("MODEL.RPN.OBJECTNESS_LOSS", "focal")
    ).proposal_generator.rpn_head.objectness_logits.bias
    assert bias.sigmoid().tolist() == pytest.approx([0.01] * len(bias))


@pytest.mark.parametrize("ours", [(), CASCADE], ids=["standard", "cascade"])
def test_an_image_that_is_ignored_as_a_whole_teaches_nothing(ours):
    model = tiny_model(*ours)
    losses = losses_of(model, [sample([], ignore=torch.ones(SIDE, SIDE, dtype=torch.bool))])
    sum(losses.values()).backward()
    assert all(loss.item() == 0 for loss in losses.values())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all((gradient == 0).all() for gradient in gradients)
    # The same image without the region is background, and teaches that.
    assert losses_of(model, [sample([])])["loss_rpn_cls"] > 0


@pytest.mark.parametrize("ours", [(), CASCADE], ids=["standard", "cascade"])
def test_heads_train_on_no_proposal_in_an_ignored_region(region, ours):
    heads = tiny_model(*ours).roi_heads
    targets = with_partial_labels(sample([(30, 44, 20)])["instances"], PartialLabels(region))
    boxes = torch.tensor(
        [[70, 60, 110, 100], [66, 10, 120, 90], [10, 24, 52, 64], [50, 0, 90, 40], [2, 90, 40, 120]]
    )
    proposals = Instances((SIDE, SIDE), proposal_boxes=Boxes(boxes), objectness_logits=torch.zeros(5))
    with EventStorage():
        (kept,) = heads.label_and_sample_proposals([proposals], [targets])
        expected = {tuple(box) for box in (*boxes[[2, 4]].tolist(), targets.gt_boxes.tensor[0].tolist())}
        assert {tuple(box) for box in kept.proposal_boxes.tensor.tolist()} == expected
        assert sorted(kept.gt_classes.tolist()) == [0, 0, 1]
        if ours:
            proposals = Instances((SIDE, SIDE), proposal_boxes=Boxes(boxes))
            (kept,) = heads._match_and_label_boxes([proposals], 1, [targets])
            assert kept.proposal_boxes.tensor.tolist() == boxes[[2, 4]].tolist()
            assert kept.gt_classes.tolist() == [0, 1]


@pytest.mark.parametrize("focal", [(), ("MODEL.RPN.OBJECTNESS_LOSS", "focal")], ids=["bce", "focal"])
def test_anchors_of_the_size_of_unlabelled_cells_are_no_negatives(focal):
    rpn = tiny_model(*focal).proposal_generator
    rpn.batch_size_per_image = 100_000  # all anchors
    anchors = anchors_of(rpn)
    sizes = Boxes.cat(anchors).area().sqrt()
    cells = sample([(30, 44, 20)])["instances"]
    plain, _ = rpn.label_and_sample_anchors(anchors, [cells])
    partial = with_partial_labels(cells, PartialLabels(classes=(1,), sizes=(40.0, 110.0)))
    labels, _ = rpn.label_and_sample_anchors(anchors, [partial])
    inside = (sizes >= 40) & (sizes <= 110)
    assert 0 < inside.sum() < len(sizes)
    assert (plain[0] == 1).equal(labels[0] == 1)
    assert (labels[0] == 0).equal((plain[0] == 0) & ~inside)


@pytest.mark.parametrize("ours", [(), CASCADE], ids=["standard", "cascade"])
def test_unlabelled_classes_reach_the_classifier_of_every_stage(ours):
    options = (*ours, "MODEL.ROI_HEADS.NUM_CLASSES", "3")
    plain = losses_of(tiny_model(*options), [sample([])])
    partial = losses_of(tiny_model(*options), [{**sample([]), "unlabeled_classes": [1, 2]}])
    everything = losses_of(tiny_model(*options), [{**sample([]), "unlabeled_classes": [0, 1, 2]}])
    names = [name for name in plain if name.startswith("loss_cls")]
    assert len(names) == (3 if ours else 1)
    for name in plain:
        if name in names:
            assert 0 < partial[name] < plain[name]
            assert everything[name].item() == pytest.approx(0, abs=1e-6)
        else:
            assert partial[name].item() == plain[name].item()


def test_class_weights_and_focal_loss_reach_the_classifier():
    options = ("MODEL.ROI_HEADS.NUM_CLASSES", "2")
    plain = losses_of(tiny_model(*options), [sample()])
    equal = losses_of(tiny_model(*options, "MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS", "[2.0, 2.0, 2.0]"), [sample()])
    assert equal["loss_cls"].item() == pytest.approx(plain["loss_cls"].item(), rel=1e-5)
    assert equal["loss_box_reg"].item() == plain["loss_box_reg"].item()
    names = ("DATASETS.CLASS_NAMES", "['RBC', 'WBC']")
    weights = ("MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS", "[['background', 0.0]]")
    # Without the background the mean is over the proposals of class 0 alone.
    model = tiny_model(*options, *names, *weights)
    assert model.roi_heads.box_predictor.class_weights.tolist() == [1, 1, 0]
    assert losses_of(model, [sample()])["loss_cls"].item() != pytest.approx(
        plain["loss_cls"].item(), rel=1e-3
    )
    focal = ("MODEL.ROI_BOX_HEAD.CLS_LOSS", "focal")
    model = tiny_model(*options, *focal)
    model.roi_heads.box_predictor.focal_gamma = 0.0
    assert losses_of(model, [sample()])["loss_cls"].item() == pytest.approx(
        plain["loss_cls"].item(), rel=1e-5
    )
    assert losses_of(tiny_model(*options, *focal), [sample()])["loss_cls"] < plain["loss_cls"]
    with pytest.raises(
        InputError, match=r"CLASS_WEIGHTS: expected 3 numbers \(one per class and background\)"
    ):
        tiny_model(*options, "MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS", "[1.0]")


def test_mask_losses_compare_the_true_class_inside_the_box():
    masks = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    masks[:, 20:60, 20:60] = True
    # The box reaches as far again to the right: its left half is the cell.
    found = Instances((SIDE, SIDE), proposal_boxes=Boxes(torch.tensor([[20.0, 20, 100, 60]])))
    found.gt_classes, found.gt_masks = torch.tensor([1]), BitMasks(masks)
    logits = torch.stack([torch.full((28, 28), float(c)) for c in range(3)])[None]
    chosen, targets = true_class_masks(logits, [found, found[:0]])
    assert (chosen == 1).all()
    expected = torch.zeros(1, 28, 28)
    expected[:, :, :14] = 1
    assert torch.equal(targets, expected)
    chosen, targets = true_class_masks(logits[:0], [found[:0]])
    assert chosen.shape == targets.shape == (0, 28, 28)


def test_the_mask_head_trains_on_the_loss_that_is_chosen():
    head = tiny_model("MODEL.ROI_MASK_HEAD.LOSS", "dice").roi_heads.mask_head
    found = sample()["instances"]
    found.proposal_boxes = found.gt_boxes
    features = torch.randn(2, 16, 14, 14, generator=torch.Generator().manual_seed(0))
    with EventStorage() as storage:
        loss = head(features, [found])["loss_mask"]
        assert 0 <= storage.latest()["mask_rcnn/accuracy"][0] <= 1
    logits, targets = true_class_masks(head.layers(features), [found])
    assert loss.item() == dice_loss(logits, targets).item()


def test_pasted_masks_are_detectron2s():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(30, 2, generator=generator) * 100
    boxes = torch.cat([corner, corner + 1 + torch.rand(30, 2, generator=generator) * 60], 1)
    found = Instances(
        (90, 140), pred_boxes=Boxes(boxes), scores=torch.rand(30), pred_classes=torch.zeros(30).long()
    )
    found.pred_boxes.clip((90, 140))
    found = found[found.pred_boxes.nonempty()]
    found.pred_masks = torch.rand(len(found), 1, 28, 28, generator=generator)
    cells = cells_of_instances(found)
    expected = paste_masks_in_image(found.pred_masks[:, 0], found.pred_boxes.tensor, (90, 140), 0.5).numpy()
    different = [np.count_nonzero(cells.full_mask(k) != mask) for k, mask in enumerate(expected)]
    assert expected.sum() > 10_000
    assert sum(different) <= 3  # probabilities of 0.5, rounded otherwise


@pytest.mark.parametrize("ours", [(), CASCADE], ids=["standard", "cascade"])
@pytest.mark.parametrize("kind", ["soft_linear", "soft_gaussian"])
def test_the_heads_suppress_boxes_as_the_function_does(ours, kind):
    unsuppressed = ("MODEL.ROI_HEADS.NMS_THRESH_TEST", "1.0", "TEST.DETECTIONS_PER_IMAGE", "800")
    everything = detect(tiny_model(*ours, *LOW_SCORES, *unsuppressed))
    arrays = [x.numpy() for x in (everything.pred_boxes.tensor, everything.scores, everything.pred_classes)]
    kept, scores = BoxSuppression(kind, 0.5)(*arrays)
    few = ("TEST.DETECTIONS_PER_IMAGE", "30")
    found = detect(tiny_model(*ours, *LOW_SCORES, *few, "MODEL.ROI_HEADS.NMS_KIND", kind))
    assert len(found) == 30 < len(kept)
    assert found.scores.numpy() == pytest.approx(scores[:30], abs=1e-6)
    assert (found.scores.diff() <= 0).all()


@pytest.mark.parametrize("ours", [(), CASCADE], ids=["standard", "cascade"])
def test_boxes_of_all_classes_suppress_each_other_inside_the_network(ours):
    options = (
        *ours,
        "MODEL.ROI_HEADS.NUM_CLASSES",
        "2",
        *LOW_SCORES[:2],
        "TEST.DETECTIONS_PER_IMAGE",
        "800",
    )
    plain = detect(tiny_model(*options, "MODEL.ROI_HEADS.NMS_THRESH_TEST", "1.0"))
    found = detect(tiny_model(*options, "MODEL.ROI_HEADS.NMS_CLASS_AGNOSTIC", "True"))
    arrays = [x.numpy() for x in (plain.pred_boxes.tensor, plain.scores, plain.pred_classes)]
    expected, scores = BoxSuppression(iou_threshold=0.5, class_agnostic=True)(*arrays)
    assert 100 < len(expected) < len(plain) / 2  # of the 800 best; the network has suppressed them all
    assert found.scores[:100].numpy() == pytest.approx(scores[:100], abs=1e-6)
    assert set(found.pred_classes.tolist()) == {0, 1}


def test_thresholds_by_class_leave_out_detections():
    options = (*LOW_SCORES, "TEST.DETECTIONS_PER_IMAGE", "800", "MODEL.ROI_HEADS.NUM_CLASSES", "2")
    plain = detect(tiny_model(*options))
    thresholds = [float(plain.scores[plain.pred_classes == k].median()) for k in (0, 1)]
    found = detect(tiny_model(*options, "MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS", str(thresholds)))
    above = plain.scores > torch.tensor(thresholds)[plain.pred_classes]
    assert 0 < above.sum() < len(plain)
    assert torch.equal(found.pred_boxes.tensor, plain.pred_boxes.tensor[above])
    assert torch.equal(found.pred_classes, plain.pred_classes[above])


def test_masks_are_suppressed_after_the_mask_head():
    plain = detect(tiny_model(*LOW_SCORES))
    expected = MaskSuppression("containment", 0.3)(cells_of_instances(plain)).tolist()
    options = ("ENABLED", "True", "METRIC", "containment", "THRESH", "0.3")
    words = [w if k % 2 else f"MODEL.ROI_HEADS.MASK_NMS.{w}" for k, w in enumerate(options)]
    found = detect(tiny_model(*LOW_SCORES, *words))
    assert 0 < len(expected) < len(plain)
    assert torch.equal(found.pred_masks, plain.pred_masks[expected])
    assert torch.equal(found.scores, plain.scores[expected])


@pytest.mark.parametrize("key", ["NMS_KIND", "MASK_NMS.ENABLED"])
def test_suppression_is_not_frozen_into_an_exported_network(key):
    model = tiny_model(f"MODEL.ROI_HEADS.{key}", "soft_linear" if key == "NMS_KIND" else "True")
    heads = model.roi_heads.eval().requires_grad_(False)

    def scores(*levels):
        return heads(None, {f"p{k}": level for k, level in enumerate(levels, 2)}, [proposals()])[0][0].scores

    levels = tuple(torch.zeros(1, 16, 128 >> k, 128 >> k) for k in range(2, 6))
    with pytest.raises(InputError, match=f"MODEL.ROI_HEADS.{key}.*cannot be exported"):
        torch.jit.trace(scores, levels)


def proposals():
    boxes = Boxes(torch.tensor([[10.0, 10, 60, 60], [20, 20, 70, 70]]))
    return Instances((SIDE, SIDE), proposal_boxes=boxes, objectness_logits=torch.zeros(2))


# Probabilities (1/2, 1/4, 1/4) and (1/8, 1/8, 3/4), true classes 0 and 1.
FOCAL_LOGITS = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 6.0]], dtype=torch.float64).log()
FOCAL_TARGETS = torch.tensor([0, 1])
FOCAL_LOSSES = (0.5**2 * math.log(2), (7 / 8) ** 2 * math.log(8))


def test_value_of_a_case_worked_out_by_hand():
    assert softmax_focal_loss(FOCAL_LOGITS, FOCAL_TARGETS, 2.0).item() == pytest.approx(sum(FOCAL_LOSSES) / 2)


def test_class_weights_change_the_balance_and_not_the_size():
    weights = torch.tensor([3.0, 1.0, 7.0], dtype=torch.float64)
    expected = (3 * FOCAL_LOSSES[0] + FOCAL_LOSSES[1]) / 4
    assert softmax_focal_loss(FOCAL_LOGITS, FOCAL_TARGETS, 2.0, weights).item() == pytest.approx(expected)
    assert softmax_focal_loss(FOCAL_LOGITS, FOCAL_TARGETS, 2.0, 10 * weights).item() == pytest.approx(
        expected
    )


def test_without_focus_it_is_torchs_cross_entropy():
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(20) % 4
    weights = torch.tensor([1.0, 2.0, 5.0, 0.5])
    for one in (None, weights):
        expected = cross_entropy(logits, targets, weight=one)
        torch.testing.assert_close(softmax_focal_loss(logits, targets, 0.0, one), expected)


def test_certainty_has_a_gradient_of_nought_with_any_focus():
    for gamma in (0.0, 0.5, 2.0):
        logits = torch.tensor([[100.0, 0.0, 0.0]], requires_grad=True)
        softmax_focal_loss(logits, torch.tensor([0]), gamma).backward()
        assert logits.grad.tolist()[0] == pytest.approx([0, 0, 0], abs=1e-9), gamma


def test_no_proposal_and_no_weight_cost_nothing():
    empty = torch.zeros(0, 4, requires_grad=True)
    softmax_focal_loss(empty, torch.zeros(0, dtype=torch.long), 2.0).backward()
    weights = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert softmax_focal_loss(FOCAL_LOGITS, FOCAL_TARGETS, 2.0, weights).item() == 0


class Backbone(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"p2": self.conv(image)}


def test_features_of_a_backbone_in_16_bits_are_float32():
    backbone, image = Backbone(), torch.ones(1, 1, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert backbone(image)["p2"].dtype == torch.bfloat16
        handle = keep_features_exact(backbone)
        assert backbone(image)["p2"].dtype == torch.float32
    handle.remove()
