"""Training on images that are annotated only in part: regions to ignore and classes without annotations.

A training sample may carry ``ignore_mask`` (h, w) bool, True where nothing is annotated (COCO's ``iscrowd``),
``unlabeled_classes``, the contiguous ids of the classes that its source does not annotate, or not completely, and
``unlabeled_sizes``, the [lowest, highest] sqrt(box area) of such cells in pixels of the sample's image. None of these
may teach "background":

* anchors and proposals that lie mostly in ignored regions are neither positive nor negative;
* negative anchors of the sizes that unlabelled cells have are left out of the objectness loss;
* the target of background proposals is "background or any unlabelled class": ``-log(p_bg + sum of p_unlabelled)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import Boxes, Instances
from torch import Tensor

IGNORED_SHARE = 0.5
"""Boxes with a larger share of ignored pixels are neither cell nor background: most of them is unknown."""
_FIELDS = ("ignore_mask", "unlabeled_classes", "unlabeled_sizes")


@dataclass(frozen=True)
class PartialLabels:
    """What the annotations of one image say nothing about."""

    ignore_mask: Tensor | None = None  # (h, w) bool
    classes: tuple[int, ...] = ()  # contiguous ids of unlabelled classes
    sizes: tuple[float, float] | None = None  # lowest and highest sqrt(box area) of unlabelled cells, px

    @classmethod
    def from_sample(cls, sample: Mapping[str, Any]) -> PartialLabels:
        """From a training sample of :class:`bccd_d2.data.dataset_mapper.BCCDDatasetMapper`."""
        classes = tuple(sample.get("unlabeled_classes", ()))
        sizes = sample.get("unlabeled_sizes")
        return cls(sample.get("ignore_mask"), classes, tuple(sizes) if classes and sizes else None)

    def ignored(self, boxes: Tensor) -> Tensor:
        """(N,) bool: which of (N, 4) xyxy boxes have a larger share than ``IGNORED_SHARE`` in ignored regions."""
        if self.ignore_mask is None:
            return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        return ignored_share(boxes, self.ignore_mask) > IGNORED_SHARE

    def of_unlabeled_size(self, boxes: Tensor) -> Tensor:
        """(N,) bool: which of (N, 4) xyxy boxes are as large as an unlabelled cell."""
        if self.sizes is None:
            return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        low, high = self.sizes
        sizes = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        return (sizes >= low) & (sizes <= high)


class PartialInstances(Instances):
    """The annotated instances of an image, with what the annotations say nothing about."""

    _partial: PartialLabels

    def to(self, *args: Any, **kwargs: Any) -> PartialInstances:
        """As ``Instances.to``."""
        partial = self._partial
        if partial.ignore_mask is not None:
            mask = partial.ignore_mask.to(*args, **kwargs)
            partial = PartialLabels(mask, partial.classes, partial.sizes)
        return with_partial_labels(super().to(*args, **kwargs), partial)


def with_partial_labels(instances: Instances, partial: PartialLabels) -> PartialInstances:
    """The same instances, which remember ``partial``."""
    result = PartialInstances(instances.image_size, **instances.get_fields())
    result._partial = partial
    return result


def partial_labels(instances: Instances) -> PartialLabels:
    """What was given to :func:`with_partial_labels`; for other instances that everything is annotated."""
    return instances._partial if isinstance(instances, PartialInstances) else PartialLabels()


@META_ARCH_REGISTRY.register()
class CellRCNN(GeneralizedRCNN):
    """``GeneralizedRCNN`` that hands partial labels to :class:`CellRPN` and the cell heads."""

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """As ``GeneralizedRCNN.forward``; samples may have the fields that the module's docstring names."""
        if self.training:
            batched_inputs = [
                {
                    **sample,
                    "instances": with_partial_labels(sample["instances"], PartialLabels.from_sample(sample)),
                }
                if any(field in sample for field in _FIELDS)
                else sample
                for sample in batched_inputs
            ]
        return super().forward(batched_inputs)


@PROPOSAL_GENERATOR_REGISTRY.register()
class CellRPN(RPN):
    """``RPN`` that leaves anchors out of both losses where nothing is annotated; the same layers and checkpoints.

    It decodes the anchors with the best scores only, where Detectron2 sorts and decodes all: half a million in an image
    of 1600x1200, a quarter of a small network's time. The proposals are the same.
    """

    def _subsample_labels(self, label: Tensor) -> Tensor:
        """Keep all: the sample is drawn once it is known which anchors are ignored."""
        return label

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As ``RPN.label_and_sample_anchors``."""
        labels, boxes = super().label_and_sample_anchors(anchors, gt_instances)
        everywhere = Boxes.cat(anchors).tensor
        for label, partial in zip(labels, map(partial_labels, gt_instances)):
            label[partial.ignored(everywhere)] = -1
            label[(label == 0) & partial.of_unlabeled_size(everywhere)] = -1
        return [super(CellRPN, self)._subsample_labels(label) for label in labels], boxes

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """As ``RPN.predict_proposals``."""
        most = self.pre_nms_topk[self.training]
        boxes, scores = [], []
        for level, logits, deltas in zip(anchors, pred_objectness_logits, pred_anchor_deltas):
            size = logits.shape[1]  # a tensor where the network is traced
            number = size.clamp(max=most) if isinstance(size, Tensor) else min(most, size)
            score, best = logits.topk(number, dim=1)
            chosen = deltas.gather(1, best[..., None].expand(-1, -1, deltas.shape[2]))
            decoded = self.box2box_transform.apply_deltas(chosen.flatten(0, 1), level.tensor[best.flatten()])
            boxes.append(decoded.view_as(chosen))
            scores.append(score)
        return find_top_rpn_proposals(
            boxes,
            scores,
            image_sizes,
            self.nms_thresh,
            most,
            self.post_nms_topk[self.training],
            self.min_box_size,
            self.training,
        )


def ignored_share(boxes: Tensor, ignore_mask: Tensor) -> Tensor:
    """(N,) float in [0, 1]: the share of (N, 4) xyxy boxes, as far as they lie inside, that (h, w) bool ``ignore_mask``
    marks.

    Boxes are rounded to whole pixels; one outside the image has 0.
    """
    height, width = ignore_mask.shape
    # Sums over all rectangles that start at the upper left corner (a summed-area table).
    sums = torch.zeros(height + 1, width + 1, dtype=torch.int64, device=ignore_mask.device)
    sums[1:, 1:] = ignore_mask.cumsum(0).cumsum(1)
    x0, x1 = boxes[:, 0].round().long().clamp(0, width), boxes[:, 2].round().long().clamp(0, width)
    y0, y1 = boxes[:, 1].round().long().clamp(0, height), boxes[:, 3].round().long().clamp(0, height)
    ignored = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return ignored / ((x1 - x0) * (y1 - y0)).clamp(min=1)


def mark_unlabeled(proposals: Sequence[Instances], targets: Sequence[Instances], num_classes: int) -> None:
    """Give the proposals of partly annotated images a field ``unlabeled``, (R, K + 1) bool, in place."""
    for found, annotated in zip(proposals, targets):
        classes = partial_labels(annotated).classes
        if classes:
            unlabeled = torch.zeros(
                num_classes + 1, dtype=torch.bool, device=found.proposal_boxes.tensor.device
            )
            unlabeled[list(classes)] = True
            found.unlabeled = unlabeled.expand(len(found), -1)


def join_unlabeled(logits: Tensor, proposals: Sequence[Instances]) -> Tensor:
    """Logits (R, K + 1), background last, whose softmax loss does not punish unlabelled classes.

    In the rows of background proposals with the field ``unlabeled``, the unlabelled classes are joined with the
    background: its logit becomes ``logsumexp`` over all of them and theirs -inf. ``proposals``, R together, have
    ``gt_classes``.
    """
    if not any(one.has("unlabeled") for one in proposals):
        return logits
    background = logits.shape[1] - 1
    joined = torch.cat(
        [
            one.unlabeled & (one.gt_classes == background)[:, None]
            if one.has("unlabeled")
            else torch.zeros(len(one), background + 1, dtype=torch.bool, device=logits.device)
            for one in proposals
        ]
    )
    logits = logits.float()
    together = joined.clone()
    together[:, -1] = True
    either = logits.masked_fill(~together, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([logits[:, :-1].masked_fill(joined[:, :-1], -torch.inf), either], dim=1)
