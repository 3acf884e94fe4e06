"""Images that show the same field of view, or overlapping ones.

Every image becomes a small grey picture of what stands out in it, without light and stain. Two such pictures are
compared by correlation: directly in the eight ways an image can be turned and mirrored, which finds copies, and at
every shift at once by way of Fourier, which finds fields of view that overlap; its peak is about the share that two
images have in common.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from tqdm import tqdm

logger = logging.getLogger(__name__)

SIDE = 32
"""Fingerprints have this many pixels a side: cells are a few pixels across, and unrelated images stay below 0.3."""
STRUCTURE = 3.0  # what is wider than about twice this many pixels of the fingerprint is light, not cells
MIN_ALIGNED = 0.5
"""Correlation from which two images show the same. On real smears copies that were cropped by 5 % or shifted by 2 %
reach 0.6 and more, unrelated images at most 0.3."""
MIN_SHIFTED = 0.4  # the same at the best shift; two fields that share 60 % of their width reach it
SPREAD = 6.0
"""If all images of a set look similar (one cell in the middle of each), a pair must also stand out from all others by
this many standard deviations, measured robustly."""
ALWAYS = 0.97  # from this correlation on a pair counts whatever the others are like
MAX_SHIFTED_IMAGES = 6000
"""Shifts take ten microseconds a pair; beyond this many images they are left out, with a warning."""
ORIENTATIONS = (
    "",
    "turned by 90°",
    "turned by 180°",
    "turned by 270°",
    "mirrored",
    "mirrored and turned by 90°",
    "mirrored and turned by 180°",
    "mirrored and turned by 270°",
)


@dataclass(frozen=True)
class SimilarPair:
    """Two images that show the same, in whole or in part."""

    first: int  # number of one image
    second: int  # number of the other, larger than ``first``
    similarity: float  # correlation, up to 1
    # ``same``: the whole field, perhaps turned or mirrored. ``overlap``: shifted against each other.
    how: str
    orientation: str = ""  # one of :data:`ORIENTATIONS`, empty where both lie the same way


def fingerprint(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What is compared of an image, uint8 (height, width, 3) RGB: float32 (32, 32), mean 0 and length 1; all 0
    where the image shows nothing.
    """
    small = cv2.resize(image, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    structure = cv2.resize(
        grey - cv2.GaussianBlur(grey, (0, 0), 2 * STRUCTURE), (SIDE, SIDE), interpolation=cv2.INTER_AREA
    )
    structure -= structure.mean()
    length = float(np.linalg.norm(structure))
    # Below a quarter of a grey level all is noise of rounding.
    flat = length <= SIDE / 4
    return np.zeros((SIDE, SIDE), np.float32) if flat else np.asarray(structure / length, np.float32)


def find_similar(fingerprints: Sequence[NDArray[np.float32]]) -> list[SimilarPair]:
    """All pairs of images, by their :func:`fingerprint`, that show the same field or overlapping ones, the most
    similar first.
    """
    if len(fingerprints) < 2:
        return []
    stack = np.stack(fingerprints).astype(np.float32)
    shifted = len(stack) <= MAX_SHIFTED_IMAGES
    if not shifted:
        logger.warning(
            "%d images: overlapping fields are searched among at most %d, so only whole copies are",
            len(stack), MAX_SHIFTED_IMAGES,
        )  # fmt: skip
    candidates: list[SimilarPair] = []
    levels: dict[str, list[NDArray[np.float32]]] = {"same": [], "overlap": []}
    searches = [("same", _aligned(stack)), ("overlap", _shifted(stack))][: 2 if shifted else 1]
    for how, rows in searches:
        least = MIN_ALIGNED if how == "same" else MIN_SHIFTED
        bar = tqdm(rows, f"compare ({how})", len(stack) - 1, unit="image", disable=None)
        for first, (similarity, orientation) in enumerate(bar):
            levels[how].append(similarity[:64])
            for offset in np.flatnonzero(similarity >= least):
                name = ORIENTATIONS[int(orientation[offset])]
                second = first + 1 + int(offset)
                candidates.append(SimilarPair(first, second, float(similarity[offset]), how, name))
    bounds = {how: _outstanding(values) for how, values in levels.items() if values}
    best: dict[tuple[int, int], SimilarPair] = {}
    for pair in candidates:  # the same field comes before overlaps, so that it names the pair
        if pair.similarity >= bounds[pair.how]:
            best.setdefault((pair.first, pair.second), pair)
    return sorted(best.values(), key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _aligned(stack: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.intp]]]:
    """For each image but the last: best correlation with each later image, and in which orientation."""
    flat = stack.reshape(len(stack), -1)
    for number in range(len(stack) - 1):
        turned = [np.rot90(stack[number], k) for k in range(4)]
        turned += [np.rot90(np.fliplr(stack[number]), k) for k in range(4)]
        correlations = flat[number + 1 :] @ np.stack(turned).reshape(8, -1).T
        yield correlations.max(axis=1), correlations.argmax(axis=1)


def _shifted(stack: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.intp]]]:
    """For each image but the last: correlation with each later image at the best shift."""
    spectra = fft.rfft2(stack)
    for number in range(len(stack) - 1):
        surfaces = fft.irfft2(spectra[number + 1 :] * np.conj(spectra[number]), s=(SIDE, SIDE))
        peaks = surfaces.reshape(len(surfaces), -1).max(axis=1)
        yield peaks, np.zeros(len(peaks), np.intp)


def _outstanding(levels: list[NDArray[np.float32]]) -> float:
    """The similarity above which a pair stands out from all others."""
    values = np.concatenate(levels)
    middle = float(np.median(values))
    deviation = 1.4826 * float(np.median(np.abs(values - middle)))
    return min(ALWAYS, middle + SPREAD * deviation)
