"""The cells of one image, each with a mask as large as the cell: 70 cells of a 1600x1200 image are 134 MB as whole
masks and half a megabyte so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bccd_d2.errors import InputError
from bccd_d2.structures.cell_size import disc_diameter
from bccd_d2.structures.rle import compress_runs, decode_columns

BORDER_MARGIN = 1
"""Pixels from the image's border that count as touching it: masks of a network end a pixel early now and then."""


@dataclass(frozen=True)
class Cells:
    """N cells of one image, in native pixels."""

    height: int
    width: int
    # (N, 4) int64 ``x0, y0, x1, y1``, end exclusive, inside the image: where each mask lies
    windows: NDArray[np.int64]
    masks: Sequence[NDArray[np.bool_]]  # N bool arrays, each as large as its window
    boxes: NDArray[np.float64]  # (N, 4) float64 xyxy; those of the detector, or the tight boxes of the masks
    classes: NDArray[np.int64]  # (N,) int64 class indices
    scores: NDArray[np.float64]  # (N,) float64 in [0, 1]; 1 for annotations

    def __post_init__(self) -> None:
        lengths = {len(self.windows), len(self.masks), len(self.boxes), len(self.classes), len(self.scores)}
        if len(lengths) > 1:
            raise ValueError(f"windows, masks, boxes, classes and scores differ in length: {sorted(lengths)}")

    @classmethod
    def from_masks(
        cls,
        height: int,
        width: int,
        masks: Iterable[NDArray[Any]],
        *,
        origins: Sequence[tuple[int, int]] | None = None,
        boxes: NDArray[Any] | None = None,
        classes: Sequence[int] | NDArray[Any] | None = None,
        scores: Sequence[float] | NDArray[Any] | None = None,
    ) -> Cells:
        """Cells from masks that are not 0 inside, cut down to those pixels.

        The masks have the image's size, or with ``origins``, the (x, y) of their upper left pixels, any size that
        fits. ``boxes`` (N, 4) xyxy default to the tight boxes of the masks, ``classes`` to 0 and ``scores`` to 1.
        """
        windows, cut = [], []
        for index, mask in enumerate(masks):
            inside = np.asarray(mask) != 0
            x, y = origins[index] if origins is not None else (0, 0)
            left, top, window_width, window_height = cv2.boundingRect(inside.view(np.uint8))
            windows.append((x + left, y + top, x + left + window_width, y + top + window_height))
            cut.append(inside[top : top + window_height, left : left + window_width].copy())
        frames = np.array(windows, np.int64).reshape(-1, 4)
        number = len(cut)
        return cls(
            height,
            width,
            frames,
            cut,
            frames.astype(np.float64) if boxes is None else np.asarray(boxes, np.float64).reshape(-1, 4),
            np.zeros(number, np.int64) if classes is None else np.asarray(classes, np.int64).reshape(-1),
            np.ones(number) if scores is None else np.asarray(scores, np.float64).reshape(-1),
        )

    @classmethod
    def from_rles(
        cls,
        height: int,
        width: int,
        rles: Iterable[Mapping[str, Any]],
        *,
        boxes: NDArray[Any] | None = None,
        classes: Sequence[int] | NDArray[Any] | None = None,
        scores: Sequence[float] | NDArray[Any] | None = None,
    ) -> Cells:
        """Cells from COCO RLE of the image's size, compressed or plain; the rest as :meth:`from_masks`. Raises
        InputError for an RLE that is malformed or of another size.
        """
        strips = [decode_columns(rle, height, width) for rle in rles]
        return cls.from_masks(
            height,
            width,
            [strip for strip, _ in strips],
            origins=[(x, 0) for _, x in strips],
            boxes=boxes,
            classes=classes,
            scores=scores,
        )

    @classmethod
    def from_label_image(cls, labels: NDArray[Any], classes: Mapping[int, int] | None = None) -> Cells:
        """Cells of a label image, (height, width) integers with 0 for the background, by rising label; ``classes``
        gives the class index of each label. Raises InputError for an array of another form.
        """
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer) or (labels < 0).any():
            raise InputError(
                f"label image of shape {labels.shape} and type {labels.dtype}, expected (height, width) of integers "
                "from 0 on"
            )
        numbers, compact = np.unique(labels, return_inverse=True)
        compact = compact.reshape(labels.shape)
        if numbers[0] != 0:
            compact = compact + 1
        found = ndimage.find_objects(compact.astype(np.int32))
        numbers = numbers[numbers != 0]
        height, width = labels.shape
        return cls.from_masks(
            height,
            width,
            (compact[window] == index for index, window in enumerate(found, start=1)),
            origins=[(columns.start, rows.start) for rows, columns in found],
            classes=[classes[int(number)] for number in numbers] if classes is not None else None,
        )

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: slice | NDArray[Any] | Sequence[int]) -> Cells:
        """The chosen cells, by slice, indices or a bool array (N,), in the order of the indices."""
        chosen = np.arange(len(self))[index]
        return Cells(
            self.height,
            self.width,
            self.windows[chosen],
            [self.masks[i] for i in chosen],
            self.boxes[chosen],
            self.classes[chosen],
            self.scores[chosen],
        )

    @property
    def areas(self) -> NDArray[np.int64]:
        """(N,) pixels of each mask."""
        return np.array([np.count_nonzero(mask) for mask in self.masks], np.int64)

    @property
    def diameters(self) -> NDArray[np.float64]:
        """(N,) of discs with the masks' areas, in pixels."""
        return disc_diameter(self.areas)

    def touches_border(self, margin: int = 0) -> NDArray[np.bool_]:
        """(N,) whether a mask comes within ``margin`` pixels of the image's border; 0 means its outermost pixels."""
        x0, y0, x1, y1 = self.windows.T
        return (
            (x0 <= margin) | (y0 <= margin) | (x1 >= self.width - margin) | (y1 >= self.height - margin)
        ) & (x1 > x0)

    def full_masks(self) -> NDArray[np.bool_]:
        """(N, height, width) bool: masks of the image's size, for those who need them so."""
        whole = np.zeros((len(self), self.height, self.width), bool)
        for target, mask, (x0, y0, x1, y1) in zip(whole, self.masks, self.windows):
            target[y0:y1, x0:x1] = mask
        return whole

    def part(self, index: int, frame: tuple[int, int, int, int]) -> NDArray[np.bool_]:
        """What a mask has in a frame, xyxy in the image, inside its window; a view."""
        (x0, y0, x1, y1), (left, top) = frame, self.windows[index, :2]
        return self.masks[index][y0 - top : y1 - top, x0 - left : x1 - left]

    def parts(
        self, frame: tuple[int, int, int, int]
    ) -> Iterator[tuple[int, NDArray[np.bool_], tuple[slice, slice]]]:
        """Index of each cell whose window reaches into a frame, xyxy in the image, what its mask has there, and the
        rows and columns of that in the frame.
        """
        low, high = np.maximum(self.windows[:, :2], frame[:2]), np.minimum(self.windows[:, 2:], frame[2:])
        for index in np.flatnonzero((high > low).all(axis=1)).tolist():
            (x0, y0), (x1, y1) = low[index].tolist(), high[index].tolist()
            place = slice(y0 - frame[1], y1 - frame[1]), slice(x0 - frame[0], x1 - frame[0])
            yield index, self.part(index, (x0, y0, x1, y1)), place

    def label_image(self, priority: NDArray[np.float64] | None = None) -> NDArray[np.int32]:
        """(height, width) int32, cell i as i + 1; where cells overlap, the one with the better score, or ``priority``
        (N,), is on top; of equal ones the last.
        """
        labels = np.zeros((self.height, self.width), np.int32)
        for index in np.argsort(self.scores if priority is None else priority, kind="stable"):
            x0, y0, x1, y1 = self.windows[index]
            labels[y0:y1, x0:x1][self.masks[index]] = index + 1
        return labels

    def rles(self) -> list[dict[str, Any]]:
        """Compressed COCO RLE of the image's size with ``counts`` as str, in time that goes with the cells' area."""
        return [
            _rle_in_image(mask, x0, y0, self.height, self.width)
            for mask, (x0, y0, _, _) in zip(self.masks, self.windows.tolist())
        ]

    def intersections(self, other: Cells) -> NDArray[np.int64]:
        """(N, M) pixels that each cell shares with each cell of ``other``, which lies on the same image."""
        shared = np.zeros((len(self), len(other)), np.int64)
        low = np.maximum(self.windows[:, None, :2], other.windows[None, :, :2])
        high = np.minimum(self.windows[:, None, 2:], other.windows[None, :, 2:])
        for i, j in np.argwhere((high > low).all(axis=2)):
            frame = (*low[i, j], *high[i, j])
            shared[i, j] = np.count_nonzero(self.part(i, frame) & other.part(j, frame))
        return shared

    def ious(self, other: Cells) -> NDArray[np.float64]:
        """(N, M) intersection over union of each mask with each mask of ``other``, in [0, 1]; 0 for two empty ones."""
        shared = self.intersections(other)
        union = self.areas[:, None] + other.areas[None] - shared
        return shared / np.maximum(union, 1)


def concatenate(parts: Sequence[Cells]) -> Cells:
    """The cells of several parts (one at least) of one image, in order."""
    first = parts[0]
    return Cells(
        first.height,
        first.width,
        np.concatenate([part.windows for part in parts]),
        [mask for part in parts for mask in part.masks],
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def _rle_in_image(mask: NDArray[np.bool_], x0: int, y0: int, height: int, width: int) -> dict[str, Any]:
    """Encode a window as if it were a whole image, from the places where its columns change."""
    # A row of background ends the last run of each column.
    columns = np.zeros((mask.shape[0] + 1, mask.shape[1]), np.uint8, order="F")
    columns[:-1] = mask
    changes = np.flatnonzero(np.diff(columns.ravel(order="F"), prepend=np.uint8(0)))
    column, row = np.divmod(changes, len(columns))
    # COCO counts down the columns of the whole image.
    edges = (column + x0) * height + row + y0
    starts, stops = edges[::2], edges[1::2]
    # A run down to the last row goes on in the next column if that begins inside.
    ends = np.append(starts[1:] != stops[:-1], True)[: len(stops)]
    begins = np.append(True, ends)[: len(starts)]
    return compress_runs(starts[begins], stops[ends], height, width)
