"""Image-level overlap: how well the pixels of all predicted cells cover those of all true cells."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm

from bccd_d2.conversion.coco import decode_segmentation


class PixelCounts(NamedTuple):
    """Pixels of one image: in both masks, in the predicted one, in the true one."""

    intersection: int
    predicted: int
    true: int


def iou_and_dice(counts: PixelCounts) -> tuple[float, float]:
    """Intersection over union and Dice coefficient, both in [0, 1]; two empty masks agree, so both are 1."""
    union = counts.predicted + counts.true - counts.intersection
    if union == 0:
        return 1.0, 1.0
    return counts.intersection / union, 2 * counts.intersection / (counts.predicted + counts.true)


def box_average_precision(
    scores: np.ndarray, boxes: np.ndarray, true_boxes: np.ndarray, iou_threshold: float = 0.5
) -> float:
    """Average precision of boxes of one image, the area under the interpolated precision-recall curve.

    Predictions are matched greedily, best score first, each to the free true box that it overlaps most.

    Args:
        scores: (N,) float.
        boxes: (N, 4) float, xyxy in native pixels.
        true_boxes: (M, 4) float, likewise.
        iou_threshold: the least IoU of a match.

    Returns:
        A number in [0, 1]; 1 where there is neither a prediction nor a true box, 0 where there is only one of both.
    """
    if len(true_boxes) == 0 or len(boxes) == 0:
        return float(len(true_boxes) == len(boxes))
    overlaps = _pairwise_iou(boxes, true_boxes)
    free = np.ones(len(true_boxes), dtype=bool)
    correct = np.zeros(len(boxes), dtype=bool)
    order = np.argsort(-scores, kind="stable")
    for rank, index in enumerate(order):
        candidates = np.where(free, overlaps[index], -1.0)
        best = int(candidates.argmax())
        if candidates[best] >= iou_threshold:
            free[best] = False
            correct[rank] = True
    precision = np.cumsum(correct) / np.arange(1, len(boxes) + 1)
    best_precision_at_or_after = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_precision_at_or_after[correct].sum() / len(true_boxes))


def _pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    def area(boxes: np.ndarray) -> np.ndarray:
        return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)

    corner = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    intersection = np.prod(np.clip(corner, 0, None), axis=2)
    return intersection / np.maximum(area(a)[:, None] + area(b)[None] - intersection, 1e-9)


class PixelOverlapEvaluator(DatasetEvaluator):
    """The metrics of the torchvision report this project is modelled on, at a stated score threshold.

    ``IoU`` and ``Dice`` compare the union of the predicted masks with the union of the true ones, whatever their
    class, over the pixels of all images together; ``IoU_mean`` and ``Dice_mean`` are their means over images.
    ``mAP50`` is the mean over images of the average precision of boxes at IoU 0.5, see
    :func:`box_average_precision`. All are in percent, to stand beside COCO's. Regions with ``iscrowd`` are left out
    of the true masks.
    """

    def __init__(self, dataset_name: str, score_threshold: float, *, distributed: bool = True) -> None:
        """
        Args:
            dataset_name: a registered data set with masks, RLE or polygons.
            score_threshold: predictions below it do not count.
            distributed: gather the counts of all processes.
        """
        self._annotations = {d["image_id"]: d["annotations"] for d in DatasetCatalog.get(dataset_name)}
        self._score_threshold = score_threshold
        self._distributed = distributed
        self._logger = logging.getLogger(__name__)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._images: list[tuple[PixelCounts, float]] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Count the pixels and match the boxes of a batch.

        Args:
            inputs: dataset dicts with ``image_id``, ``height`` and ``width`` (native pixels).
            outputs: the model's, with ``instances`` in native pixels.
        """
        for image, output in zip(inputs, outputs):
            instances = output["instances"].to("cpu")
            instances = instances[instances.scores >= self._score_threshold]
            annotations = [a for a in self._annotations[image["image_id"]] if not a.get("iscrowd")]
            shape = (image["height"], image["width"])
            true = _union((decode_segmentation(a["segmentation"], *shape) for a in annotations), shape)
            predicted = _union((mask for mask in instances.pred_masks.numpy()), shape)
            counts = PixelCounts(int((true & predicted).sum()), int(predicted.sum()), int(true.sum()))
            true_boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
            precision = box_average_precision(
                instances.scores.numpy(),
                instances.pred_boxes.tensor.numpy(),
                np.asarray(true_boxes, dtype=np.float64).reshape(-1, 4),
            )
            self._images.append((counts, precision))

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Sum up all images; ``None`` on all processes but the first."""
        images = self._images
        if self._distributed:
            comm.synchronize()
            images = list(itertools.chain.from_iterable(comm.gather(images, dst=0)))
            if not comm.is_main_process():
                return None
        if not images:
            self._logger.warning("No image was evaluated")
            return {}
        total = PixelCounts(*np.sum([counts for counts, _ in images], axis=0).tolist())
        iou, dice = iou_and_dice(total)
        mean_iou, mean_dice = np.mean([iou_and_dice(counts) for counts, _ in images], axis=0)
        metrics = {
            "IoU": iou,
            "Dice": dice,
            "IoU_mean": float(mean_iou),
            "Dice_mean": float(mean_dice),
            "mAP50": float(np.mean([precision for _, precision in images])),
        }
        return {"overlap": {name: 100 * value for name, value in metrics.items()}}


def _union(masks: Iterable[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    union = np.zeros(shape, dtype=bool)
    for mask in masks:
        union |= mask.astype(bool, copy=False)
    return union
