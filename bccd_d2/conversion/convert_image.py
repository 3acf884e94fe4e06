"""One image and its mask to COCO annotations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.classes import ClassAssignment, ClassSource
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.pairs import ImageMaskPair, ImageRecord
from bccd_d2.errors import InputError
from bccd_d2.io.images import read_image, read_image_size, read_orientation
from bccd_d2.io.masks import MaskKind, MaskRule, read_mask
from bccd_d2.segmentation.instances import (
    InstanceRule,
    LabelledInstances,
    class_of_labels,
    clean_instances,
    label_classes,
    label_instances,
)
from bccd_d2.segmentation.mask_checks import fills_image, measure_fit
from bccd_d2.segmentation.unlabelled import find_unlabelled
from bccd_d2.structures.polygons import mask_to_polygons
from bccd_d2.structures.rle import EncodedInstance, decode_segmentation, encode_labels

FILLS_IMAGE = "one instance covers most of the image and touches all its sides"
BorderPolicy = Literal["keep", "ignore"]


@dataclass(frozen=True)
class AnnotationRule:
    """How instances are written."""

    border: BorderPolicy = "keep"  # ``ignore``: instances that touch the image border have ``iscrowd`` 1
    # Pixels that look like cells but have no mask are written as regions with ``iscrowd`` 1, once for each category.
    unlabelled: bool = False
    polygons: bool = False  # in place of RLE, but for regions with ``iscrowd``, as COCO wants them


@dataclass
class ConvertedImage:
    """One image, its annotations (still without ``id``), counts of what happened, and doubts about the mask."""

    record: ImageRecord
    annotations: list[dict[str, Any]]
    counts: Counter[str]
    doubts: list[str] = field(default_factory=list)


class Drawn(NamedTuple):
    """An instance that is written."""

    instance: EncodedInstance
    category_id: int | None  # ``None``: a region to ignore whatever the class
    ignored: bool = False
    weak: bool = False  # its mask was guessed
    box: list[int] | None = None  # ``[x, y, width, height]`` in place of that around the mask


@dataclass(frozen=True)
class Converter(ABC):
    """Converts images one by one; picklable, for worker processes."""

    root: Path  # folder that file names are relative to
    rule: AnnotationRule = field(default_factory=AnnotationRule)  # how annotations are written

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Names in the order of their category ids from 1."""

    @abstractmethod
    def __call__(self, item: tuple[int, ImageMaskPair, bool]) -> ConvertedImage:
        """Convert an image id, a pair, and whether the mask is compared with what the image shows, which takes time.
        Raises InputError where image or mask cannot be used.
        """

    def record(self, number: int, pair: ImageMaskPair) -> ImageRecord:
        """What the conversion knows of an image; its size is read from the file. Raises InputError if the annotations
        speak of another.
        """
        height, width = read_image_size(pair.image)
        said = pair.annotations.size if pair.annotations else None
        if pair.annotations and said not in (None, (height, width)):
            raise InputError(
                f"{pair.annotations.source}: annotations for an image of {said[1]}x{said[0]} pixels, expected "
                f"{width}x{height} as {pair.image}"
            )
        file_name = pair.image.relative_to(self.root).as_posix()
        return ImageRecord(number, pair.stem, file_name, pair.image, height, width, pair.annotations)

    def write(
        self,
        record: ImageRecord,
        drawn: Iterable[Drawn],
        labels: NDArray[np.int32],
        counts: Counter[str],
        doubts: list[str],
    ) -> ConvertedImage:
        """Write and count instances, and unlabelled regions beside those of ``labels`` where the rule wants them."""
        drawn = list(drawn)
        annotations = [self._entry(record, one) for one in drawn if one.category_id is not None]
        annotations += self._regions(record, [one.instance for one in drawn if one.category_id is None])
        if not annotations:
            counts["images without an instance"] += 1
        counts["instances at the border"] += sum(annotation["border"] for annotation in annotations)
        if self.rule.unlabelled:
            regions = encode_labels(find_unlabelled(read_image(record.path, "RGB"), labels))
            annotations += [{**region, "unlabelled": True} for region in self._regions(record, regions)]
            counts["unlabelled regions to ignore"] += len(regions)
        return ConvertedImage(record, annotations, counts, doubts)

    def _entry(self, record: ImageRecord, drawn: Drawn) -> dict[str, Any]:
        """COCO annotation of an instance, still without ``id``."""
        instance = drawn.instance
        ignored = drawn.ignored or (self.rule.border == "ignore" and instance.border)
        segmentation: Any = instance.segmentation
        if self.rule.polygons and not ignored:
            x, y, width, height = instance.bbox
            mask = decode_segmentation(segmentation, record.height, record.width)
            segmentation = mask_to_polygons(mask[y : y + height, x : x + width], x, y)
        return {
            "image_id": record.id,
            "category_id": drawn.category_id,
            "bbox": drawn.box or instance.bbox,
            "area": instance.area,
            "segmentation": segmentation,
            "iscrowd": int(ignored),
            "border": instance.border,
            **({"weak": True} if drawn.weak else {}),
        }

    def _regions(self, record: ImageRecord, regions: list[EncodedInstance]) -> list[dict[str, Any]]:
        """Each region to ignore once for every category: an evaluation looks at one category at a time."""
        numbers = range(1, len(self.class_names) + 1)
        return [self._entry(record, Drawn(region, number, True)) for region in regions for number in numbers]


@dataclass(frozen=True)
class ImageConverter(Converter):
    """Converts images with their masks."""

    # What the masks mean and how instances are made of them.
    spec: DatasetSpec = field(default_factory=DatasetSpec)
    # Tells the class of each instance; ``None`` takes the classes of the mask, or one class ``cell``.
    class_source: ClassSource | None = None

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
    def class_names(self) -> Sequence[str]:
        """Classes of the source or of the masks, then those that the dataset spec adds."""
        if self.class_source is None:
            return self.spec.class_names
        return list(dict.fromkeys([*self.class_source.class_names, *self.spec.annotates]))

    def __call__(self, item: tuple[int, ImageMaskPair, bool]) -> ConvertedImage:
        """See :meth:`Converter.__call__`."""
        number, pair, compare = item
        record = self.record(number, pair)
        kind = self.spec.mask.kind
        mask = read_pair_mask(pair, (record.height, record.width), self.spec.mask)
        labels, counts = label_mask(mask, kind, self.spec.instances)
        if kind == "classes":
            found = ClassAssignment(labels, class_of_labels(labels, mask.astype(np.uint8)))
        elif self.class_source is None:
            found = ClassAssignment(labels, dict.fromkeys(range(1, int(labels.max(initial=0)) + 1), 1))
        else:
            found = self.class_source(record, labels)
        counts += found.counts
        encoded = encode_labels(found.labels)
        drawn = [
            Drawn(
                instance,
                found.category_ids.get(instance.label),
                instance.label in found.ignored,
                instance.label in found.weak,
                found.boxes.get(instance.label),
            )
            for instance in encoded
            if instance.label in found.category_ids or instance.label in found.ignored
        ]
        doubts = [] if kind == "none" else self._doubts(pair, found.labels, encoded, compare)
        return self.write(record, drawn, found.labels, counts, doubts)

    def _doubts(
        self, pair: ImageMaskPair, labels: NDArray[np.int32], encoded: list[EncodedInstance], compare: bool
    ) -> list[str]:
        """What speaks against the mask being that of its image, in words that many images can share."""
        orientation = read_orientation(pair.image)
        unturned = orientation != 1 and pair.mask != pair.image and read_orientation(pair.mask) == 1
        height, width = labels.shape
        around = [i for i in encoded if i.bbox == [0, 0, width, height]]
        if not (unturned or around or compare):
            return []
        image = read_image(pair.image, "RGB")
        refuse_background(pair, image, labels)
        fit = measure_fit(image, labels > 0, orientation)
        background = [i for i in around if fills_image(i.bbox, i.area, height, width)]
        doubts = []
        if unturned:
            doubts.append(
                f"the image is turned by its EXIF orientation {orientation}, the mask is not"
                + ("; it fits the image as stored, so turn it too" if fit.fits_turned else "")
            )
        if background:
            doubts.append(FILLS_IMAGE)
        if fit.is_inverted and not fit.fits_turned:
            doubts.append(
                "the image shows cells where the mask has none; is it inverted? See 'invert' of a --spec"
            )
        elif fit.is_unrelated and not fit.fits_turned:
            doubts.append("the mask does not lie on what the image shows (Otsu's foreground)")
        return doubts


def refuse_background(pair: ImageMaskPair, image: NDArray[np.uint8], labels: NDArray[np.int32]) -> None:
    """Raise InputError if an instance of ``labels`` (height, width) touches all sides of the image (RGB) and lies
    where that shows background.
    """
    sides = labels[0], labels[-1], labels[:, 0], labels[:, -1]
    for label in set.intersection(*(set(side.tolist()) for side in sides)) - {0}:
        instance = labels == label
        if measure_fit(image, instance).is_inverted:
            raise InputError(
                f"{pair.mask}: the background is taken for a cell: one instance covers {instance.mean():.0%} of the "
                "image and touches all its sides, and the image shows cells where it is not; is the mask inverted? "
                "A --spec with 'invert: true' turns it round; in masks of numbered cells the background is 0"
            )


def read_pair_mask(pair: ImageMaskPair, size: tuple[int, int], rule: MaskRule) -> NDArray[np.integer]:
    """Read the mask of a pair, as :func:`bccd_d2.io.masks.read_mask`; raises InputError if it cannot be used, or has
    another size (height, width) than its image.
    """
    mask = read_mask(pair.mask, rule)
    found = mask.shape
    if found == size:
        return mask
    expected = f"{size[1]}x{size[0]} as its image {pair.image.name}"
    text = f"{pair.mask}: mask of {found[1]}x{found[0]} pixels, expected {expected}"
    turned = {
        what: orientation
        for what, path in (("image", pair.image), ("mask", pair.mask))
        if path.suffix.lower() != ".npy" and (orientation := read_orientation(path)) != 1
    }
    if len(turned) == 1 and found == size[::-1]:
        (one,), other = turned, "mask" if "image" in turned else "image"
        text += (
            f": the {one} is turned by its EXIF orientation {turned[one]}, the {other} is not; turn the {other} too, "
            f"or remove the orientation from the {one} (exiftool -Orientation=)"
        )
    raise InputError(text)


def label_mask(mask: NDArray[np.integer], kind: MaskKind, rule: InstanceRule) -> LabelledInstances:
    """Label the instances of a mask of any kind."""
    if kind == "classes":
        return label_classes(mask.astype(np.uint8), rule)
    return clean_instances(mask, rule) if kind == "instances" else label_instances(mask, rule)
