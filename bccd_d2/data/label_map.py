"""Instance masks as runs of pixels, as label maps, and as what Detectron2's heads train on.

A full-frame mask for each of 70 cells costs 130 MB an image. Here run-length encodings become short column
runs, a crop draws only the runs it shows into one label map, every geometric transform moves that one map,
and it is split into masks at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.structures.coco import as_rle
from bccd_d2.structures.rle import run_lengths

# Label maps are uint16, the widest integers that OpenCV can warp; 0 is background.
IGNORED_LABEL = np.iinfo(np.uint16).max
"""Label of all regions to ignore (``iscrowd``) together."""
_MAX_INSTANCES = IGNORED_LABEL - 1


@dataclass(frozen=True)
class InstanceRuns:
    """The instances of one image as vertical runs of pixels, native frame.

    Attributes:
        column: (R,) int32, x of each run.
        top: (R,) int32, y of its first pixel.
        bottom: (R,) int32, y after its last pixel.
        owner: (R,) int32, index of its instance; N for regions to ignore, whichever it is.
        area: (N,) int64, pixels of each instance.
        classes: (N,) int64, contiguous category of each instance.
        growth: (N,) float64, side of the annotated box in sides of the box around the mask: 1 where it is tight, more
            where people drew boxes with room to spare (geometric mean of width and height, which turns do not change).
    """

    column: NDArray[np.int32]
    top: NDArray[np.int32]
    bottom: NDArray[np.int32]
    owner: NDArray[np.int32]
    area: NDArray[np.int64]
    classes: NDArray[np.int64]
    growth: NDArray[np.float64]

    @classmethod
    def from_annotations(
        cls, annotations: Sequence[Mapping[str, Any]], height: int, width: int, name: str
    ) -> InstanceRuns:
        """Decode the annotations of a Detectron2 dataset dict; those marked ``iscrowd`` are regions to ignore.

        Args:
            annotations: with "segmentation" (COCO RLE or polygons), "category_id" and, optionally, "iscrowd" and
                "bbox" with "bbox_mode".
            height: of the image, native pixels.
            width: of the image, native pixels.
            name: says in errors which image it is.

        Raises:
            InputError: a segmentation is missing or of another size than the image, or there are too many.
        """
        kept = [annotation for annotation in annotations if not annotation.get("iscrowd", 0)]
        ignored = [annotation for annotation in annotations if annotation.get("iscrowd", 0)]
        if len(kept) > _MAX_INSTANCES:
            raise InputError(f"{name}: {len(kept)} instances; at most {_MAX_INSTANCES} fit in a label map")
        starts, stops, owners = [], [], []
        for index, annotation in enumerate([*kept, *ignored]):
            if "segmentation" not in annotation:
                raise InputError(
                    f"{name}: annotation {index} has no segmentation; expected COCO RLE or polygons"
                )
            try:
                ends = np.cumsum(run_lengths(as_rle(annotation["segmentation"], height, width)))
            except InputError as error:
                raise InputError(f"{name}: annotation {index}: {error}") from error
            starts.append(ends[0:-1:2])
            stops.append(ends[1::2])
            owners.append(np.full(len(stops[-1]), min(index, len(kept))))
        classes = np.array([annotation["category_id"] for annotation in kept], dtype=np.int64)
        start = np.concatenate([*starts, np.zeros(0, np.int64)])
        stop = np.concatenate([*stops, np.zeros(0, np.int64)])
        owner = np.concatenate([*owners, np.zeros(0, np.int64)])

        # An encoded run goes on into the next column; cut it there.
        first = start // height
        pieces = np.maximum((stop - 1) // height - first + 1, 0)
        nth = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        column = np.repeat(first, pieces) + nth
        top = np.maximum(np.repeat(start, pieces) - column * height, 0)
        bottom = np.minimum(np.repeat(stop, pieces) - column * height, height)
        owner = np.repeat(owner, pieces)
        area = np.bincount(owner, weights=bottom - top, minlength=len(kept)).astype(np.int64)[: len(kept)]
        low, high = np.full((2, len(kept) + 1), np.inf), np.zeros((2, len(kept) + 1))
        for axis, (first_pixel, after_last) in enumerate(((column, column + 1), (top, bottom))):
            np.minimum.at(low[axis], owner, first_pixel)
            np.maximum.at(high[axis], owner, after_last)
        tight = np.prod(np.maximum(high - low, 1)[:, : len(kept)], axis=0)
        return cls(
            column=column.astype(np.int32),
            top=top.astype(np.int32),
            bottom=bottom.astype(np.int32),
            owner=owner.astype(np.int32),
            area=area,
            classes=classes,
            growth=np.sqrt([_box_area(a, size) / size for a, size in zip(kept, tight.tolist())]),
        )

    @property
    def nbytes(self) -> int:
        """Memory that the runs take, in bytes."""
        return sum(part.nbytes for part in vars(self).values())

    def label_map(
        self, x: int, y: int, width: int, height: int, min_visible: float = 0.0
    ) -> NDArray[np.uint16]:
        """Draw the instances that a window shows.

        Args:
            x: left edge of the window, native pixels.
            y: top edge of the window, native pixels.
            width: of the window.
            height: of the window.
            min_visible: instances of which the window shows a smaller share of their pixels are left out.

        Returns:
            (height, width, L) uint16, 0 where there is nothing, else index of the instance plus 1, or
            ``IGNORED_LABEL``. L is 1, and more where instances overlap: each layer then holds whole instances that
            do not overlap one another.
        """
        column, owner = self.column - x, self.owner
        top, bottom = np.maximum(self.top - y, 0), np.minimum(self.bottom - y, height)
        shown = (column >= 0) & (column < width) & (bottom > top)
        column, top, bottom, owner = column[shown], top[shown], bottom[shown], owner[shown]
        # Of regions to ignore every pixel counts, however few are left.
        least = np.append(min_visible * self.area, 0)
        enough = (np.bincount(owner, weights=bottom - top, minlength=len(least)) >= least)[owner]
        column, top, bottom, owner = column[enough], top[enough], bottom[enough], owner[enough]

        length = bottom - top
        row = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length - top, length)
        pixel = row * width + np.repeat(column, length)
        labels = np.where(owner == len(self.area), IGNORED_LABEL, owner + 1)
        label = np.repeat(labels, length).astype(np.uint16)
        layers = []
        while True:
            layer = np.zeros(height * width, dtype=np.uint16)
            layer[pixel] = label
            # Who lost a pixel to another instance moves to the next layer, as a whole. The last one drawn
            # never does.
            lost = np.unique(label[layer[pixel] != label])
            moves = np.isin(label, lost)
            if len(lost):
                layer[pixel[moves & (layer[pixel] == label)]] = 0
            layers.append(layer.reshape(height, width))
            if not len(lost):
                return np.stack(layers, axis=-1)
            pixel, label = pixel[moves], label[moves]


def _box_area(annotation: Mapping[str, Any], without: float) -> float:
    """Area of the annotated box in pixels; ``without`` where there is no box or one of no size."""
    if "bbox" not in annotation:
        return without
    x0, y0, x1, y1 = BoxMode.convert(
        list(annotation["bbox"]), annotation.get("bbox_mode", BoxMode.XYWH_ABS), BoxMode.XYXY_ABS
    )
    return max(x1 - x0, 0.0) * max(y1 - y0, 0.0) or without


def resize_labels(labels: NDArray[np.uint16], height: int, width: int) -> NDArray[np.uint16]:
    """Nearest-neighbour copy of a (H, W, L) label map of size (height, width, L), pixel centres aligned."""
    if labels.shape[:2] == (height, width):
        return labels
    rows = ((np.arange(height) + 0.5) * (labels.shape[0] / height)).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * (labels.shape[1] / width)).astype(np.intp)
    return labels[rows[:, None], columns[None]]


def split_ignored(labels: NDArray[np.uint16]) -> tuple[NDArray[np.uint16], NDArray[np.bool_] | None]:
    """Part a label map into instances and what is to be ignored.

    Args:
        labels: (H, W, L) uint16, see :meth:`InstanceRuns.label_map`.

    Returns:
        The label map without ``IGNORED_LABEL``, and an (H, W) bool mask of the pixels that carry it and belong to no
        instance, ``None`` where there are none.
    """
    ignored = labels == IGNORED_LABEL
    if not ignored.any():
        return labels, None
    labels = np.where(ignored, np.uint16(0), labels)
    mask = ignored.any(axis=-1) & ~labels.any(axis=-1)
    return labels, mask if mask.any() else None


def instances_from_label_map(
    labels: NDArray[np.uint16],
    classes: NDArray[np.int64],
    min_pixels: NDArray[np.float64],
    growth: NDArray[np.float64] | None = None,
) -> Instances:
    """Split a label map into what Detectron2's heads train on.

    Args:
        labels: (H, W, L) uint16 as :meth:`InstanceRuns.label_map` draws it, transformed in any way, without
            ``IGNORED_LABEL``.
        classes: (N,) class of label 1, 2, ...
        min_pixels: (N,) label k + 1 is dropped where it has fewer pixels than ``min_pixels[k]``, or none.
        growth: (N,) sides of the boxes in sides of those around the masks, see :class:`InstanceRuns`; ``None`` for 1.

    Returns:
        Instances with ``gt_boxes`` (xyxy, pixels of ``labels``: those around the masks, grown about their middle and
        clipped), ``gt_classes`` (int64), ``gt_masks`` (BitMasks).
    """
    height, width, layers = labels.shape
    pixels = np.stack(
        [np.bincount(labels[..., k].ravel(), minlength=len(classes) + 1) for k in range(layers)]
    )
    kept = np.flatnonzero(pixels.sum(0)[1:] >= np.maximum(min_pixels, 1))
    layer_of = pixels[:, kept + 1].argmax(0)
    masks = np.empty((len(kept), height, width), dtype=bool)
    for layer in range(layers):
        here = layer_of == layer
        masks[here] = labels[None, ..., layer] == (kept[here] + 1).astype(np.uint16)[:, None, None]

    columns, rows = np.any(masks, axis=1), np.any(masks, axis=2)
    boxes = np.stack(
        [
            columns.argmax(1),
            rows.argmax(1),
            width - columns[:, ::-1].argmax(1),
            height - rows[:, ::-1].argmax(1),
        ],
        axis=1,
    )
    if growth is not None:
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        reach = half * growth[kept, None]
        boxes = np.clip(
            np.concatenate([middle - reach, middle + reach], axis=1), 0, [width, height, width, height]
        )
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
    instances.gt_classes = torch.from_numpy(classes[kept])
    instances.gt_masks = BitMasks(torch.from_numpy(masks))
    return instances
