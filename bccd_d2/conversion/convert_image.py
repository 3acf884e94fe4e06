"""One image and its mask to COCO annotations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.classes import ClassAssignment, ClassSource, SingleClass
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.instances import (
    InstanceCounts,
    InstanceRule,
    LabelledInstances,
    class_of_labels,
    clean_instances,
    label_classes,
    label_instances,
)
from bccd_d2.conversion.layout import ImageMaskPair, ImageRecord
from bccd_d2.conversion.unlabelled import UnlabelledRule, find_unlabelled
from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image, read_image_size, read_orientation
from bccd_d2.io.mask_checks import fills_image, measure_fit
from bccd_d2.io.masks import MaskContent, MaskRule, read_mask
from bccd_d2.structures.polygons import mask_to_polygons
from bccd_d2.structures.rle import EncodedInstance, encode_labels

BorderPolicy = Literal["keep", "ignore"]
BORDER_POLICIES: tuple[BorderPolicy, ...] = ("keep", "ignore")


@dataclass(frozen=True)
class AnnotationRule:
    """How instances are written.

    Attributes:
        border: ``ignore`` writes instances that touch the image border with ``iscrowd`` 1.
        unlabelled: where given, pixels that look like cells but have no mask are written as regions with
            ``iscrowd`` 1, once for each category.
        polygons: write instances as polygons; regions with ``iscrowd`` stay RLE, as COCO wants them.
    """

    border: BorderPolicy = "keep"
    unlabelled: UnlabelledRule | None = None
    polygons: bool = False

    def __post_init__(self) -> None:
        if self.border not in BORDER_POLICIES:
            raise InputError(f"border {self.border!r}, expected {' or '.join(BORDER_POLICIES)}")


@dataclass
class ConvertedImage:
    """One image, its annotations (still without ``id``), counts of what happened, and doubts about the mask."""

    record: ImageRecord
    annotations: list[dict[str, Any]]
    instances: InstanceCounts
    counts: Counter[str] = field(default_factory=Counter)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ImageConverter:
    """Converts pairs one by one; picklable, for worker processes.

    Attributes:
        root: data root that file names are relative to.
        spec: what the masks mean and how instances are made of them.
        rule: how they are written.
        class_source: tells the class of each instance; ``None`` takes the classes of the mask, or one class ``cell``.
        looked_at: ids of the images whose masks are compared with what the image shows, which takes time.
    """

    root: Path
    spec: DatasetSpec = field(default_factory=DatasetSpec)
    rule: AnnotationRule = field(default_factory=AnnotationRule)
    class_source: ClassSource | None = None
    looked_at: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.class_source is not None and self.spec.mask.kind == "classes":
            raise InputError(
                "the masks hold classes already; expected no other source of classes beside them"
            )
        if self.class_source is None and self.spec.classes is not None:
            raise InputError("the dataset spec takes classes from boxes; expected boxes")
        if self.class_source is None and self.spec.mask.kind == "none":
            raise InputError("the dataset spec knows no masks; expected boxes or another source of instances")

    @property
    def categories(self) -> list[dict[str, Any]]:
        """COCO categories of what comes out."""
        names = list(self.spec.mask.class_names)
        if not names:
            names = [category["name"] for category in (self.class_source or SingleClass()).categories]
        names += [name for name in self.spec.annotates if name not in names]
        return [{"id": number, "name": name} for number, name in enumerate(names, start=1)]

    def __call__(self, numbered: tuple[int, ImageMaskPair]) -> ConvertedImage | str:
        """Convert one pair with its image id; a fault comes back as text, so that one bad file need not end all."""
        number, pair = numbered
        try:
            return self.convert(number, pair)
        except (InputError, OSError) as error:
            return str(error)

    def convert(self, number: int, pair: ImageMaskPair) -> ConvertedImage:
        """Convert one pair.

        Raises:
            InputError: image or mask cannot be used.
        """
        height, width = read_image_size(pair.image)
        content = read_pair_mask(pair, (height, width), self.spec.mask)
        file_name = pair.image.relative_to(self.root).as_posix()
        record = ImageRecord(number, pair.stem, file_name, pair.image, height, width)
        labelled = label_mask(content, self.spec.instances)
        assignment = self._assign(record, content, labelled.labels)
        encoded = encode_labels(assignment.labels)
        annotations = [
            self._annotation(record, assignment, instance)
            for instance in encoded
            if instance.label in assignment.category_ids
        ]
        unclassed = assignment.ignored - assignment.category_ids.keys()
        annotations += self._ignore_regions(record, [i for i in encoded if i.label in unclassed])
        counts = Counter(assignment.counts)
        doubts = [] if content.kind == "none" else self._doubts(number, pair, assignment.labels, encoded)
        if not annotations:
            counts["images without an instance"] += 1
        counts["instances at the border"] += sum(annotation["border"] for annotation in annotations)
        if self.rule.unlabelled is not None:
            regions = encode_labels(
                find_unlabelled(read_image(pair.image, "RGB"), assignment.labels, self.rule.unlabelled)
            )
            annotations += self._ignore_regions(record, regions, {"unlabelled": True})
            counts["unlabelled regions to ignore"] += len(regions)
        return ConvertedImage(record, annotations, labelled.counts, counts, doubts)

    def _doubts(
        self, number: int, pair: ImageMaskPair, labels: NDArray[np.int32], encoded: list[EncodedInstance]
    ) -> list[str]:
        """What speaks against the mask being that of its image, in words that many images can share.

        Raises:
            InputError: the background is taken for a cell.
        """
        orientation = read_orientation(pair.image)
        unturned = orientation != 1 and pair.mask != pair.image and read_orientation(pair.mask) == 1
        background = [i for i in encoded if fills_image(i.bbox, i.area, *labels.shape)]
        if not (unturned or background or number in self.looked_at):
            return []
        fit = measure_fit(read_image(pair.image, "RGB"), labels > 0, orientation)
        if background and fit.is_inverted:
            raise InputError(
                f"{pair.mask}: the background is taken for a cell: one instance covers "
                f"{background[0].area / labels.size:.0%} of the image and touches all its sides, and the image shows "
                "cells where the mask has none; is the mask inverted? A --spec with 'invert: true' turns it round"
            )
        doubts = []
        if unturned:
            doubts.append(
                f"the image is turned by its EXIF orientation {orientation}, the mask is not"
                + ("; it fits the image as stored, so turn it too" if fit.fits_turned else "")
            )
        if background:
            doubts.append("one instance covers most of the image and touches all its sides")
        if fit.is_unrelated and not fit.fits_turned:
            doubts.append("the mask does not lie on what the image shows (Otsu's foreground)")
        return doubts

    def _assign(
        self, record: ImageRecord, content: MaskContent, labels: NDArray[np.int32]
    ) -> ClassAssignment:
        if content.kind == "classes":
            return ClassAssignment(
                labels, class_of_labels(labels, content.array.astype(np.uint8, copy=False))
            )
        return (self.class_source or SingleClass())(record, labels)

    def _annotation(
        self, record: ImageRecord, assignment: ClassAssignment, instance: EncodedInstance
    ) -> dict[str, Any]:
        ignored = instance.label in assignment.ignored or (self.rule.border == "ignore" and instance.border)
        segmentation: Any = instance.segmentation
        if self.rule.polygons and not ignored:
            x, y, width, height = instance.bbox
            inside = assignment.labels[y : y + height, x : x + width] == instance.label
            segmentation = mask_to_polygons(inside, x, y)
        return {
            "image_id": record.id,
            "category_id": assignment.category_ids[instance.label],
            "bbox": assignment.boxes.get(instance.label, instance.bbox),
            "area": instance.area,
            "segmentation": segmentation,
            "iscrowd": int(ignored),
            "border": instance.border,
            **({"weak": True} if instance.label in assignment.weak else {}),
        }

    def _ignore_regions(
        self, record: ImageRecord, regions: list[EncodedInstance], marks: dict[str, bool] | None = None
    ) -> list[dict[str, Any]]:
        # Evaluation runs a category at a time and knows only regions of that category.
        return [
            {
                "image_id": record.id,
                "category_id": category["id"],
                "bbox": region.bbox,
                "area": region.area,
                "segmentation": region.segmentation,
                "iscrowd": 1,
                "border": region.border,
                **(marks or {}),
            }
            for region in regions
            for category in self.categories
        ]


def read_pair_mask(pair: ImageMaskPair, size: tuple[int, int], rule: MaskRule) -> MaskContent:
    """Read the mask of a pair.

    Args:
        pair: where it lies.
        size: height and width of the image.
        rule: meaning of the mask's pixels.

    Raises:
        InputError: the mask cannot be used, or has another size than its image.
    """
    content = read_mask(pair.mask, rule)
    if content.array.shape != size:
        raise InputError(_other_size(pair, content.array.shape, size))
    return content


def label_mask(content: MaskContent, rule: InstanceRule) -> LabelledInstances:
    """Label the instances of a mask of any kind."""
    if content.kind == "classes":
        return label_classes(content.array.astype(np.uint8, copy=False), rule)
    if content.kind == "instances":
        return clean_instances(content.array, rule)
    return label_instances(content.array, rule=rule)


def _other_size(pair: ImageMaskPair, found: tuple[int, ...], expected: tuple[int, int]) -> str:
    text = (
        f"{pair.mask}: mask of {found[1]}x{found[0]} pixels, "
        f"expected {expected[1]}x{expected[0]} as its image {pair.image.name}"
    )
    orientation = read_orientation(pair.image)
    if orientation == 1 or found != expected[::-1]:
        return text
    return (
        f"{text}: the image is turned by its EXIF orientation {orientation}, the mask is not; turn the mask too, or "
        "remove the orientation from the image (exiftool -Orientation=)"
    )
