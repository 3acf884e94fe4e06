"""Predicts mirrored, turned and resized copies of an image and merges what they show, on masks.

Detectron2's own test-time augmentation knows one mirror image and merges boxes; cells have no upper side, so all eight
symmetries of the square are honest views, and what matters is the outline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bccd_d2.data.preprocessing import resize_image, scaled_size
from bccd_d2.errors import InputError
from bccd_d2.structures.cells import Cells, concatenate
from bccd_d2.structures.detections import MASK_THRESHOLD, Detections

_SAME_CELL_IOU = 0.5


@dataclass(frozen=True)
class View:
    """A way to look at an image: resized, then mirrored left to right, then turned by 90 degrees counter-clockwise."""

    scale: float = 1.0
    mirrored: bool = False
    turns: int = 0

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The view of an image (H, W, 3)."""
        image = resize_image(image, *scaled_size(image.shape[0], image.shape[1], self.scale))
        return np.rot90(image[:, ::-1] if self.mirrored else image, self.turns)

    def undo(self, detections: Detections, height: int, width: int) -> Detections:
        """Detections in pixels of what :meth:`apply` returned, as detections in the image."""
        for _ in range(-self.turns % 4):
            detections = detections.turned()
        if self.mirrored:
            detections = detections.mirrored()
        return detections.resized(height, width)


@dataclass(frozen=True)
class TestTimeAugmentation:
    """The views of an image that are predicted and merged; the image itself is always one of them.

    Attributes:
        flip: mirror images too.
        rot90: turns by multiples of 90 degrees too; with ``flip`` these are the eight symmetries of a square.
        scales: each view at each of these sizes, relative to the size the model was trained at.
    """

    # pytest would take the name for that of a test.
    __test__ = False

    flip: bool = True
    rot90: bool = True
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0:
            raise InputError(
                f"TEST.TTA.SCALES: expected one or more numbers above 0, found {list(self.scales)}"
            )

    def views(self) -> list[View]:
        """All views, the image itself first where 1 is the first scale."""
        return [
            View(scale, mirrored, turns)
            for scale in self.scales
            for mirrored in ((False, True) if self.flip else (False,))
            for turns in (range(4) if self.rot90 else (0,))
        ]


def predict_images(
    run: Callable[[Sequence[NDArray[np.uint8]]], list[Detections]],
    images: Sequence[NDArray[np.uint8]],
    sizes: Sequence[tuple[int, int]],
    augmentation: TestTimeAugmentation | None,
    most: int,
) -> Iterator[Cells]:
    """Predict prepared images (h, w, 3) uint8, in several views that are merged (:func:`merge_views`) if
    ``augmentation`` says so.

    The cells, ``most`` of an image, are in pixels of native images of the ``sizes`` (height, width), best score first.
    """
    if augmentation is None:
        for found, size in zip(run(images), sizes):
            yield found.resized(*size).paste()
        return
    views = augmentation.views()
    for image, size in zip(images, sizes):
        seen = zip(views, run([view.apply(image) for view in views]))
        yield merge_views([view.undo(found, *size) for view, found in seen])[:most]


def merge_views(found: Sequence[Detections]) -> Cells:
    """One cell for all detections of it; ``found`` holds those of each view, all in pixels of one image. Best score
    first.

    The detections of all views are taken best score first; each founds a cell and takes from every other view the one
    not yet taken that overlaps it most, if their masks have an IoU of at least 0.5. With members m of scores s_m in V
    views: probability of a pixel = sum(s_m p_m) / sum(s_m), and the mask is where it reaches 0.5; box = the mean with
    the same weights (weighted box fusion, Solovyev et al. 2021); score = sum(s_m) / V, so that a view which misses the
    cell counts as 0; class = that with the largest sum of scores. Two detections of one view are never one cell: the
    network has told them apart.
    """
    cells = concatenate([detections.paste() for detections in found])
    view = np.repeat(np.arange(len(found)), [len(detections) for detections in found])
    position = np.concatenate([np.arange(len(detections)) for detections in found])
    windows = np.concatenate([detections.windows() for detections in found])
    ious = cells.ious(cells)
    free = np.ones(len(cells), bool)
    clusters = []
    for leader in np.argsort(-cells.scores, kind="stable"):
        if not free[leader]:
            continue
        cluster = [int(leader)]
        similar = np.flatnonzero(free & (ious[leader] >= _SAME_CELL_IOU) & (view != view[leader]))
        for other in np.unique(view[similar]):
            candidates = similar[view[similar] == other]
            cluster.append(int(candidates[ious[leader][candidates].argmax()]))
        free[cluster] = False
        clusters.append(np.array(cluster))
    masks, origins, boxes, classes, scores = [], [], [], [], []
    for members in clusters:
        weights = cells.scores[members]
        window = np.concatenate([windows[members, :2].min(axis=0), windows[members, 2:].max(axis=0)])
        probability = sum(
            weight * found[view[m]].probability(position[m], window) for weight, m in zip(weights, members)
        )
        masks.append(probability >= MASK_THRESHOLD * weights.sum())
        origins.append((int(window[0]), int(window[1])))
        boxes.append(weights @ cells.boxes[members] / weights.sum())
        classes.append(int(np.bincount(cells.classes[members], weights).argmax()))
        scores.append(weights.sum() / len(found))
    merged = Cells.from_masks(
        cells.height,
        cells.width,
        masks,
        origins=origins,
        boxes=np.array(boxes).reshape(-1, 4),
        classes=classes,
        scores=scores,
    )
    return merged[np.argsort(-merged.scores, kind="stable")]
