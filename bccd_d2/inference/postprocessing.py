"""Last steps after a network: cells that it took for one are cut apart, and each pixel is given to one cell."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import replace

import numpy as np
import shapely

from bccd_d2.segmentation.instances import cut_touching
from bccd_d2.structures.cells import Cells, concatenate

_MIN_VISIBLE_SHARE = 0.5
_SAME_CELL_IOU = 0.5
_SURE_SCORE = 0.5
_CUT = 0.01  # of InstanceRule, for masks of a network


def split_merged(cells: Cells) -> Cells:
    """Cut masks that look like several touching cells, by the watershed that cuts annotations; best score first.

    Masks of more than 1.2 median areas (of the cells with a score of at least 0.5) are looked at, see
    :func:`bccd_d2.segmentation.instances.cut_touching`. A piece that the network has found as a cell of its own (mask
    IoU above one half) is dropped in favour of that; the others have the class and score of the cut cell.
    """
    sure = cells.areas[cells.scores >= _SURE_SCORE]
    if not len(sure):
        return cells
    median_area = float(np.median(sure))
    whole, parts = [], []
    for index, mask in enumerate(cells.masks):
        labels, _, added = cut_touching(mask.astype(np.int32), _CUT, median_area)
        if not added:
            whole.append(index)
            continue
        x, y = cells.windows[index, :2].tolist()
        parts.append(
            Cells.from_masks(
                cells.height,
                cells.width,
                [labels == piece for piece in range(1, added + 2)],
                origins=[(x, y)] * (added + 1),
                classes=[cells.classes[index]] * (added + 1),
                scores=[cells.scores[index]] * (added + 1),
            )
        )
    if not parts:
        return cells
    pieces, kept = concatenate(parts), cells[whole]
    found = np.asarray((pieces.ious(kept) > _SAME_CELL_IOU).any(axis=1))
    logging.getLogger(__name__).info(
        "%d of %d cells cut into %d pieces, %d of which were there already",
        len(parts), len(cells), len(pieces), found.sum(),
    )  # fmt: skip
    result = concatenate([kept, pieces[~found]])
    return result[np.argsort(-result.scores, kind="stable")]


def without_overlaps(cells: Cells) -> Cells:
    """Give each pixel to one cell: to that with the best score (Kirillov et al. 2019, "Panoptic Segmentation").

    A cell that keeps less than half of its pixels is dropped: it was a second opinion on cells with better scores. The
    others keep their order and get tight boxes.
    """
    masks = list(cells.masks)
    visible = np.zeros(len(cells), bool)
    frames = shapely.box(*cells.windows.T)
    near: dict[int, list[int]] = defaultdict(list)
    for one, other in shapely.STRtree(frames).query(frames).T.tolist():
        near[one].append(other)
    for index in np.argsort(-cells.scores, kind="stable").tolist():
        x0, y0, x1, y1 = cells.windows[index].tolist()
        free = masks[index].copy()
        for other in near[index]:
            if visible[other]:  # its score is better, and it has taken its pixels
                left, top, right, bottom = cells.windows[other].tolist()
                x, y, end_x, end_y = max(x0, left), max(y0, top), min(x1, right), min(y1, bottom)
                taken = masks[other][y - top : end_y - top, x - left : end_x - left]
                free[y - y0 : end_y - y0, x - x0 : end_x - x0] &= ~taken
        if np.count_nonzero(free) >= _MIN_VISIBLE_SHARE * np.count_nonzero(masks[index]):
            visible[index] = True
            masks[index] = free
    logging.getLogger(__name__).info("%d of %d cells lie behind others", (~visible).sum(), len(cells))
    rest = replace(cells, masks=masks)[visible]
    return Cells.from_masks(
        cells.height,
        cells.width,
        rest.masks,
        origins=rest.windows[:, :2].tolist(),
        classes=rest.classes,
        scores=rest.scores,
    )
