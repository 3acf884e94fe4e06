"""Detectron2's heads with partial labels, class weights, thresholds by class and suppression of masks."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    CascadeROIHeads,
    FastRCNNOutputLayers,
    StandardROIHeads,
)
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own habit
from torch.utils.hooks import RemovableHandle
from torchvision.ops import nms

from bccd_d2.config.checks import class_weights, score_thresholds
from bccd_d2.errors import InputError
from bccd_d2.modeling.partial_labels import join_unlabeled, mark_unlabeled, partial_labels
from bccd_d2.modeling.suppression import MaskSuppression, build_mask_suppression
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.detections import Detections


class CellOutputLayers(FastRCNNOutputLayers):
    """``FastRCNNOutputLayers`` with class weights and suppression across classes; the same layers and checkpoints.

    ``class_weights`` are (K + 1,), background last, or ``None``; with ``class_agnostic_nms`` boxes of different classes
    suppress each other too.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        class_weights: list[float] | None,
        class_agnostic_nms: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_shape, **kwargs)
        self.class_agnostic_nms = class_agnostic_nms
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Arguments from ``MODEL.ROI_BOX_HEAD`` and ``MODEL.ROI_HEADS``."""
        return {
            **super().from_config(cfg, input_shape),
            "class_weights": class_weights(cfg),
            "class_agnostic_nms": cfg.MODEL.ROI_HEADS.NMS_CLASS_AGNOSTIC,
        }

    def inference(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """As ``FastRCNNOutputLayers.inference``; with ``class_agnostic_nms`` across classes."""
        if not self.class_agnostic_nms:
            return super().inference(predictions, proposals)
        found = [
            self._suppress_all_classes(boxes, scores, one.image_size)
            for boxes, scores, one in zip(
                self.predict_boxes(predictions, proposals),
                self.predict_probs(predictions, proposals),
                proposals,
            )
        ]
        return [instances for instances, _ in found], [rows for _, rows in found]

    def _suppress_all_classes(
        self, boxes: Tensor, scores: Tensor, image_size: tuple[int, int]
    ) -> tuple[Instances, Tensor]:
        """The best detections of an image and the proposals that they come from; boxes (R, 4) or (R, 4K)."""
        rows, classes = (scores[:, :-1] > self.test_score_thresh).nonzero(as_tuple=True)
        per_class = boxes.reshape(len(scores), -1, 4)
        found = Boxes(per_class[rows, classes if per_class.shape[1] > 1 else torch.zeros_like(classes)])
        found.clip(image_size)
        scores = scores[rows, classes]
        kept = nms(found.tensor, scores, self.test_nms_thresh)
        if self.test_topk_per_image >= 0:
            kept = kept[: self.test_topk_per_image]
        instances = Instances(
            image_size, pred_boxes=found[kept], scores=scores[kept], pred_classes=classes[kept]
        )
        return instances, rows[kept]

    def losses(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> dict[str, Tensor]:
        """As ``FastRCNNOutputLayers.losses``; unlabelled classes are no negatives of background proposals.

        With class weights w ``loss_cls`` is sum(w -log p) / sum(w): they change the balance of the classes, not the
        size of the loss.
        """
        predictions = (join_unlabeled(predictions[0], proposals), predictions[1])
        losses = super().losses(predictions, proposals)
        if self.class_weights is not None:
            targets = cat([one.gt_classes for one in proposals])
            weights = self.class_weights[targets]
            entropies = F.cross_entropy(predictions[0], targets, reduction="none")
            losses["loss_cls"] = (weights * entropies).sum() / weights.sum().clamp(min=1e-12)
        return losses


_Base: Any = object  # one of Detectron2's heads, which stands behind in the bases of both classes below


class _CellHeads(_Base):
    """What both kinds of heads share; stands before Detectron2's class in the bases."""

    @configurable
    def __init__(
        self,
        *,
        score_thresholds: list[float] | None,
        mask_suppression: MaskSuppression | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mask_suppression = mask_suppression
        thresholds = None if score_thresholds is None else torch.tensor(score_thresholds)
        self.register_buffer("score_thresholds", thresholds, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.ROI_HEADS``."""
        return {
            **super().from_config(cfg, input_shape),
            "score_thresholds": score_thresholds(cfg),
            "mask_suppression": build_mask_suppression(cfg),
        }

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Detectron2's, with :class:`CellOutputLayers` in the place of its own."""
        arguments = super()._init_box_head(cfg, input_shape)
        if "box_predictor" in arguments:
            arguments["box_predictor"] = CellOutputLayers(cfg, arguments["box_head"].output_shape)
        else:  # a cascade
            arguments["box_predictors"] = [
                CellOutputLayers(cfg, head.output_shape, box2box_transform=layers.box2box_transform)
                for head, layers in zip(arguments["box_heads"], arguments["box_predictors"])
            ]
        return arguments

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """As ``ROIHeads.forward``; masks are suppressed here, so that boxes which are given keep theirs."""
        # Pooling needs the channels first, and would change the order once for the boxes and again for the masks.
        features = {name: level.contiguous() for name, level in features.items()}
        found, losses = super().forward(images, features, proposals, targets)
        if self.mask_suppression is not None and not self.training:
            if (
                torch.jit.is_tracing()
            ):  # the trace would keep what was suppressed in the image it was made with
                raise InputError(
                    "MODEL.ROI_HEADS.MASK_NMS.ENABLED: cannot be exported; expected False, and to suppress afterwards"
                )
            found = [one[self.mask_suppression(cells_of_instances(one)).tolist()] for one in found]
        return found, losses

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """As ``ROIHeads.label_and_sample_proposals``, of proposals outside ignored regions and all true boxes."""
        found = super().label_and_sample_proposals(_trainable(proposals, targets), targets)
        mark_unlabeled(found, targets, self.num_classes)
        return found

    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> list[Instances]:
        """Of a cascade: the boxes of the stage before, outside ignored regions."""
        found = super()._match_and_label_boxes(_trainable(proposals, targets), stage, targets)
        mark_unlabeled(found, targets, self.num_classes)
        return found

    def _forward_box(self, features: dict[str, Tensor], proposals: list[Instances], *targets: Any) -> Any:
        """As Detectron2's; in inference without what scores no higher than its class's threshold."""
        found = super()._forward_box(features, proposals, *targets)
        if self.training or self.score_thresholds is None:
            return found
        return [one[one.scores > self.score_thresholds[one.pred_classes]] for one in found]


def _trainable(proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
    """Proposals outside ignored regions."""
    return [
        one[~partial_labels(target).ignored(one.proposal_boxes.tensor)]
        for one, target in zip(proposals, targets)
    ]


@ROI_HEADS_REGISTRY.register()
class CellROIHeads(_CellHeads, StandardROIHeads):
    """``StandardROIHeads`` with what :class:`_CellHeads` adds; the same layers and checkpoints."""


@ROI_HEADS_REGISTRY.register()
class CellCascadeROIHeads(_CellHeads, CascadeROIHeads):
    """``CascadeROIHeads`` with what :class:`_CellHeads` adds; the same layers and checkpoints."""


def cells_of_instances(instances: Instances) -> Cells:
    """The cells that a model's heads found in one image, in pixels of its input; an empty box has an empty mask.

    ``instances``, on any device, have ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks`` (N, 1, M, M)
    probabilities.
    """
    height, width = instances.image_size
    return Detections(
        height,
        width,
        boxes=instances.pred_boxes.tensor.float().cpu().numpy(),
        classes=instances.pred_classes.cpu().numpy(),
        scores=instances.scores.float().cpu().numpy(),
        masks=instances.pred_masks[:, 0].float().cpu().numpy(),
    ).paste()


def keep_features_exact(backbone: nn.Module) -> RemovableHandle:
    """Let a backbone, which returns a dict of tensors, hand its features over as float32.

    Detectron2 pools regions with boxes in the type of the features, and no 16 bits hold a coordinate to the pixel: with
    bfloat16 a box at 500 px is off by up to 2 px.
    """
    return backbone.register_forward_hook(
        lambda _module, _inputs, features: {name: level.float() for name, level in features.items()}
    )
