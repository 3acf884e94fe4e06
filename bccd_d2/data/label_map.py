"""Instance masks as label maps, and as what Detectron2's heads train on.

A full-frame mask for each of 70 cells costs 130 MB per image. Here masks stay as large as their cell, a crop draws
those that it shows into one label map, every geometric transform moves that one map, and it is split into masks at the
end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T  # noqa: N812  Detectron2's own habit
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances
from fvcore.transforms.transform import Transform
from numpy.typing import NDArray

from bccd_d2.data.stain import StainStatistics
from bccd_d2.errors import InputError
from bccd_d2.structures.cells import Cells, concatenate
from bccd_d2.structures.rle import as_rle

# Label maps are uint16, the widest integers that OpenCV can warp; 0 is background.
IGNORED_LABEL = np.iinfo(np.uint16).max
"""Label of all regions to ignore (``iscrowd``) together."""
_MAX_INSTANCES = IGNORED_LABEL - 1


@dataclass(frozen=True)
class ImageInstances:
    """The annotated instances of one image, native frame; ``ignored`` are regions to ignore.

    Boxes are larger than masks where the annotators left room: ``box_scales`` is the geometric mean of width and
    height, which turns do not change.
    """

    cells: Cells  # N, with their contiguous classes
    areas: NDArray[np.int64]  # (N,) pixels of each
    box_scales: NDArray[np.float64]  # (N,) side of the annotated box in sides of the box around the mask
    ignored: Cells

    @classmethod
    def from_annotations(
        cls, annotations: Sequence[Mapping[str, Any]], height: int, width: int, name: str
    ) -> ImageInstances:
        """Decode the annotations of a dataset dict of an image ``name``; ``iscrowd`` marks regions to ignore.

        Raises InputError where a segmentation (COCO RLE or polygons) is missing or of another size than the image, or
        there are too many.
        """
        kept = [annotation for annotation in annotations if not annotation.get("iscrowd", 0)]
        ignored = [annotation for annotation in annotations if annotation.get("iscrowd", 0)]
        if len(kept) > _MAX_INSTANCES:
            raise InputError(f"{name}: {len(kept)} instances; at most {_MAX_INSTANCES} fit in a label map")
        parts = []
        for index, annotation in enumerate([*kept, *ignored]):
            if "segmentation" not in annotation:
                raise InputError(f"{name}: annotation {index} has no segmentation; expected RLE or polygons")
            try:
                rle = as_rle(annotation["segmentation"], height, width)
                parts.append(Cells.from_rles(height, width, [rle], classes=[annotation["category_id"]]))
            except InputError as error:
                raise InputError(f"{name}: annotation {index}: {error}") from error
        empty = Cells.from_masks(height, width, [])
        cells = concatenate([empty, *parts[: len(kept)]])
        tight = np.maximum((cells.windows[:, 2:] - cells.windows[:, :2]).prod(axis=1), 1)
        scales = [_box_area(annotation, size) / size for annotation, size in zip(kept, tight.tolist())]
        return cls(cells, cells.areas, np.sqrt(scales), concatenate([empty, *parts[len(kept) :]]))

    @property
    def nbytes(self) -> int:
        """Memory that the masks take, in bytes."""
        return sum(mask.nbytes for cells in (self.cells, self.ignored) for mask in cells.masks)

    def label_map(
        self, x: int, y: int, width: int, height: int, min_visible: float = 0.0
    ) -> NDArray[np.uint16]:
        """Draw the instances of which a window, in native pixels, shows at least the share ``min_visible``.

        Returns (height, width, L) uint16, 0 where there is nothing, else index of the instance plus 1, or
        ``IGNORED_LABEL``. L is 1, and more where instances overlap: each layer then holds whole instances that do not
        overlap one another.
        """
        layers = [np.zeros((height, width), np.uint16)]
        frame = (x, y, x + width, y + height)
        least = min_visible * self.areas
        for index, shown, place in self.cells.parts(frame):
            if np.count_nonzero(shown) >= least[index]:
                _draw(layers, shown, place, index + 1)
        # Of regions to ignore every pixel counts, however few are left.
        for _, shown, place in self.ignored.parts(frame):
            _draw(layers, shown, place, IGNORED_LABEL)
        return np.stack(layers, axis=-1)


def _draw(
    layers: list[NDArray[np.uint16]], shown: NDArray[np.bool_], place: tuple[slice, slice], label: int
) -> None:
    """Draw a mask as a whole into the first layer where it hides no other, which may be a new one."""
    for layer in layers:
        there = layer[place][shown]
        if ((there == 0) | (there == label)).all():
            break
    else:
        layer = np.zeros_like(layers[0])
        layers.append(layer)
    layer[place][shown] = label


def _box_area(annotation: Mapping[str, Any], without: float) -> float:
    """Area of the annotated box in pixels; ``without`` where there is no box or one of no size."""
    if "bbox" not in annotation:
        return without
    x0, y0, x1, y1 = BoxMode.convert(
        list(annotation["bbox"]), annotation.get("bbox_mode", BoxMode.XYWH_ABS), BoxMode.XYXY_ABS
    )
    return max(x1 - x0, 0.0) * max(y1 - y0, 0.0) or without


class CellInput(T.AugInput):
    """Detectron2's augmentation input: image (H, W, 3) uint8, and a label map (H, W, L) in ``sem_seg``.

    Of label 1, 2, ... there are ``classes`` (N,), ``areas`` (N,), pixels that an instance would have if nothing hid or
    cut it, and ``box_scales`` (N,). ``area_scale`` is network pixels per native pixel, in area; ``cell_diameter`` the
    median of the whole image's cells in pixels of ``image``, 0 where it is not known.
    """

    def __init__(
        self,
        image: NDArray[np.uint8],
        labels: NDArray[np.uint16],
        classes: NDArray[np.int64],
        areas: NDArray[np.float64],
        area_scale: float,
        stain_statistics: StainStatistics | None,
        box_scales: NDArray[np.float64] | None = None,
        cell_diameter: float = 0.0,
    ) -> None:
        super().__init__(image, sem_seg=labels)
        self.classes, self.areas = classes, areas
        self.box_scales = np.ones(len(classes)) if box_scales is None else box_scales
        self.area_scale = area_scale
        self.cell_diameter = cell_diameter
        self.stain_statistics = stain_statistics

    def transform(self, tfm: Transform) -> None:
        """Transform image and labels; one that adds instances says their classes, areas and box scales."""
        super().transform(tfm)
        if hasattr(tfm, "added_classes"):
            self.classes = np.concatenate([self.classes, tfm.added_classes])
            self.areas = np.concatenate([self.areas, tfm.added_areas])
            self.box_scales = np.concatenate([self.box_scales, tfm.added_box_scales])


def resize_labels(labels: NDArray[np.uint16], height: int, width: int) -> NDArray[np.uint16]:
    """Nearest-neighbour copy of a (H, W, L) label map of size (height, width, L), pixel centres aligned."""
    if labels.shape[:2] == (height, width):
        return labels
    rows = ((np.arange(height) + 0.5) * (labels.shape[0] / height)).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * (labels.shape[1] / width)).astype(np.intp)
    return labels[rows[:, None], columns[None]]


def split_ignored(labels: NDArray[np.uint16]) -> tuple[NDArray[np.uint16], NDArray[np.bool_] | None]:
    """The label map without ``IGNORED_LABEL``, and (H, W) bool of the ignored pixels of no instance; ``None`` for
    none.
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
    box_scales: NDArray[np.float64] | None = None,
) -> Instances:
    """Split a label map (H, W, L), transformed in any way, into what Detectron2's heads train on.

    It holds no ``IGNORED_LABEL``. Label k + 1 is dropped where it has fewer pixels than ``min_pixels[k]``, or none.
    Returns ``gt_boxes`` (xyxy, pixels of ``labels``: those around the masks, scaled about their middle by
    ``box_scales`` and clipped), ``gt_classes`` (int64) and ``gt_masks`` (BitMasks).
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
    if box_scales is not None:
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        reach = half * box_scales[kept, None]
        boxes = np.clip(
            np.concatenate([middle - reach, middle + reach], axis=1), 0, [width, height, width, height]
        )
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
    instances.gt_classes = torch.from_numpy(classes[kept])
    instances.gt_masks = BitMasks(torch.from_numpy(masks))
    return instances
