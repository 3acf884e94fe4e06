"""Measures one image with its mask: shapes of its instances, colours of cells and background."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from bccd_d2.audit.similar import fingerprint
from bccd_d2.conversion.convert_image import label_mask, read_pair_mask, refuse_background
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.pairs import ImageMaskPair
from bccd_d2.conversion.stain_clusters import stain_features
from bccd_d2.io.file_kinds import PNG_SIGNATURE, TIFF_SIGNATURES, read_head
from bccd_d2.io.images import read_image
from bccd_d2.segmentation.background import background_surface
from bccd_d2.segmentation.instances import class_of_labels
from bccd_d2.segmentation.unlabelled import find_unlabelled

SAMPLED_PIXELS = 60_000
"""Colours are measured on a regular sample of about this many pixels, some hundred per cell."""
RIM = 2  # pixels of the sample beside a mask that belong to neither cell nor background
FORMATS = {
    PNG_SIGNATURE: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    **dict.fromkeys(TIFF_SIGNATURES, "TIFF"),
}
"""Names of formats by the first bytes of a file."""
LEVELS = 512  # thresholds that are tried for the separation of cells and background


@dataclass(frozen=True)
class InstanceShapes:
    """Shapes of n instances in ascending order of their labels; lengths and areas in pixels of the map."""

    labels: NDArray[np.int64]  # int64 (n,), value of each in the map
    boxes: NDArray[np.int64]  # int64 (n, 4), x, y, width, height
    areas: NDArray[np.int64]  # int64 (n,)
    solidities: NDArray[np.float64]  # float64 (n,), area divided by that of the convex hull
    # float64 (n,), area of the largest disc inside divided by the instance's area: 1 for a disc, 0.79 for a square,
    # 0.5 for two discs side by side
    disc_shares: NDArray[np.float64]
    border: NDArray[np.bool_]  # bool (n,), whether it touches the border of the map

    def __len__(self) -> int:
        return len(self.labels)


def instance_shapes(labels: NDArray[np.integer]) -> InstanceShapes:
    """Measure each label of a (height, width) map of integers, 0 for background."""
    height, width = labels.shape
    rows = []
    for label, place in enumerate(find_objects(np.ascontiguousarray(labels)), start=1):
        if place is None:
            continue
        (top, bottom), (left, right) = ((side.start, side.stop) for side in place)
        inside = (labels[place] == label).astype(np.uint8)
        area = int(np.count_nonzero(inside))
        border = left == 0 or top == 0 or right == width or bottom == height
        rows.append((label, left, top, right - left, bottom - top, area, border, *_compactness(inside, area)))
    table = np.array(rows, dtype=np.float64).reshape(-1, 9)
    whole = table[:, :7].astype(np.int64)
    return InstanceShapes(
        whole[:, 0], whole[:, 1:5], whole[:, 5], table[:, 7], table[:, 8], whole[:, 6].astype(bool)
    )


def _compactness(inside: NDArray[np.uint8], area: int) -> tuple[float, float]:
    """Solidity and disc share of one instance, uint8 (height, width), 1 inside."""
    padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    contours, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.fillConvexPoly(np.zeros_like(padded), cv2.convexHull(np.concatenate(contours)), 1)
    # Distances are between centres of pixels; the edge of the disc runs half a pixel before the next one outside.
    radius = float(cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max()) - 0.5
    return area / int(np.count_nonzero(hull)), min(1.0, np.pi * radius**2 / area)


@dataclass(frozen=True)
class ColourStatistics:
    """CIELAB colours (L* 0..100, a* and b* signed) of one image; NaN where there are no such pixels."""

    cell_mean: NDArray[np.float64]  # float64 (3,), of the labelled pixels
    cell_std: NDArray[np.float64]  # float64 (3,)
    # float64 (3,), of pixels that neither have a label nor look like an unlabelled cell
    background_mean: NDArray[np.float64]
    background_std: NDArray[np.float64]  # float64 (3,)
    # Youden's index (Cancer 3, 1950) of the best colour threshold between labelled pixels and all others: 1 if
    # cells and only cells are labelled, near 0 if the mask is independent of the image.
    separation: float
    # float64 (labels.max() + 1,), by label, where the mean colour of the instance lies between the background
    # around it (0) and the typical cell (1)
    strengths: NDArray[np.float64]


def colour_statistics(
    image: NDArray[np.uint8], labels: NDArray[np.int32], unlabelled: NDArray[np.int32]
) -> ColourStatistics:
    """Measure the colours of one image, uint8 (height, width, 3) RGB. ``labels`` and ``unlabelled``, int32 (height,
    width), are not 0 on labelled cells and on regions that look like a cell and have no label.
    """
    step = max(1, int(np.sqrt(labels.size / SAMPLED_PIXELS)))
    sample = np.ascontiguousarray(image[::step, ::step]).astype(np.float32) / 255
    lab = np.asarray(cv2.cvtColor(sample, cv2.COLOR_RGB2LAB), np.float32)
    numbers = np.ascontiguousarray(labels[::step, ::step])
    cells = numbers > 0
    rest = _clear_of(cells)
    background = rest & _clear_of(unlabelled[::step, ::step] > 0)
    separation, strengths = float("nan"), np.full(int(labels.max(initial=0)) + 1, np.nan)
    if cells.any() and rest.any():
        # Of all pixels without a label: under a wrong mask the background itself looks like unlabelled cells.
        distance = _distance(lab, cells, rest)
        separation = _youden(distance[cells], distance[rest])
    if cells.any() and background.any():
        distance = _distance(lab, cells, background)
        sums = np.bincount(numbers.ravel(), weights=distance.ravel(), minlength=len(strengths))
        pixels = np.bincount(numbers.ravel(), minlength=len(strengths))
        strengths = np.divide(sums, pixels, out=strengths, where=pixels > 0)
        strengths[0] = np.nan
    return ColourStatistics(*_mean_std(lab[cells]), *_mean_std(lab[background]), separation, strengths)


def _clear_of(taken: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that are neither ``taken`` nor beside such pixels."""
    kernel = np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)
    return cv2.dilate(taken.view(np.uint8), kernel) == 0


def _distance(
    lab: NDArray[np.float32], cells: NDArray[np.bool_], background: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Where each pixel lies between the background around it (0) and the mean cell (1)."""
    towards = lab[cells].mean(0) - lab[background].mean(0)
    along = (lab - background_surface(lab, background, degree=1)) @ towards
    return np.asarray(along / max(float(towards @ towards), 1e-6), np.float32)


def _mean_std(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not len(pixels):
        return np.full(3, np.nan), np.full(3, np.nan)
    return pixels.mean(0, dtype=np.float64), pixels.std(0, dtype=np.float64)


def _youden(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> float:
    """Largest excess of the share of ``positive`` above a threshold over that of ``negative``."""
    low, high = float(min(positive.min(), negative.min())), float(max(positive.max(), negative.max()))
    if high <= low:
        return 0.0
    above = np.histogram(positive, LEVELS, (low, high))[0] / positive.size
    below = np.histogram(negative, LEVELS, (low, high))[0] / negative.size
    return float(max(0.0, np.max(np.cumsum(below) - np.cumsum(above))))


class Examined(NamedTuple):
    """One pair with its cells."""

    image: NDArray[np.uint8]  # uint8 (height, width, 3) RGB
    labels: NDArray[np.int32]  # int32 (height, width), cells 1..n as the conversion keeps them
    # int32 (height, width), numbers of the components that the conversion drops for their size
    specks: NDArray[np.int32]
    # int32 (height, width), numbers of the regions that look like cells and have no mask
    unlabelled: NDArray[np.int32]
    # uint8 (height, width) if the mask holds classes, see :func:`bccd_d2.io.masks.read_mask`
    classes: NDArray[np.uint8] | None


@dataclass(frozen=True)
class ImageMeasures:
    """Measurements of one pair, a few kilobytes."""

    stem: str  # name of the pair
    file_name: str  # POSIX path of the image relative to the root
    part: str | None  # folder ``train``, ``val`` or ``test`` of the pair, ``None`` in a flat layout
    height: int  # pixels
    width: int  # pixels
    image_format: str  # ``PNG``, ``JPEG``, ``BMP``, ``TIFF``
    mask_format: str  # the same of the mask, or ``NPY``
    cells: InstanceShapes  # shapes of the instances that the conversion keeps
    # float64, one per cell, see :class:`bccd_d2.audit.measure.ColourStatistics`
    strengths: NDArray[np.float64]
    classes: list[int] | None  # class number of each cell if the mask holds classes
    specks: InstanceShapes  # shapes of the components that it drops
    unlabelled: InstanceShapes  # shapes of the regions that look like cells and have no mask
    colours: ColourStatistics  # of cells and background
    stain: NDArray[np.float64]  # float64 (6,), see :func:`bccd_d2.conversion.stain_clusters.stain_features`
    fingerprint: NDArray[np.float32]  # see :func:`bccd_d2.audit.similar.fingerprint`


def measure_pair(pair: ImageMaskPair, root: Path, spec: DatasetSpec) -> ImageMeasures:
    """Measure one pair; raises InputError as :func:`examine_pair`."""
    examined = examine_pair(pair, spec)
    labels = examined.labels
    cells = instance_shapes(labels)
    colours = colour_statistics(examined.image, labels, examined.unlabelled)
    classes = None
    if examined.classes is not None:
        by_label = class_of_labels(labels, examined.classes)
        classes = [by_label.get(int(label), 0) for label in cells.labels]
    return ImageMeasures(
        stem=pair.stem,
        file_name=pair.image.relative_to(root).as_posix(),
        part=pair.part,
        height=labels.shape[0],
        width=labels.shape[1],
        image_format=_format(pair.image),
        mask_format=_format(pair.mask),
        cells=cells,
        strengths=colours.strengths[cells.labels],
        classes=classes,
        specks=instance_shapes(examined.specks),
        unlabelled=instance_shapes(examined.unlabelled),
        colours=colours,
        stain=stain_features(examined.image, (labels > 0).view(np.uint8)),
        fingerprint=fingerprint(examined.image),
    )


def examine_pair(pair: ImageMaskPair, spec: DatasetSpec) -> Examined:
    """Read one pair, label its cells, and find specks and unlabelled cells. Raises InputError where image or mask
    cannot be used, or their sizes differ.
    """
    image = read_image(pair.image, "RGB")
    mask, kind = read_pair_mask(pair, image.shape[:2], spec.mask), spec.mask.kind
    labels = np.ascontiguousarray(label_mask(mask, kind, spec.instances).labels)
    refuse_background(pair, image, labels)
    keep_all = replace(spec.instances, min_area=1, min_area_relative=0, cut=None)
    specks = np.ascontiguousarray(label_mask(mask, kind, keep_all).labels)
    specks[labels > 0] = 0
    classes = mask.astype(np.uint8) if kind == "classes" else None
    # Specks have a mask too; under one number they do not shift the median cell that the search is based on.
    masked = np.where(specks > 0, np.int32(labels.max(initial=0) + 1), labels)
    return Examined(image, labels, specks, find_unlabelled(image, masked), classes)


def _format(path: Path) -> str:
    head = read_head(path)
    return next((name for start, name in FORMATS.items() if head.startswith(start)), path.suffix[1:].upper())
