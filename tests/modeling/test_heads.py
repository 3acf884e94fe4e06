"""RPN and heads on a tiny network: losses, regions to ignore, suppression."""

import numpy as np
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn.functional import cross_entropy
from torchvision.ops import nms

from bccd_d2.errors import InputError
from bccd_d2.modeling.partial_labels import PartialLabels, ignored_share, with_partial_labels
from bccd_d2.modeling.roi_heads import cells_of_instances, keep_features_exact
from bccd_d2.modeling.suppression import MaskSuppression
from tests.modeling.tiny import CASCADE, SIDE, STOCK, detect, losses_of, sample, tiny_model

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


@pytest.fixture(scope="module")
def region():
    """The right half; the second disc of the sample lies in it."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[:, SIDE // 2 :] = True
    return mask


def anchors_of(rpn):
    return rpn.anchor_generator([torch.zeros(1, 16, SIDE // s, SIDE // s) for s in (4, 8, 16, 32, 64)])


def test_anchors_in_ignored_regions_have_no_label_and_no_gradient(region):
    rpn = tiny_model().proposal_generator
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


def test_anchors_of_the_size_of_unlabelled_cells_are_no_negatives():
    rpn = tiny_model().proposal_generator
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


def test_class_weights_change_the_balance_and_not_the_size():
    options = ("MODEL.ROI_HEADS.NUM_CLASSES", "2")
    plain = losses_of(tiny_model(*options), [sample()])
    equal = losses_of(tiny_model(*options, "MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS", "[2.0, 2.0, 2.0]"), [sample()])
    assert equal["loss_cls"].item() == pytest.approx(plain["loss_cls"].item(), rel=1e-5)
    assert equal["loss_box_reg"].item() == plain["loss_box_reg"].item()
    names = ("DATASETS.CLASS_NAMES", "['RBC', 'WBC']")
    model = tiny_model(*options, *names, "MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS", "[['background', 0.5]]")
    layers = model.roi_heads.box_predictor
    assert layers.class_weights.tolist() == [1, 1, 0.5]
    logits = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    boxes = Boxes(torch.tensor([[0.0, 0, 9, 9]] * 20))
    found = Instances((SIDE, SIDE), proposal_boxes=boxes, gt_boxes=boxes, gt_classes=torch.arange(20) % 3)
    with EventStorage():
        loss = layers.losses((logits, torch.zeros(20, 8)), [found])["loss_cls"]
        assert layers.losses((logits[:0], torch.zeros(0, 8)), [found[:0]])["loss_cls"].item() == 0
    torch.testing.assert_close(loss, cross_entropy(logits, found.gt_classes, weight=layers.class_weights))


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
    different = [np.count_nonzero(cells.full_masks()[k] != mask) for k, mask in enumerate(expected)]
    assert expected.sum() > 10_000
    assert sum(different) <= 3  # probabilities of 0.5, rounded otherwise


def test_boxes_of_all_classes_suppress_each_other():
    options = ("MODEL.ROI_HEADS.NUM_CLASSES", "2", *LOW_SCORES[:2], "TEST.DETECTIONS_PER_IMAGE", "800")
    plain = detect(tiny_model(*options, "MODEL.ROI_HEADS.NMS_THRESH_TEST", "1.0"))
    found = detect(tiny_model(*options, "MODEL.ROI_HEADS.NMS_CLASS_AGNOSTIC", "True"))
    kept = nms(plain.pred_boxes.tensor, plain.scores, 0.5)
    assert 100 < len(kept) < len(plain) / 2  # of the 800 best; the network has suppressed them all
    torch.testing.assert_close(found.scores[:100], plain.scores[kept[:100]])
    assert set(found.pred_classes.tolist()) == {0, 1}


@pytest.mark.parametrize("ours", [(), CASCADE], ids=["standard", "cascade"])
def test_thresholds_by_class_leave_out_detections(ours):
    options = (*ours, *LOW_SCORES, "TEST.DETECTIONS_PER_IMAGE", "800", "MODEL.ROI_HEADS.NUM_CLASSES", "2")
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


def test_mask_suppression_is_not_frozen_into_an_exported_network():
    heads = tiny_model("MODEL.ROI_HEADS.MASK_NMS.ENABLED", "True").roi_heads.eval().requires_grad_(False)
    boxes = Boxes(torch.tensor([[10.0, 10, 60, 60], [20, 20, 70, 70]]))
    proposals = Instances((SIDE, SIDE), proposal_boxes=boxes, objectness_logits=torch.zeros(2))

    def scores(*levels):
        return heads(None, {f"p{k}": level for k, level in enumerate(levels, 2)}, [proposals])[0][0].scores

    levels = tuple(torch.zeros(1, 16, 128 >> k, 128 >> k) for k in range(2, 6))
    with pytest.raises(InputError, match=r"MASK_NMS\.ENABLED.*cannot be exported"):
        torch.jit.trace(scores, levels)


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
