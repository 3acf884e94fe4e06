"""Which component of a mask a hand-drawn box means.

A cell fills the ellipse inscribed in its box; the corners often belong to its neighbours. So a box claims the
component that fills most of its ellipse, weighted by how much of that component lies inside the box at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.boxes import ImageBoxes

MIN_FILL = 0.2
"""Least share of a box's ellipse that its components fill; real cells fill 0.5 and more, strangers slip below."""
MOSTLY_INSIDE = 0.7
"""A component with less of it inside its only box is taken for several cells, of which one has a box."""
MIN_INSIDE = 0.9
"""Least share of a component inside a box to be taken for a piece of the cell in it."""


@dataclass
class BoxMatch:
    """Boxes joined with components.

    Attributes:
        claimed: component claimed by each box, int32 (n,), 0 for none.
        inside: share of the claimed component that lies in the box, float64 (n,), 0 for none.
        areas: pixels of each label from 0, int64.
        fill: share of the box's inscribed ellipse that components meant by the box fill, float64 (n,).
        by_component: boxes that claim each component.
        pieces: box by component, for components that nobody claims but that lie inside a box.
    """

    claimed: NDArray[np.int32]
    inside: NDArray[np.float64]
    fill: NDArray[np.float64]
    areas: NDArray[np.int64]
    by_component: dict[int, list[int]] = field(default_factory=dict)
    pieces: dict[int, int] = field(default_factory=dict)

    def is_one_cell(self, component: int) -> bool:
        """Whether one box claims the component and holds most of it."""
        claims = self.by_component[component]
        return len(claims) == 1 and bool(self.inside[claims[0]] >= MOSTLY_INSIDE)


def match_boxes(labels: NDArray[np.integer], boxes: ImageBoxes) -> BoxMatch:
    """Join boxes with the components of a label map.

    Args:
        labels: (height, width), 0 for background.
        boxes: boxes inside the image, see :func:`bccd_d2.conversion.boxes.fit_boxes`.
    """
    areas = np.bincount(labels.ravel(order="K"), minlength=1)
    claimed = np.zeros(len(boxes), np.int32)
    inside = np.zeros(len(boxes))
    fills = np.zeros(len(boxes))
    shares: dict[int, tuple[float, int]] = {}
    contents = []
    for box, (x0, y0, x1, y1) in enumerate(boxes.corners):
        window = labels[y0:y1, x0:x1]
        ellipse = inscribed_ellipse(y1 - y0, x1 - x0)
        found, counts = np.unique(window, return_counts=True)
        found, counts = found[found > 0], counts[found > 0]
        filled = np.bincount(window[ellipse], minlength=len(areas))[found] / max(int(ellipse.sum()), 1)
        share = counts / areas[found]
        contents.append((found, filled, share))
        if found.size:
            best = int((filled * np.sqrt(share)).argmax())
            claimed[box], inside[box], fills[box] = found[best], share[best], filled[best]
    taken = set(claimed[fills >= MIN_FILL].tolist())
    for box, (found, filled, share) in enumerate(contents):
        for component, part, fill in zip(found.tolist(), share.tolist(), filled.tolist()):
            if component in taken or part < MIN_INSIDE:
                continue
            if part > shares.get(component, (0.0, 0))[0]:
                shares[component] = (part, box)
            if component != claimed[box]:
                fills[box] += fill
    missed = fills < MIN_FILL
    claimed[missed], inside[missed] = 0, 0
    match = BoxMatch(claimed, inside, fills, areas)
    for box, component in enumerate(claimed.tolist()):
        if component:
            match.by_component.setdefault(component, []).append(box)
    for component, (_, box) in sorted(shares.items()):
        if component not in match.by_component and claimed[box]:
            match.pieces[component] = box
    return match


def inscribed_ellipse(height: int, width: int) -> NDArray[np.bool_]:
    """Pixels of a (height, width) box whose centres lie in the ellipse inscribed in it."""
    rows, columns = (2 * (np.arange(size) + 0.5) / size - 1 for size in (height, width))
    return rows[:, None] ** 2 + columns[None, :] ** 2 <= 1
