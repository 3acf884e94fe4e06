"""Read one image with its mask and measure what the audit needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bccd_d2.audit.image_statistics import (
    ColourStatistics,
    InstanceShapes,
    colour_statistics,
    instance_shapes,
)
from bccd_d2.audit.similar import fingerprint
from bccd_d2.conversion.convert_image import label_mask, read_pair_mask
from bccd_d2.conversion.dataset_spec import DatasetSpec, ImageMaskPair
from bccd_d2.conversion.instances import class_of_labels
from bccd_d2.conversion.stain_clusters import stain_features
from bccd_d2.conversion.unlabelled import find_unlabelled
from bccd_d2.io.images import read_image


class Examined(NamedTuple):
    """One pair with its cells."""

    image: NDArray[np.uint8]  # uint8 (height, width, 3) RGB
    labels: NDArray[np.int32]  # int32 (height, width), cells 1..n as the conversion keeps them
    # int32 (height, width), numbers of the components that the conversion drops for their size
    specks: NDArray[np.int32]
    # int32 (height, width), numbers of the regions that look like cells and have no mask
    unlabelled: NDArray[np.int32]
    # uint8 (height, width) if the mask holds classes, see :class:`bccd_d2.io.masks.MaskContent`
    classes: NDArray[np.uint8] | None


@dataclass(frozen=True)
class ImageMeasures:
    """Measurements of one pair, a few kilobytes."""

    stem: str  # name of the pair
    file_name: str  # POSIX path of the image relative to the root
    part: str | None  # folder ``train``, ``val`` or ``test`` of the pair, ``None`` in a flat layout
    height: int  # pixels
    width: int  # pixels
    image_format: str  # as Pillow names it (``PNG``, ``JPEG``, ...)
    mask_format: str  # the same of the mask, or ``NPY``
    cells: InstanceShapes  # shapes of the instances that the conversion keeps
    # float64, one per cell, see :class:`bccd_d2.audit.image_statistics.ColourStatistics`
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
    content = read_pair_mask(pair, image.shape[:2], spec.mask)
    labels = np.ascontiguousarray(label_mask(content, spec.instances).labels)
    keep_all = replace(spec.instances, min_area=1, min_area_relative=0, cut=None)
    specks = np.ascontiguousarray(label_mask(content, keep_all).labels)
    specks[labels > 0] = 0
    classes = content.array.astype(np.uint8) if content.kind == "classes" else None
    # Specks have a mask too; under one number they do not shift the median cell that the search is based on.
    masked = np.where(specks > 0, np.int32(labels.max(initial=0) + 1), labels)
    return Examined(image, labels, specks, find_unlabelled(image, masked), classes)


def _format(path: Path) -> str:
    if path.suffix.lower() == ".npy":
        return "NPY"
    with Image.open(path) as image:
        return image.format or path.suffix.lstrip(".").upper()
