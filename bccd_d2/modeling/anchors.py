"""Fits the region proposal network's anchors to annotated boxes, and says how well anchors can do.

Boxes here are (N, 4) float64 xyxy in pixels of the resized image, its upper left corner at (0, 0). Anchors are given as
Detectron2's ``MODEL.ANCHOR_GENERATOR`` has them: on each level of the pyramid, sizes (the square root of the area)
times aspect ratios (height / width), centred on a grid of the level's stride.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes
from detectron2.structures.boxes import matched_pairwise_iou
from numpy.typing import NDArray

from bccd_d2.errors import InputError

_ITERATIONS = 300
_IMAGE_MULTIPLE = 32  # images are padded to whole cells of p5
# A level is for boxes around 6 strides, as the base configuration's anchors are: 24 px at stride 4. Much larger ones
# would lie on a needlessly fine grid, and on one that is too coarse the best anchor can be half a stride off.
_SIZE_PER_STRIDE = 6.0
# With fewer boxes than this an anchor, clusters would describe these boxes and no others.
_BOXES_PER_ANCHOR = 20


@dataclass(frozen=True)
class ScaledBoxes:
    """Annotated boxes of a data set.

    Attributes:
        boxes: (N, 4).
        image_sizes: (N, 2) height and width of the resized image that each lies in.
        images: (N,) its index.
        classes: (N,) contiguous class index.
        crowds: how many boxes of crowds were left out.
    """

    boxes: NDArray[np.float64]
    image_sizes: NDArray[np.int64]
    images: NDArray[np.int64]
    classes: NDArray[np.int64]
    crowds: int

    @classmethod
    def from_dicts(cls, dicts: Sequence[Mapping[str, Any]], scale: float) -> ScaledBoxes:
        """From Detectron2's data set dicts (``bbox`` as xywh) and ``INPUT.SCALE``.

        Raises:
            InputError: there is no box.
        """
        entries = [(index, image, a) for index, image in enumerate(dicts) for a in image["annotations"]]
        kept = [entry for entry in entries if not entry[2].get("iscrowd", 0)]
        if not kept:
            raise InputError(f"expected annotated boxes, found none in {len(dicts)} images")
        boxes = np.array([annotation["bbox"] for *_, annotation in kept], dtype=np.float64)
        boxes[:, 2:] += boxes[:, :2]
        sizes = np.array([(image["height"], image["width"]) for _, image, _ in kept])
        return cls(
            boxes=boxes * scale,
            image_sizes=np.maximum(np.rint(sizes * scale), 1).astype(np.int64),
            images=np.array([index for index, *_ in kept]),
            classes=np.array([annotation["category_id"] for *_, annotation in kept]),
            crowds=len(entries) - len(kept),
        )

    @property
    def shapes(self) -> NDArray[np.float64]:
        """(N, 2) width and height."""
        return self.boxes[:, 2:] - self.boxes[:, :2]


@dataclass(frozen=True)
class Anchors:
    """Anchors of a feature pyramid.

    Attributes:
        sizes: of each level, in pixels of the resized image.
        ratios: height / width, of each level.
        strides: of each level, in the same pixels.
        offset: of the first anchor's centre, in strides (``MODEL.ANCHOR_GENERATOR.OFFSET``).
    """

    sizes: Sequence[Sequence[float]]
    ratios: Sequence[Sequence[float]]
    strides: Sequence[int]
    offset: float = 0.0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Anchors:
        """The anchors of a checked configuration whose levels are named by their stride's logarithm, as p2 to p6 are.

        Raises:
            InputError: they are not.
        """
        names = cfg.MODEL.RPN.IN_FEATURES
        if not all(re.fullmatch(r"p\d", name) for name in names):
            raise InputError(f"MODEL.RPN.IN_FEATURES: expected names such as 'p2', found {names}")
        generator = cfg.MODEL.ANCHOR_GENERATOR
        sizes, ratios = (
            list(lists) * (len(names) if len(lists) == 1 else 1)
            for lists in (generator.SIZES, generator.ASPECT_RATIOS)
        )
        return cls(sizes, ratios, [2 ** int(name[1:]) for name in names], generator.OFFSET)

    def shapes(self, level: int) -> NDArray[np.float64]:
        """(A, 2) width and height of a level's anchors, sizes first, as Detectron2 orders them."""
        size, ratio = np.meshgrid(self.sizes[level], self.ratios[level], indexing="ij")
        width = (size / np.sqrt(ratio)).ravel()
        return np.stack([width, width * ratio.ravel()], axis=1)

    def level_of(self, shapes: NDArray[np.float64]) -> NDArray[np.int64]:
        """(N,) index of the level that is for boxes of these widths and heights."""
        wanted = np.sqrt(shapes.prod(axis=1)) / _SIZE_PER_STRIDE
        distance = np.abs(np.log(wanted[:, None] / np.array(self.strides)[None]))
        return distance.argmin(axis=1)

    def yaml(self, comment: str) -> str:
        """Text of a file that a configuration includes by ``_BASE_``."""
        sizes, ratios = (
            [[float(value) for value in one] for one in lists] for lists in (self.sizes, self.ratios)
        )
        if ratios == ratios[:1] * len(ratios):
            ratios = ratios[:1]  # one list stands for all levels
        return f"# {comment}\nMODEL:\n  ANCHOR_GENERATOR:\n    SIZES: {sizes}\n    ASPECT_RATIOS: {ratios}\n"

    def fitted(
        self, shapes: NDArray[np.float64], sizes_per_level: int, ratios: Sequence[float] = ()
    ) -> Anchors:
        """Sizes that are the centres of clusters of the boxes that each level is for.

        The clusters are made level by level: clusters of all boxes at once, dealt out to the levels in order, put most
        sizes on levels whose grid is too fine or too coarse for them where most boxes are alike, as red cells are.

        Args:
            shapes: (N, 2) widths and heights of boxes.
            sizes_per_level: of each level; one with too few boxes for that many gets sizes around 6 strides.
            ratios: of every level; empty keeps those there are.
        """
        levels = self.level_of(shapes)
        sizes = []
        for level, stride in enumerate(self.strides):
            own = shapes[levels == level]
            if len(own) >= _BOXES_PER_ANCHOR * sizes_per_level:
                size = np.sqrt(cluster_shapes(own, sizes_per_level).prod(axis=1))
            else:
                octaves = (np.arange(sizes_per_level) + 0.5) / sizes_per_level - 0.5
                size = _SIZE_PER_STRIDE * stride * 2**octaves
            sizes.append([round(float(value), 1) for value in size])
        return replace(self, sizes=sizes, ratios=[list(ratios)] * len(sizes) if ratios else self.ratios)


@dataclass(frozen=True)
class BestAnchors:
    """The anchor that overlaps each box most.

    Attributes:
        overlaps: (N,) IoU.
        boxes: (N, 4) the anchors.
        levels: (N,) index of their level.
    """

    overlaps: NDArray[np.float64]
    boxes: NDArray[np.float64]
    levels: NDArray[np.int64]


def best_anchors(boxes: NDArray[np.float64], image_sizes: NDArray[np.int64], anchors: Anchors) -> BestAnchors:
    """Of all anchors of its image, the one that each box overlaps most.

    Of a level's anchors of one shape that is the one whose centre is nearest.

    Args:
        boxes: (N, 4).
        image_sizes: (N, 2) height and width of the image of each.
        anchors: their grid starts at the image's corner, as in evaluation; a training crop moves it.
    """
    best = BestAnchors(np.zeros(len(boxes)), np.zeros((len(boxes), 4)), np.zeros(len(boxes), np.int64))
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    padded = np.ceil(image_sizes[:, ::-1] / _IMAGE_MULTIPLE) * _IMAGE_MULTIPLE
    for level, stride in enumerate(anchors.strides):
        last = np.ceil(padded / stride) - 1
        grid = np.clip(np.rint(centres / stride - anchors.offset), 0, last)
        centre = (grid + anchors.offset) * stride
        for shape in anchors.shapes(level):
            candidates = np.concatenate([centre - shape / 2, centre + shape / 2], axis=1)
            overlaps = _row_iou(boxes, candidates)
            better = overlaps > best.overlaps
            best.overlaps[better] = overlaps[better]
            best.boxes[better] = candidates[better]
            best.levels[better] = level
    return best


def _row_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) IoU of each box of (N, 4) with the one of the same row."""
    return matched_pairwise_iou(Boxes(torch.from_numpy(first)), Boxes(torch.from_numpy(second))).numpy()


def shape_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, M) IoU of (N, 2) and (M, 2) widths and heights, with the same centre."""
    both = np.minimum(first[:, None], second[None]).prod(axis=2)
    return both / (first.prod(axis=1)[:, None] + second.prod(axis=1)[None] - both)


def cluster_shapes(shapes: NDArray[np.float64], count: int, seed: int = 0) -> NDArray[np.float64]:
    """K-means over widths and heights with the distance 1 - IoU (Redmon and Farhadi 2017).

    Args:
        shapes: (N, 2) widths and heights.
        count: of clusters, at most N.
        seed: of the first centres, drawn far from each other (k-means++, Arthur and Vassilvitskii 2007).

    Returns:
        (``count``, 2) medians of the clusters, by area.
    """
    random = np.random.default_rng(seed)
    centres = shapes[random.integers(len(shapes))][None]
    while len(centres) < count:
        distance = 1 - shape_iou(shapes, centres).max(axis=1)
        weights = distance**2 if distance.any() else np.ones(len(shapes))
        centres = np.vstack([centres, shapes[random.choice(len(shapes), p=weights / weights.sum())]])
    nearest = np.full(len(shapes), -1)
    for _ in range(_ITERATIONS):
        previous, nearest = nearest, shape_iou(shapes, centres).argmax(axis=1)
        if np.array_equal(previous, nearest):
            break
        centres = np.array(
            [
                np.median(shapes[nearest == index], axis=0) if (nearest == index).any() else centre
                for index, centre in enumerate(centres)
            ]
        )
    return centres[np.argsort(centres.prod(axis=1))]


def recall_table(
    boxes: ScaledBoxes,
    class_names: Sequence[str],
    anchors: Mapping[str, Anchors],
    thresholds: Sequence[float],
) -> list[dict[str, Any]]:
    """How many boxes the best anchor overlaps by each threshold, for all boxes, by class and by size.

    Args:
        boxes: of a data set.
        class_names: by index.
        anchors: by the name of the column.
        thresholds: IoU, such as ``MODEL.RPN.IOU_THRESHOLDS``: an anchor above the higher one learns to be an object,
            one below the lower to be background.

    Returns:
        Rows with the name of the boxes, their number, and of each column of ``anchors`` the recall in percent at each
        threshold and the mean IoU.
    """
    first = next(iter(anchors.values()))
    levels = first.level_of(boxes.shapes)
    groups = {"all": np.ones(len(boxes.boxes), bool)}
    if len(class_names) > 1:
        groups.update({name: boxes.classes == index for index, name in enumerate(class_names)})
    for level, stride in enumerate(first.strides):
        low, high = (_SIZE_PER_STRIDE * stride * 2**half for half in (-0.5, 0.5))
        groups[f"{low:.0f} to {high:.0f} px"] = levels == level
    overlaps = {
        name: best_anchors(boxes.boxes, boxes.image_sizes, one).overlaps for name, one in anchors.items()
    }
    rows = []
    for group, inside in groups.items():
        if not inside.any():
            continue
        row: dict[str, Any] = {"boxes": group, "number": int(inside.sum())}
        for name, values in overlaps.items():
            for threshold in thresholds:
                row[f"{name} >= {threshold}"] = 100 * float((values[inside] >= threshold).mean())
            row[f"{name} mean"] = float(values[inside].mean())
        rows.append(row)
    return rows
