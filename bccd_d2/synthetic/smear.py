"""One synthetic smear: the picture and its exact truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.synthetic.camera import photograph
from bccd_d2.synthetic.field import Field, fill
from bccd_d2.synthetic.slide import CELL_DIAMETER, Slide, Variety, draw_slide

MIN_AREA = 100  # pixels; what is smaller is no instance, as in the conversion of real masks
_MIN_SIDE = 32
_MOST_CELLS = 65535  # a 16-bit instance map holds no more
_SPECKLED = 0.12  # share of masks with specks


@dataclass(frozen=True)
class SyntheticCell:
    """One annotated cell."""

    label: int  # its value in the instance map
    class_name: str  # "RBC", "WBC" or "Platelets", as in the BCCD detection set
    # what BBBC041 calls it: "red blood cell", "ring", "trophozoite", "schizont", "gametocyte", "leukocyte";
    # platelets, which that set does not annotate, are "platelet"
    category: str
    # (x0, y0, x1, y1) of its visible pixels, x1 and y1 exclusive, pixels of the picture
    box: tuple[int, int, int, int]
    area: int  # visible pixels
    visible: float  # share of the cell's pixels within the picture left after overlaps and dividing lines
    at_border: bool  # whether it touches the picture's border


@dataclass(frozen=True)
class SyntheticSmear:
    """A picture and its truth."""

    image: NDArray[np.uint8]  # (H, W, 3) uint8, BGR
    # (H, W) uint16, 0 background, 1..N the cells in the order of ``cells``. Each cell is one 8-connected region, no
    # two cells are 8-neighbours
    instances: NDArray[np.uint16]
    # (H, W) uint8, 0 or 255: the cells an annotator of the real set would mark (white and red cells, and platelets
    # if asked for) and, in some pictures, stray specks of under 100 pixels
    mask: NDArray[np.uint8]
    cells: tuple[SyntheticCell, ...]  # the annotated cells
    slide: Slide  # the slide it was drawn on

    def masked_cells(self) -> tuple[SyntheticCell, ...]:
        """The cells that are marked in ``mask``: its components of at least 100 pixels are exactly these."""
        marked = set(np.unique(self.instances[self.mask > 0]).tolist())
        return tuple(cell for cell in self.cells if cell.label in marked)


_CLASS_NAMES = {"leukocyte": "WBC", "platelet": "Platelets"}  # every other category is a red cell


def _divide(labels: NDArray[np.uint16], line: int) -> NDArray[np.uint16]:
    """The labels with lines of background, ``line`` pixels wide (1 to 3), between cells that touch."""
    near = np.ones((3, 3), np.uint8)
    cut = cv2.dilate(labels, np.ones((5, 5), np.uint8) if line == 3 else near) > labels
    if line > 1:
        nothing = np.uint16(np.iinfo(np.uint16).max)
        cut |= cv2.erode(np.where(labels > 0, labels, nothing), near) < labels
    return np.where(cut, np.uint16(0), labels)


def _truth(field: Field, line: int) -> tuple[NDArray[np.uint16], tuple[SyntheticCell, ...]]:
    """The final instance map, and its cells: of each the largest piece, without those under ``MIN_AREA``."""
    labels = _divide(field.labels.astype(np.uint16), line)
    height, width = labels.shape
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((labels > 0).astype(np.uint8), connectivity=8)
    largest: dict[int, int] = {}
    # After the division a piece has one label: that of any of its pixels.
    owner = np.zeros(len(stats), np.int64)
    owner[pieces.ravel()] = labels.ravel()
    for piece in range(1, len(stats)):
        best = largest.setdefault(int(owner[piece]), piece)
        if stats[piece, cv2.CC_STAT_AREA] > stats[best, cv2.CC_STAT_AREA]:
            largest[int(owner[piece])] = piece
    renumbered = np.zeros(len(stats), np.uint16)
    kept: list[SyntheticCell] = []
    for label in sorted(largest):
        left, top, columns, rows, area = (int(value) for value in stats[largest[label]])
        if area < MIN_AREA:
            continue
        renumbered[largest[label]] = len(kept) + 1
        category = field.categories[label - 1]
        kept.append(
            SyntheticCell(
                label=len(kept) + 1,
                class_name=_CLASS_NAMES.get(category, "RBC"),
                category=category,
                box=(left, top, left + columns, top + rows),
                area=area,
                visible=area / field.full_areas[label - 1],
                at_border=left == 0 or top == 0 or left + columns == width or top + rows == height,
            )
        )
    return renumbered[pieces], tuple(kept)


def _leave_specks(
    rng: np.random.Generator,
    mask: NDArray[np.uint8],
    instances: NDArray[np.uint16],
    places: list[tuple[int, int]],
) -> None:
    """In some pictures mark specks of dirt in the mask, clear of cells and of each other; in place."""
    if rng.random() > _SPECKLED:
        return
    number = int(rng.integers(1, 5)) if rng.random() < 0.9 else int(rng.integers(50, 200))
    for x, y in places[:number]:
        reach = int(rng.integers(1, 6))
        around = (slice(max(y - reach - 2, 0), y + reach + 3), slice(max(x - reach - 2, 0), x + reach + 3))
        if not instances[around].any() and not mask[around].any():
            cv2.circle(mask, (x, y), reach, 255, -1)


def check_size(width: int, height: int) -> None:
    """Raise :class:`InputError` for a picture that is too small to show a cell."""
    if min(width, height) < _MIN_SIDE:
        raise InputError(f"size: found {width}x{height}, expected at least {_MIN_SIDE}x{_MIN_SIDE} pixels")


def draw_smear(
    seed: int | Sequence[int],
    width: int = 1600,
    height: int = 1200,
    *,
    slide: Slide | None = None,
    cell_diameter: tuple[float, float] | None = None,
    platelets_in_mask: bool = False,
    variety: Variety = "bccd",
) -> SyntheticSmear:
    """Draw one smear; the same seed and arguments give the same smear, bit for bit.

    ``slide`` is stain, light and habits; None draws one of the variety from the seed, with the mean diameter of red
    cells in the range ``cell_diameter`` of pixels. Raises InputError if a side is under 32 pixels, the diameters
    are not two increasing numbers from 12 to 1000, or more cells fit than an instance map can hold.
    """
    check_size(width, height)
    rng = np.random.default_rng(seed)
    slide = slide or draw_slide(rng, cell_diameter or CELL_DIAMETER[variety], variety=variety)
    field = Field(rng, width, height, slide)
    fill(field)
    if len(field.categories) > _MOST_CELLS:
        raise InputError(
            f"size: {width}x{height} pixels hold {len(field.categories)} cells, expected at most {_MOST_CELLS}"
        )
    image = photograph(rng, field.density, slide)
    instances, kept = _truth(field, line=int(rng.integers(1, 4)))
    masked = [cell.label for cell in kept if platelets_in_mask or cell.class_name != "Platelets"]
    mask = np.isin(instances, masked).astype(np.uint8) * np.uint8(255)
    _leave_specks(rng, mask, instances, field.specks)
    return SyntheticSmear(image, instances, mask, kept, slide)
