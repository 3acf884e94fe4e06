"""How large cells are, and how large a typical red cell of an image is: the unit of its magnification."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from bccd_d2.structures.cell_kinds import classes_of, red_cell_classes

RED_CELL_UM = 7.5
"""Diameter of a normal red cell on a dry smear, in microns."""
FEWEST_RED_CELLS = 4
"""Fewer whole red cells than this say little of the magnification of an image."""
# White cells of a smear are larger than red ones by about this factor, over all types.
_WHITE_TO_RED = 1.6


@overload
def disc_diameter(area: float) -> float: ...
@overload
def disc_diameter(area: NDArray[Any]) -> NDArray[np.float64]: ...
def disc_diameter(area: Any) -> Any:
    """Diameter of a disc of an area, the equal-area diameter, in pixels for pixels."""
    return 2 * np.sqrt(area / np.pi)


def typical_diameter(
    diameters: NDArray[np.float64],
    classes: NDArray[np.int64],
    cut: NDArray[np.bool_],
    red: Collection[int],
    white: Collection[int] = (),
    fewest: int = FEWEST_RED_CELLS,
) -> float | None:
    """Diameter of a red cell of an image, from N cells with their diameters, classes and whether the border cuts them.

    The median over whole cells of the classes ``red``; of fewer than ``fewest``, by the median of whole cells of the
    classes ``white``, which are larger by a known factor; ``None`` if there is none of these either.
    """
    white = set(white).difference(red)
    for chosen, needed, factor in ((red, fewest, 1.0), (white, 1, _WHITE_TO_RED)):
        found = diameters[~cut & np.isin(classes, list(chosen))]
        if len(found) >= needed:
            return float(np.median(found)) / factor
    return None


def annotated_diameter(
    annotations: Iterable[Mapping[str, Any]], class_names: Mapping[int, str], fewest: int = FEWEST_RED_CELLS
) -> float:
    """:func:`typical_diameter` of annotations as in COCO JSON or Detectron2's dataset dicts; 0 if not known.

    ``class_names`` are by ``category_id``. Regions with ``iscrowd`` do not count.
    """
    cells = [one for one in annotations if not one.get("iscrowd")]
    numbers, names = list(class_names), list(class_names.values())
    found = typical_diameter(
        disc_diameter(np.array([one["area"] for one in cells], np.float64)),
        np.array([one["category_id"] for one in cells], np.int64),
        np.array([bool(one.get("border")) for one in cells], bool),
        [numbers[index] for index in red_cell_classes(names)],
        [numbers[index] for index in classes_of("white", names)],
        fewest,
    )
    return found or 0.0
