"""Detectron2's heads with partial labels, weighted and focal losses, and a choice of suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
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

from bccd_d2.config_checks import class_weights, score_thresholds
from bccd_d2.errors import InputError
from bccd_d2.modeling.partial_labels import join_unlabeled, mark_unlabeled, partial_labels
from bccd_d2.modeling.suppression import (
    BoxSuppression,
    MaskSuppression,
    build_box_suppression,
    build_mask_suppression,
)
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.detections import Detections

# Of the same paper as focal loss itself (Lin et al. 2017).
_FOCAL_GAMMA = 2.0


class CellOutputLayers(FastRCNNOutputLayers):
    """``FastRCNNOutputLayers`` with weighted and focal classification loss; the same layers and checkpoints.

    Args:
        input_shape: of the box features.
        focal_gamma: of :func:`softmax_focal_loss`; 0 for cross entropy.
        class_weights: (K + 1,), background last; ``None`` weighs all classes alike.
        class_agnostic_nms: in inference, boxes of different classes suppress each other too.
        **kwargs: those of ``FastRCNNOutputLayers``.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        focal_gamma: float,
        class_weights: list[float] | None,
        class_agnostic_nms: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_shape, **kwargs)
        self.focal_gamma, self.class_agnostic_nms = focal_gamma, class_agnostic_nms
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Arguments from ``MODEL.ROI_BOX_HEAD``, ``MODEL.ROI_HEADS`` and ``MODEL.LOSS_WEIGHTS``."""
        arguments = super().from_config(cfg, input_shape)
        box_suppression = build_box_suppression(cfg)
        suppression: dict[str, Any] = {"class_agnostic_nms": box_suppression.class_agnostic}
        if not box_suppression.in_network:
            # Everything above the score threshold goes on to CellROIHeads, which suppresses it.
            suppression = {"test_nms_thresh": 1.0, "test_topk_per_image": -1}
        focal = cfg.MODEL.ROI_BOX_HEAD.CLS_LOSS == "focal"
        return {
            **arguments,
            **suppression,
            "loss_weight": {**arguments["loss_weight"], "loss_cls": cfg.MODEL.LOSS_WEIGHTS.CLS},
            "focal_gamma": _FOCAL_GAMMA if focal else 0.0,
            "class_weights": class_weights(cfg),
        }

    def inference(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """As ``FastRCNNOutputLayers.inference``; boxes of different classes suppress each other where they shall."""
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
        kept = nms(found.tensor, scores[rows, classes], self.test_nms_thresh)
        if self.test_topk_per_image >= 0:
            kept = kept[: self.test_topk_per_image]
        instances = Instances(
            image_size,
            pred_boxes=found[kept],
            scores=scores[rows, classes][kept],
            pred_classes=classes[kept],
        )
        return instances, rows[kept]

    def losses(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> dict[str, Tensor]:
        """As ``FastRCNNOutputLayers.losses``; unlabelled classes are no negatives of background proposals."""
        predictions = (join_unlabeled(predictions[0], proposals), predictions[1])
        losses = super().losses(predictions, proposals)
        if self.focal_gamma or self.class_weights is not None:
            targets = cat([one.gt_classes for one in proposals])
            loss = softmax_focal_loss(predictions[0], targets, self.focal_gamma, self.class_weights)
            losses["loss_cls"] = loss * self.loss_weight["loss_cls"]
        return losses


class _CellHeads:
    """What both kinds of heads share; stands before Detectron2's class in the bases.

    Args:
        box_suppression: takes the place of Detectron2's; ``None`` leaves its result as it is.
        score_thresholds: by class; detections that ``box_suppression`` leaves no higher are left out.
        max_detections: of those, so many of the best stay.
        mask_suppression: what follows the mask head, or ``None``.
        **kwargs: those of Detectron2's class.
    """

    @configurable
    def __init__(
        self,
        *,
        box_suppression: BoxSuppression | None,
        score_thresholds: Sequence[float],
        max_detections: int,
        mask_suppression: MaskSuppression | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.box_suppression, self.mask_suppression = box_suppression, mask_suppression
        self.score_thresholds, self.max_detections = np.array(score_thresholds), max_detections

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.ROI_HEADS`` and ``TEST.DETECTIONS_PER_IMAGE``."""
        suppression = build_box_suppression(cfg)
        stock = suppression.in_network and not cfg.MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS
        return {
            **super().from_config(cfg, input_shape),  # type: ignore[misc]
            "box_suppression": None if stock else suppression,
            "score_thresholds": score_thresholds(cfg),
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
            "mask_suppression": build_mask_suppression(cfg),
        }

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Detectron2's, with :class:`CellOutputLayers` in the place of its own."""
        arguments = super()._init_box_head(cfg, input_shape)  # type: ignore[misc]
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
        found, losses = super().forward(images, features, proposals, targets)  # type: ignore[misc]
        if self.mask_suppression is not None and not self.training:  # type: ignore[attr-defined]
            _refuse_tracing("MASK_NMS.ENABLED")
            found = [one[self.mask_suppression(cells_of_instances(one)).tolist()] for one in found]
        return found, losses

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """As ``ROIHeads.label_and_sample_proposals``, of proposals outside ignored regions and all true boxes."""
        found = super().label_and_sample_proposals(self._trainable(proposals, targets), targets)  # type: ignore[misc]
        mark_unlabeled(found, targets, self.num_classes)  # type: ignore[attr-defined]
        return found

    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> list[Instances]:
        """Of a cascade: the boxes of the stage before, outside ignored regions."""
        found = super()._match_and_label_boxes(self._trainable(proposals, targets), stage, targets)  # type: ignore[misc]
        mark_unlabeled(found, targets, self.num_classes)  # type: ignore[attr-defined]
        return found

    def _trainable(self, proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
        return [
            one[~partial_labels(target).ignored(one.proposal_boxes.tensor)]
            for one, target in zip(proposals, targets)
        ]

    def _forward_box(self, features: dict[str, Tensor], proposals: list[Instances], *targets: Any) -> Any:
        """As Detectron2's; in inference followed by the suppression."""
        found = super()._forward_box(features, proposals, *targets)  # type: ignore[misc]
        if self.training or self.box_suppression is None:  # type: ignore[attr-defined]
            return found
        return [self._suppress(one, self.box_suppression) for one in found]

    def _suppress(self, found: Instances, suppression: BoxSuppression) -> Instances:
        _refuse_tracing("NMS_KIND or SCORE_THRESH_PER_CLASS")
        classes = found.pred_classes.cpu().numpy()
        boxes, scores = (part.float().cpu().numpy() for part in (found.pred_boxes.tensor, found.scores))
        kept, scores = suppression(boxes, scores, classes, float(self.score_thresholds.min()))
        above = np.flatnonzero(scores > self.score_thresholds[classes[kept]])[: self.max_detections]
        result = found[kept[above].tolist()]
        result.scores = torch.from_numpy(scores[above]).to(found.scores)
        return result


def _refuse_tracing(keys: str) -> None:
    """A trace would keep for ever what was suppressed in the image that it was made with."""
    if torch.jit.is_tracing():
        raise InputError(
            f"MODEL.ROI_HEADS.{keys}: cannot be exported; expected the defaults, and to suppress afterwards"
        )


@ROI_HEADS_REGISTRY.register()
class CellROIHeads(_CellHeads, StandardROIHeads):
    """``StandardROIHeads`` with what :class:`_CellHeads` adds; the same layers and checkpoints."""


@ROI_HEADS_REGISTRY.register()
class CellCascadeROIHeads(_CellHeads, CascadeROIHeads):
    """``CascadeROIHeads`` with what :class:`_CellHeads` adds; the same layers and checkpoints."""


def softmax_focal_loss(
    logits: Tensor, targets: Tensor, gamma: float, class_weights: Tensor | None = None
) -> Tensor:
    """Focal loss (Lin et al. 2017) on a softmax: ``sum(w (1 - p)^gamma * -log(p)) / sum(w)``.

    p is the probability of the true class and w the weight of that class, so weights change the balance of the classes
    and not the size of the loss. With ``gamma`` 0 this is the weighted cross entropy.

    Args:
        logits: (R, K + 1) float.
        targets: (R,) int64 in [0, K].
        gamma: at least 0.
        class_weights: (K + 1,) float; ``None`` weighs all classes alike.

    Returns:
        A scalar; 0 where R is 0 or all weights are.
    """
    log_probabilities = F.log_softmax(logits, dim=1).gather(1, targets[:, None])[:, 0]
    # Not quite 0: to a power below 1 it would have no gradient there.
    doubt = (1 - log_probabilities.exp()).clamp(min=1e-12)
    losses = -log_probabilities * doubt**gamma
    weights = losses.new_ones(len(losses)) if class_weights is None else class_weights[targets]
    return (weights * losses).sum() / weights.sum().clamp(min=1e-12)


def cells_of_instances(instances: Instances) -> Cells:
    """The cells that a model's heads found.

    Args:
        instances: of one image on any device, with ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks``
            (N, 1, M, M) probabilities.

    Returns:
        In pixels of the network's input, in the same order; an empty box has an empty mask.
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
    """Let a backbone hand its features over as float32.

    Detectron2 pools regions with boxes in the type of the features, and no 16 bits hold a coordinate to the pixel: with
    bfloat16 a box at 500 px is off by up to 2 px.

    Args:
        backbone: returns a dict of tensors.
    """
    return backbone.register_forward_hook(
        lambda _module, _inputs, features: {name: level.float() for name, level in features.items()}
    )
