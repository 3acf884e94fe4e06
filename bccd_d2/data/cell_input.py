"""What augmentations of cells see and change."""

from __future__ import annotations

import numpy as np
from detectron2.data import transforms as T  # noqa: N812  Detectron2's own habit
from fvcore.transforms.transform import Transform
from numpy.typing import NDArray

from bccd_d2.data.stain import StainStatistics


class CellInput(T.AugInput):
    """Detectron2's augmentation input, with the instances as a label map in ``sem_seg``.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W, L) uint16, see :meth:`bccd_d2.data.label_map.ImageInstances.label_map`.
        classes: (N,) class of label 1, 2, ...
        areas: (N,) pixels that each instance would have if nothing hid or cut it, in pixels of ``image``.
        area_scale: network pixels per native pixel, in area.
        stain_statistics: of the whole image that this is a crop of.
        box_scales: (N,) sides of the annotated boxes in sides of those around the masks; ``None`` for 1.
        cell_diameter: median diameter of the image's cells in pixels of ``image``; 0 where it is not known.
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
