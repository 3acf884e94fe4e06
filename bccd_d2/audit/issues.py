"""Issues of an image: outlines that look wrong and cells without one, from its measurements and those of the set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bccd_d2.audit.measure import ImageMeasures, InstanceShapes

Kind = Literal["merged", "unlabelled", "cut_unlabelled", "fragment", "faint", "speck"]

MERGED_AREA = 1.3  # two cells that overlap by half still cover this many typical cells
MERGED_DISC = 0.65
"""A disc fills most of one cell, and half of two side by side. On the annotated boxes of 60 real images this separates
better than solidity, see docs/audit.md."""
FRAGMENT_AREA = 0.2
"""An outline inside the image below this many typical cells is a fragment, or a platelet among cells."""
FAINT_STRENGTH = 0.3
"""An outline that differs from the background by less than this share of what typical cells do shows no cell."""
MISFIT_SEPARATION = 0.35
"""Below this a mask does not follow the colours of its image. On 60 real pairs it is 0.82 and more, with nine of ten
outlines erased still 0.44 and more; with the mask of another image at most 0.16."""
MIN_INNER_CELLS = 8  # an image with fewer whole cells takes the typical cell of all images of its size
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
class Issue:
    """One thing in an image to look at."""

    # ``merged``: one outline around several cells. ``unlabelled``: looks like a cell, has no mask.
    # ``cut_unlabelled``: the same at the border of the image. ``fragment``: kept, but far too small. ``faint``: an
    # outline where the image shows background. ``speck``: too small to be kept.
    kind: Kind
    label: int  # its number in the map it comes from, see :class:`bccd_d2.audit.measure.Examined`
    box: tuple[int, int, int, int]  # x, y, width, height in pixels of the image
    area: int  # pixels
    why: str  # the reason in words and numbers


@dataclass(frozen=True)
class ImageIssues:
    """The issues of one image."""

    issues: list[Issue]  # of its cells
    typical_area: float  # of a whole cell in this image, in pixels; NaN where no image tells
    empty: bool  # whether there is no cell at all
    misfit: bool  # whether the mask does not follow the colours of the image
    score: float  # weighted share of the image's cells that have an issue; images are ranked by it

    @property
    def counts(self) -> dict[Kind, int]:
        """Number of issues by kind."""
        found = Counter(issue.kind for issue in self.issues)
        return {kind: found[kind] for kind in WEIGHTS}


def typical_areas(measures: Sequence[ImageMeasures]) -> list[float]:
    """Median area of the cells that no border cuts, for each image, in pixels.

    An image with few such cells takes the median over all images of its size or, if they have none either, over all
    cells of the set; NaN if the set has no cell.
    """
    inner = [m.cells.areas[~m.cells.border] for m in measures]
    by_size: dict[tuple[int, int], list[NDArray[np.int64]]] = {}
    for m, areas in zip(measures, inner):
        by_size.setdefault((m.height, m.width), []).append(areas)
    pooled = {size: np.concatenate(areas) for size, areas in by_size.items()}
    everything = np.concatenate([m.cells.areas for m in measures]) if measures else np.empty(0)
    typical = []
    for m, areas in zip(measures, inner):
        samples = ((areas, MIN_INNER_CELLS), (pooled[m.height, m.width], 1), (everything, 1))
        medians = (float(np.median(sample)) for sample, least in samples if len(sample) >= least)
        typical.append(next(medians, math.nan))
    return typical


def find_issues(measures: ImageMeasures, typical_area: float) -> ImageIssues:
    """Find the issues of one image; ``typical_area`` as from :func:`typical_areas`."""
    misfit = measures.colours.separation < MISFIT_SEPARATION
    issues: list[Issue] = []
    if not misfit:  # under a wrong mask no rule about colour holds
        issues += _cell_issues(measures, typical_area)
        cut = measures.unlabelled.border
        without = "looks like a cell, has no outline"
        issues += [
            _issue("cut_unlabelled", measures.unlabelled, i, f"{without}, cut by the border of the image")
            if cut[i]
            else _issue("unlabelled", measures.unlabelled, i, without)
            for i in range(len(cut))
        ]
        issues += [
            _issue("speck", measures.specks, i, f"{area} pixels, too small for a cell")
            for i, area in enumerate(measures.specks.areas)
        ]
    cells = len(measures.cells)
    # Missing cells count as cells that should be there.
    missing = sum(issue.kind in ("unlabelled", "cut_unlabelled") for issue in issues)
    weight = sum(WEIGHTS[issue.kind] for issue in issues)
    return ImageIssues(
        issues=issues,
        typical_area=typical_area,
        empty=cells == 0,
        misfit=misfit,
        score=weight / (cells + missing + SMALL_SAMPLE) + (cells == 0) + misfit,
    )


def _cell_issues(measures: ImageMeasures, typical_area: float) -> Iterator[Issue]:
    """Issues of the cells that have an outline, at most one per cell."""
    cells = measures.cells
    for index in range(len(cells)):
        times = cells.areas[index] / typical_area
        disc, strength = cells.disc_shares[index], measures.strengths[index]
        if strength < FAINT_STRENGTH:
            share = f"{max(strength, 0):.0%}"
            why = f"differs from the background by {share} of what a typical cell does"
            yield _issue("faint", cells, index, why)
        elif times > MERGED_AREA and disc < MERGED_DISC:
            why = f"{times:.1f} times the typical cell, and the largest disc inside fills {disc:.0%} of it"
            yield _issue("merged", cells, index, why)
        elif times < FRAGMENT_AREA and not cells.border[index]:
            yield _issue("fragment", cells, index, f"{times:.0%} of the typical cell")


def _issue(kind: Kind, shapes: InstanceShapes, index: int, why: str) -> Issue:
    x, y, width, height = (int(value) for value in shapes.boxes[index])
    return Issue(kind, int(shapes.labels[index]), (x, y, width, height), int(shapes.areas[index]), why)
