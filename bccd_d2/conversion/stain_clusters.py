"""Which images were stained alike, and so probably come from the same slide.

The Kaggle set names no slides, but its images visibly come from a handful of them. Images of one slide on both sides
of a split make a model look better than it is on the next slide.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError

LONG_SIDE = 400  # images are shrunk to this many pixels: colour statistics need no more
WEIGHTS = np.array([2, 3, 3, 0.3, 1.5, 1.5])
"""What each feature counts for. The colour of the background hardly changes within a slide; the lightness of the
cells does, with their thickness and crowding. Chosen by looking at the clusters of real images."""
SIZE_DISTANCE = 1000.0
"""Images of different size come from different cameras; this distance, in Lab units, keeps them apart."""


def stain_features(image: NDArray[np.uint8], foreground: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Median CIELAB (L*, a*, b*) of background and of cells of an image, float64 (6,); where it has only one of
    them, that one twice. ``image`` is uint8 (height, width, 3) RGB, ``foreground`` uint8 (height, width), not 0 on
    cells.
    """
    height, width = foreground.shape
    scale = min(1.0, LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    cells = cv2.resize((foreground != 0).view(np.uint8), size, interpolation=cv2.INTER_NEAREST).view(bool)
    if not cells.any() or cells.all():
        everything = np.median(lab.reshape(-1, 3), axis=0)
        return np.concatenate([everything, everything]).astype(np.float64)
    return np.concatenate([np.median(lab[~cells], axis=0), np.median(lab[cells], axis=0)]).astype(np.float64)


def cluster_stains(
    features: Mapping[str, NDArray[np.float64]], sizes: Mapping[str, tuple[int, int]], count: int
) -> dict[str, str]:
    """Group images by stain with Ward's method (1963), which needs no random start; returns the group (``stain 1``,
    ``stain 2``, ... in the order of their first stem) by stem.

    ``features`` come from :func:`stain_features`; images whose ``sizes`` (height, width) differ are never in one
    group while ``count`` allows it. Fewer groups come out where there are fewer different images. Raises InputError
    for ``count`` below 2.
    """
    # Imported here because SciPy takes longer to load than the rest of the command.
    from scipy.cluster.hierarchy import fcluster, linkage

    if count < 2:
        raise InputError(f"{count} stain clusters, expected at least 2")
    stems = sorted(features)
    if len(stems) < 2:
        return dict.fromkeys(stems, "stain 1")
    kinds = sorted({sizes[stem] for stem in stems})
    table = np.array(
        [
            [*(features[stem] * WEIGHTS), *(SIZE_DISTANCE * (sizes[stem] == kind) for kind in kinds)]
            for stem in stems
        ]
    )
    numbers = fcluster(linkage(table, method="ward"), t=count, criterion="maxclust")
    names: dict[int, str] = {}
    return {
        stem: names.setdefault(int(number), f"stain {len(names) + 1}") for stem, number in zip(stems, numbers)
    }
