"""What is doubtful in an image, judged by its measures and those of the whole set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bccd_d2.audit.measure import ImageMeasures

Kind = Literal["merged", "unlabelled", "cut_unlabelled", "fragment", "faint", "speck"]

MERGED_AREA = 1.3
"""Two cells that overlap by half still cover this many typical cells."""
MERGED_DISC = 0.65
"""In one cell a disc fits that fills most of it; in two side by side it fills half. Held against the hand-made boxes
of 60 real images this tells more than solidity does, see docs/audit.md."""
FRAGMENT_AREA = 0.2
"""An outline inside the image below this many typical cells is a scrap, or a platelet among cells."""
FAINT_STRENGTH = 0.3
"""An outline whose pixels differ from the glass by less than this share of what typical cells do shows no cell."""
MISFIT_SEPARATION = 0.35
"""Below this a mask does not follow the colours of its image. On 60 real pairs it is 0.82 and more, with nine of ten
outlines erased still 0.44 and more; with the mask of another image at most 0.16."""
MIN_INNER_CELLS = 8
"""From this many whole cells on an image knows its own typical cell; else images of the same size say it."""
WEIGHTS: Mapping[Kind, float] = {
    "merged": 1.0,
    "unlabelled": 1.0,
    "faint": 1.0,
    "cut_unlabelled": 0.5,  # only part of a cell
    "fragment": 0.5,
    "speck": 0.25,  # dropped by the conversion
}
SMALL_SAMPLE = 5
"""Cells added to every image before it is ranked, so that one bad cell of two does not outrank twenty of sixty."""


@dataclass(frozen=True)
class Suspect:
    """One thing in an image that should be looked at.

    Attributes:
        kind: ``merged``: one outline around several cells. ``unlabelled``: looks like a cell, has no mask.
            ``cut_unlabelled``: the same at the border of the image. ``fragment``: kept, but far too small.
            ``faint``: an outline where the image shows glass. ``speck``: too small to be kept.
        label: its number in the map it comes from, see :class:`bccd_d2.audit.measure.Examined`.
        box: x, y, width, height in pixels of the image.
        area: pixels.
        why: the reason in words and numbers.
    """

    kind: Kind
    label: int
    box: tuple[int, int, int, int]
    area: int
    why: str


@dataclass(frozen=True)
class Verdict:
    """What is doubtful in one image.

    Attributes:
        suspects: see :class:`Suspect`.
        typical_area: of a whole cell in this image, in pixels; not a number where no image tells.
        empty: whether there is no cell at all.
        misfit: whether the mask does not follow the colours of the image.
        score: share of the image's cells that is doubtful, weighted; what images are ranked by.
    """

    suspects: list[Suspect]
    typical_area: float
    empty: bool
    misfit: bool
    score: float
    counts: dict[Kind, int] = field(init=False)

    def __post_init__(self) -> None:
        counts: dict[Kind, int] = dict.fromkeys(WEIGHTS, 0)
        for suspect in self.suspects:
            counts[suspect.kind] += 1
        object.__setattr__(self, "counts", counts)


def typical_areas(measures: Sequence[ImageMeasures]) -> list[float]:
    """Median area of the cells that no border cuts, for each image, in pixels.

    An image with few such cells takes the median over all images of its size, and where they have none either, that
    over all cells of the set; not a number where the set has no cell.
    """
    inner = [m.cells.areas[~m.cells.border] for m in measures]
    by_size: dict[tuple[int, int], list[NDArray[np.int64]]] = {}
    for m, areas in zip(measures, inner):
        by_size.setdefault((m.height, m.width), []).append(areas)
    pooled = {size: np.concatenate(areas) for size, areas in by_size.items()}
    everything = np.concatenate([m.cells.areas for m in measures]) if measures else np.empty(0)
    typical = []
    for m, areas in zip(measures, inner):
        for sample, least in ((areas, MIN_INNER_CELLS), (pooled[m.height, m.width], 1), (everything, 1)):
            if len(sample) >= least:
                typical.append(float(np.median(sample)))
                break
        else:
            typical.append(math.nan)
    return typical


def judge(measures: ImageMeasures, typical_area: float) -> Verdict:
    """Everything doubtful in one image.

    Args:
        measures: of the image.
        typical_area: see :func:`typical_areas`.
    """
    misfit = measures.colours.separation < MISFIT_SEPARATION
    # Under a wrong mask nothing that goes by colour means anything.
    suspects = [] if misfit else _cells(measures, typical_area)
    for shapes, kind in ((measures.unlabelled, "unlabelled"), (measures.specks, "speck")):
        if misfit:
            continue
        for label, box, area, border in zip(shapes.labels, shapes.boxes, shapes.areas, shapes.border):
            cut = kind == "unlabelled" and border
            suspects.append(
                Suspect(
                    kind="cut_unlabelled" if cut else kind,  # type: ignore[arg-type]
                    label=int(label),
                    box=_box(box),
                    area=int(area),
                    why=(
                        f"{area} pixels, too small for a cell"
                        if kind == "speck"
                        else "looks like a cell, has no outline"
                        + (", cut by the border of the image" if cut else "")
                    ),
                )
            )
    cells = len(measures.cells)
    # Cells that are missing count as cells that should be there.
    missing = sum(suspect.kind in ("unlabelled", "cut_unlabelled") for suspect in suspects)
    weight = sum(WEIGHTS[suspect.kind] for suspect in suspects)
    return Verdict(
        suspects=suspects,
        typical_area=typical_area,
        empty=cells == 0,
        misfit=misfit,
        score=weight / (cells + missing + SMALL_SAMPLE) + (cells == 0) + misfit,
    )


def _cells(measures: ImageMeasures, typical_area: float) -> list[Suspect]:
    """What is doubtful about the cells that have an outline; a cell counts once, for the gravest reason."""
    cells = measures.cells
    found = []
    for index in range(len(cells)):
        times = cells.areas[index] / typical_area
        disc, strength = cells.disc_shares[index], measures.strengths[index]
        if strength < FAINT_STRENGTH:
            kind: Kind = "faint"
            why = f"differs from the glass by {max(strength, 0):.0%} of what a typical cell does"
        elif times > MERGED_AREA and disc < MERGED_DISC:
            kind = "merged"
            why = f"{times:.1f} times the typical cell, and the largest disc inside fills {disc:.0%} of it"
        elif times < FRAGMENT_AREA and not cells.border[index]:
            kind = "fragment"
            why = f"{times:.0%} of the typical cell"
        else:
            continue
        found.append(
            Suspect(kind, int(cells.labels[index]), _box(cells.boxes[index]), int(cells.areas[index]), why)
        )
    return found


def _box(box: NDArray[np.int64]) -> tuple[int, int, int, int]:
    x, y, width, height = (int(value) for value in box)
    return x, y, width, height
