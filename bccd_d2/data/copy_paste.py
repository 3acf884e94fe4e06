"""Copy-paste of cells between images (Ghiasi et al., CVPR 2021).

Cells of other training images are pasted at random places, with their borders blended, and hide what is below. Unlike
there, rare classes are pasted more often, stain is adapted, and cells do not pile up.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T  # noqa: N812  Detectron2's own habit
from detectron2.structures import BoxMode
from fvcore.transforms.transform import Transform
from numpy.typing import NDArray
from tqdm import tqdm

from bccd_d2.data.augmentation import draw_generator
from bccd_d2.data.label_map import ImageInstances, resize_labels
from bccd_d2.data.preprocessing import ColorNormalizer, read_dataset_image, resize_image, scaled_size
from bccd_d2.data.stain import ReinhardNormalizer, StainStatistics
from bccd_d2.errors import InputError

_logger = logging.getLogger(__name__)
# Around a cell, native pixels; its blended border needs the background beside it.
_MARGIN = 4
# Standard deviation of the blended border, network pixels.
_BLEND = 1.0
_PLACES_TRIED = 10
# A crop gets 0 to this many cells, each number as likely.
MAX_CELLS = 4
# Cut out when training starts and kept in memory, 40 to 200 kB each.
_CELLS_PER_CLASS = 64
# Share of a pasted cell that may lie on other cells. Real cells overlap a little.
_MAX_OVERLAP = 0.1


@dataclass(frozen=True)
class Cell:
    """One cell, cut out of its image with a margin, native pixels."""

    image: NDArray[np.uint8]  # (h, w, 3) uint8
    mask: NDArray[np.bool_]  # (h, w) bool
    category: int  # contiguous class
    statistics: StainStatistics | None  # stain of its image
    box_scale: float = 1.0  # side of its annotated box in sides of the one around its mask
    cell_diameter: float = 0.0  # median of the cells of its image, native pixels; 0: not known


class CellBank:
    """Cells to paste; a class is drawn the more often the fewer instances the data set has of it (``counts``)."""

    def __init__(self, cells: Sequence[Cell], counts: Mapping[int, int]) -> None:
        self._by_class = {c: [cell for cell in cells if cell.category == c] for c in sorted(counts)}
        self._by_class = {category: found for category, found in self._by_class.items() if found}
        if not self._by_class:
            raise InputError("INPUT.COPY_PASTE: no annotated cell lies whole inside its image")
        weights = np.array([1 / counts[category] for category in self._by_class])
        self.probabilities = dict(zip(self._by_class, (weights / weights.sum()).tolist()))

    @classmethod
    def from_dataset(
        cls,
        dataset_dicts: Sequence[Mapping[str, Any]],
        per_class: int,
        normalizer: ReinhardNormalizer,
        seed: int,
        colors: ColorNormalizer | None = None,
    ) -> CellBank:
        """Cut out up to ``per_class`` cells of each class, evenly drawn from those the image border does not cut.

        ``normalizer`` measures the stain; the images get the white balance of ``colors``. Raises InputError where no
        cell can be used or an image cannot be read.
        """
        counts: Counter[int] = Counter()
        candidates: dict[int, list[tuple[int, int]]] = {}
        for image_index, record in enumerate(dataset_dicts):
            for index, annotation in enumerate(record["annotations"]):
                if annotation.get("iscrowd", 0):
                    continue
                counts[annotation["category_id"]] += 1
                x0, y0, x1, y1 = BoxMode.convert(
                    annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS
                )
                if x0 > 0 and y0 > 0 and x1 < record["width"] and y1 < record["height"]:
                    candidates.setdefault(annotation["category_id"], []).append((image_index, index))
        generator = np.random.default_rng(seed)
        chosen: dict[int, list[int]] = {}
        for category in sorted(candidates):
            found = candidates[category]
            for k in generator.permutation(len(found))[:per_class]:
                chosen.setdefault(found[k][0], []).append(found[k][1])
        cells = []
        for image_index in tqdm(sorted(chosen), desc="cells to paste", unit="image", leave=False):
            record = dataset_dicts[image_index]
            image = read_dataset_image(record["file_name"], normalizer.image_format)
            image = image if colors is None else colors.balance(image)
            statistics = normalizer.statistics(image)
            for index in chosen[image_index]:
                cells.append(_cut_out(image, record, index, statistics))
        bank = cls(cells, counts)
        _logger.info(
            "%d cells to paste from %d images; share of each class: %s",
            len(cells),
            len(chosen),
            {category: round(share, 3) for category, share in bank.probabilities.items()},
        )
        return bank

    def draw(self, generator: np.random.Generator) -> Cell:
        """One cell."""
        classes = list(self.probabilities)
        category = int(generator.choice(classes, p=list(self.probabilities.values())))
        found = self._by_class[category]
        return found[int(generator.integers(len(found)))]


def _cut_out(
    image: NDArray[np.uint8], record: Mapping[str, Any], index: int, statistics: StainStatistics | None
) -> Cell:
    annotation = record["annotations"][index]
    height, width = image.shape[:2]
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    x0, y0 = max(int(box[0]) - _MARGIN, 0), max(int(box[1]) - _MARGIN, 0)
    x1 = min(int(np.ceil(box[2])) + _MARGIN, width)
    y1 = min(int(np.ceil(box[3])) + _MARGIN, height)
    found = ImageInstances.from_annotations([annotation], height, width, record["file_name"])
    return Cell(
        image[y0:y1, x0:x1].copy(),
        found.label_map(x0, y0, x1 - x0, y1 - y0)[..., 0] > 0,
        int(annotation["category_id"]),
        statistics,
        box_scale=float(found.box_scales[0]),
        cell_diameter=record.get("cell_diameter", 0.0),
    )


@dataclass(frozen=True)
class Patch:
    """A cell at its place in a crop, network pixels."""

    image: NDArray[np.uint8]  # (h, w, 3) uint8
    mask: NDArray[np.bool_]  # (h, w) bool
    x: int  # left edge in the crop
    y: int
    category: int  # contiguous class
    box_scale: float = 1.0

    def window(self, array: NDArray[Any]) -> NDArray[Any]:
        """What of an array of the crop's size lies under the patch; a view."""
        height, width = self.mask.shape
        return array[self.y : self.y + height, self.x : self.x + width]


class PasteTransform(Transform):
    """Pastes patches, in order; the first gets the label ``first_label``, the others follow."""

    def __init__(self, patches: Sequence[Patch], first_label: int) -> None:
        super().__init__()
        self.patches, self.first_label = patches, first_label
        self.added_classes = np.array([patch.category for patch in patches], np.int64)
        self.added_areas = np.array([patch.mask.sum() for patch in patches], np.float64)
        self.added_box_scales = np.array([patch.box_scale for patch in patches], np.float64)

    def apply_image(self, img: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Blend the cells into (H, W, 3) uint8."""
        result = img.copy()
        for patch in self.patches:
            opacity = np.maximum(cv2.GaussianBlur(patch.mask.astype(np.float32), (0, 0), _BLEND), 0)[
                ..., None
            ]
            window = patch.window(result)
            window[:] = np.rint(opacity * patch.image + (1 - opacity) * window)
        return result

    def apply_segmentation(self, segmentation: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Draw the labels into a (H, W, L) label map; what they hide is gone."""
        result = segmentation.copy()
        for k, patch in enumerate(self.patches):
            window = patch.window(result)
            window[patch.mask] = 0
            window[..., 0][patch.mask] = self.first_label + k
        return result

    def apply_coords(self, coords: NDArray[Any]) -> NDArray[Any]:
        """Points stay."""
        return coords


class CopyPaste(T.Augmentation):
    """Pastes 0 to ``max_cells`` cells in the stain of the crop, fewer where no place is free."""

    def __init__(self, bank: CellBank, max_cells: int, normalizer: ReinhardNormalizer) -> None:
        super().__init__()
        self.bank, self.max_cells, self.normalizer = bank, max_cells, normalizer

    def __repr__(self) -> str:
        return f"CopyPaste(max_cells={self.max_cells}, classes={self.bank.probabilities})"

    def get_transform(
        self,
        image: NDArray[np.uint8],
        sem_seg: NDArray[np.uint16],
        classes: NDArray[np.int64],
        area_scale: float,
        stain_statistics: StainStatistics | None,
        cell_diameter: float = 0.0,
    ) -> Transform:
        """Draw cells and free places for them; see :class:`bccd_d2.data.label_map.CellInput`."""
        generator = draw_generator()
        taken = np.asarray(np.any(sem_seg, axis=-1))
        patches = []
        for _ in range(int(generator.integers(self.max_cells + 1))):
            cell = self.bank.draw(generator)
            scale = float(np.sqrt(area_scale))
            if cell_diameter > 0 and cell.cell_diameter > 0:  # of an image of another magnification
                scale = cell_diameter / cell.cell_diameter
            picture, mask = self._prepare(cell, scale, stain_statistics, int(generator.integers(8)))
            place = _free_place(taken, mask, generator)
            if place is not None:
                patch = Patch(picture, mask, *place, cell.category, cell.box_scale)
                patch.window(taken)[mask] = True
                patches.append(patch)
        return PasteTransform(patches, len(classes) + 1) if patches else T.NoOpTransform()

    def _prepare(
        self, cell: Cell, scale: float, statistics: StainStatistics | None, orientation: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Cell in network pixels, in the crop's stain, in one of the eight orientations."""
        height, width = scaled_size(cell.mask.shape[0], cell.mask.shape[1], scale)
        picture = resize_image(cell.image, height, width)
        mask = resize_labels(cell.mask[..., None].astype(np.uint16), height, width)[..., 0] > 0
        if statistics is not None:
            picture = self.normalizer.apply(picture, cell.statistics, statistics)
        picture, mask = np.rot90(picture, orientation % 4), np.rot90(mask, orientation % 4)
        if orientation >= 4:
            picture, mask = picture[:, ::-1], mask[:, ::-1]
        return np.ascontiguousarray(picture), np.ascontiguousarray(mask)


def _free_place(
    taken: NDArray[np.bool_], mask: NDArray[np.bool_], generator: np.random.Generator
) -> tuple[int, int] | None:
    """x and y where the mask lies inside and on little that is taken; None where a few tries find none."""
    height, width = mask.shape
    if not mask.any() or height > taken.shape[0] or width > taken.shape[1]:
        return None
    for _ in range(_PLACES_TRIED):
        y = int(generator.integers(taken.shape[0] - height + 1))
        x = int(generator.integers(taken.shape[1] - width + 1))
        if taken[y : y + height, x : x + width][mask].sum() <= _MAX_OVERLAP * mask.sum():
            return x, y
    return None


def build_copy_paste(cfg: CfgNode, dataset_dicts: Sequence[Mapping[str, Any]]) -> CopyPaste:
    """Copy-paste as ``INPUT.COPY_PASTE`` asks for, from the given training data."""
    normalizer, colors = ReinhardNormalizer.from_config(cfg), ColorNormalizer.from_config(cfg)
    bank = CellBank.from_dataset(dataset_dicts, _CELLS_PER_CLASS, normalizer, max(cfg.SEED, 0), colors)
    return CopyPaste(bank, MAX_CELLS, normalizer)
