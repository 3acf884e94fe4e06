"""The conversion from end to end: a folder of pairs, or annotations of another tool, in; COCO JSON and splits out."""

from __future__ import annotations

import hashlib
import logging
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import bccd_d2
from bccd_d2.conversion.annotated import DEFAULT_CLASS, REPEATED, AnnotationConverter
from bccd_d2.conversion.box_classes import BoxClasses, PointClasses
from bccd_d2.conversion.classes import ClassSource
from bccd_d2.conversion.convert_image import AnnotationRule, Converter, ImageConverter
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.importers import read_annotations
from bccd_d2.conversion.importers.common import ImageFiles, leave_out_repeats
from bccd_d2.conversion.pairs import (
    FolderPair,
    ImageMaskPair,
    find_below,
    find_pairs,
    list_names,
    take_parts,
    with_unique_stems,
)
from bccd_d2.conversion.splits import PlannedSplit, SplitPlan, plan_split, read_image_sets, write_splits
from bccd_d2.errors import InputError
from bccd_d2.files import staged_output
from bccd_d2.io.coco_images import written_root
from bccd_d2.io.masks import MaskRule
from bccd_d2.parallel import map_files
from bccd_d2.structures.coco import CocoWriter
from bccd_d2.structures.dataset_files import PARTS, annotation_file
from bccd_d2.structures.names import stem_of

logger = logging.getLogger(__name__)
SPLITS_FILE = "splits.json"
IMAGES_ONLY = DatasetSpec("annotations of another tool", (FolderPair("."),), MaskRule("none"))
LOOKED_AT = 8
"""Of so few images every mask is compared with what its image shows; of more one in a hundred, as that takes time."""
FEWEST = 2  # instances on an image of a smear; fewer on most images are worth a word


@dataclass(frozen=True)
class ConversionOptions:
    """What a user may choose; written to the JSON's ``info``."""

    # Layout of the data, meaning of the masks, how instances are made.
    spec: DatasetSpec = field(default_factory=DatasetSpec)
    annotations: AnnotationRule = field(default_factory=AnnotationRule)  # how instances are written
    split: SplitPlan = field(default_factory=SplitPlan)  # how images are divided


@dataclass
class ConversionSummary:
    """What came out."""

    images: Counter[str] = field(default_factory=Counter)  # by part
    instances: Counter[str] = field(default_factory=Counter)  # by part, regions to ignore included
    events: Counter[str] = field(
        default_factory=Counter
    )  # what happened to components, boxes and images, by name
    faults: list[str] = field(default_factory=list)  # of files that were left out
    # Names of the images by what speaks against their masks.
    doubts: dict[str, list[str]] = field(default_factory=dict)
    per_image: list[int] = field(default_factory=list)  # number of annotations of each image


def convert_dataset(
    root: Path | str,
    out: Path | str,
    options: ConversionOptions | None = None,
    *,
    boxes: Path | None = None,
    class_source: ClassSource | None = None,
    workers: int = 1,
    overwrite: bool = False,
    skip_bad: bool = False,
) -> ConversionSummary:
    """Convert all pairs below ``root`` to ``out/annotations/instances_{train,val,test}.json`` and
    ``out/splits.json``, which appear together at the end or, on any failure, not at all.

    The classes of the instances are those of the boxes or points that the dataset spec names; ``boxes`` overrules their
    place in it. Without masks every box is an instance. ``class_source`` tells the classes in their stead; where there
    is nothing of all this the masks do, or all are ``cell``. With ``skip_bad`` files that cannot be used are left out
    and listed in the summary; without, they raise InputError, as any bad input does.
    """
    root, options = Path(root), options or ConversionOptions()
    spec, table = options.spec, options.spec.classes
    if boxes is not None and table is None:
        raise InputError(
            f"{boxes}: boxes, but the dataset spec has no section 'classes' that says what their categories mean; "
            "expected one that has, for instance bbbc041"
        )
    place = boxes
    if class_source is None and table is not None:
        if place is None and table.boxes is not None:
            place = find_below(root, table.boxes)
        if place is not None and not place.exists():
            raise InputError(f"{place}: no such file or folder, expected boxes")
        if place is None and table.format != "yolo":  # which has its own places for them
            raise InputError(
                "the dataset spec takes classes from boxes; expected --boxes, a file or folder with them"
            )
        if table.format == "points":
            class_source = PointClasses(table, Path(str(place)))
        elif spec.mask.kind != "none":
            class_source = BoxClasses(table)
    faults: list[str] | None = [] if skip_bad else None
    converter: Converter
    if class_source is None and table is not None:
        converter = AnnotationConverter(root, options.annotations, spec.class_names, table)
        info: dict[str, Any] | None = {"source": "boxes", "weak": True}
    else:
        converter = ImageConverter(root, options.annotations, spec, class_source)
        info = dict(class_source.info) if class_source else None

    def find() -> list[ImageMaskPair]:
        pairs = find_pairs(root, faults, spec.folders)
        if spec.image_sets is not None and options.split.mode == "official":
            pairs = take_parts(pairs, read_image_sets(find_below(root, spec.image_sets)))
        if table is None or (class_source is not None and not isinstance(class_source, BoxClasses)):
            return pairs
        names = [pair.image.relative_to(root).as_posix() for pair in pairs]
        files = ImageFiles(root, names)
        _, _, imported = read_annotations(place or root, table.format, files, faults)
        annotations = files.join(imported.images, str(place or root))
        unread = files.match([str(path.with_suffix("")) for path in imported.unread], str(root)).values()
        return [
            replace(pair, annotations=annotations.get(name))
            for pair, name in zip(pairs, names)
            if name not in unread
        ]

    return convert_pairs(
        converter,
        Path(out),
        find,
        options,
        {"class_source": info},
        faults,
        workers=workers,
        overwrite=overwrite,
    )


def convert_annotations(
    path: Path | str,
    out: Path | str,
    options: ConversionOptions | None = None,
    *,
    kind: str | None = None,
    images: Path | None = None,
    min_area: int = 1,
    workers: int = 1,
    overwrite: bool = False,
    skip_bad: bool = False,
) -> ConversionSummary:
    """Convert annotations of another tool, a file or a folder of files, to what :func:`convert_dataset` writes.

    ``kind`` is one of :data:`bccd_d2.conversion.importers.FORMATS`, recognised where not given; ``images`` the
    folder of the images where they are not beside the annotations. The ``classes`` of the dataset spec say what the
    class names stand for; without them they stay, and cells without a class are ``cell``. Cells of fewer than
    ``min_area`` pixels are dropped.
    """
    path, options = Path(path), options or ConversionOptions()
    known = options.spec
    faults: list[str] | None = [] if skip_bad else None
    spec = replace(IMAGES_ONLY, annotates=known.annotates, unlabeled_sizes=known.unlabeled_sizes)
    options = replace(options, spec=spec)
    kind, files, imported = read_annotations(path, kind, images, faults)
    names = known.classes.class_ids if known.classes else imported.class_names(DEFAULT_CLASS)
    classes = tuple(dict.fromkeys([*spec.annotates, *names]))
    imported.counts[REPEATED] += sum(map(leave_out_repeats, imported.images))
    for what, count in sorted((+imported.counts).items()):
        logger.warning("%s: %d %s", path, count, what)

    def find() -> list[ImageMaskPair]:
        joined = files.join(imported.images, str(path))
        here = set(map(id, joined.values()))
        missing = [f"{image.name} ({image.source})" for image in imported.images if id(image) not in here]
        if missing:
            headline = f"images that are not found ({len(missing)} of {len(imported.images)})"
            advice = "--images names the folder that holds them, --skip-bad leaves them out"
            said = f"{list_names(headline, missing)}\n{advice}"
            if faults is None or not joined:
                raise InputError(f"{path}: {said}")
            faults.append(said)
        if not any(image.cells for image in imported.images):
            raise InputError(f"{path}: no annotated image in {kind} format (of {len(imported.images)})")
        unused = len(files.paths) - len(joined)
        if unused > 0:
            logger.info("%s: %d images here have no annotations and are not used", files.folder, unused)
        places = {files.paths[name]: image for name, image in joined.items()}
        pairs = [ImageMaskPair(stem_of(p.name), p, p, image.part, image) for p, image in places.items()]
        return with_unique_stems(pairs, files.folder)

    logger.info(
        "%s: %d images in %s format, classes %s", path, len(imported.images), kind, ", ".join(classes)
    )
    return convert_pairs(
        AnnotationConverter(files.folder, options.annotations, classes, known.classes, min_area),
        Path(out),
        find,
        options,
        {"annotations_of": {"format": kind, "path": path.name}},
        faults,
        workers=workers,
        overwrite=overwrite,
    )


def convert_pairs(
    converter: Converter,
    out: Path,
    find: Callable[[], list[ImageMaskPair]],
    options: ConversionOptions,
    source: Mapping[str, Any],
    faults: list[str] | None,
    *,
    workers: int,
    overwrite: bool,
) -> ConversionSummary:
    """Convert the pairs that ``find`` returns, as :func:`convert_dataset` does. ``source`` says in ``info`` where
    classes come from; ``faults`` takes what is said of files that are left out, ``None`` where they are errors.
    """
    root, summary = converter.root, ConversionSummary()
    summary.faults = summary.faults if faults is None else faults
    targets = [SPLITS_FILE, *(str(annotation_file(Path(), part)) for part in PARTS)]
    with staged_output(out, targets, overwrite=overwrite) as staging:
        pairs = find()
        splits, groups, missing = plan_split(pairs, options.split, options.spec.mask, workers, faults)
        part_of = {stem: part for part, stems in splits.items() for stem in stems}
        numbered = [(number, pair) for number, pair in enumerate(pairs, start=1) if pair.stem in part_of]
        compared = _spread([number for number, _ in numbered])
        items = [(number, pair, number in compared) for number, pair in numbered]
        info = _info(root, out, pairs, options, source)
        categories = [{"id": n, "name": name} for n, name in enumerate(converter.class_names, start=1)]
        used: dict[str, list[str]] = {part: [] for part in PARTS}
        annotation_id = 0
        with ExitStack() as stack:
            files = {part: annotation_file(staging, part) for part in PARTS}
            writers = {
                part: stack.enter_context(CocoWriter(path, info, categories)) for part, path in files.items()
            }
            advice = "\n--skip-bad leaves such files out and lists them"
            for _, converted in map_files(converter, items, workers, "convert", faults, advice):
                record, annotations = converted.record, converted.annotations
                part = part_of[record.stem]
                used[part].append(record.stem)
                for annotation in annotations:
                    annotation_id += 1
                    annotation["id"] = annotation_id
                image = {"id": record.id, "file_name": record.file_name}
                writers[part].add({**image, "height": record.height, "width": record.width}, annotations)
                summary.images[part] += 1
                summary.instances[part] += len(annotations)
                summary.events += converted.counts
                summary.per_image.append(len(annotations))
                for doubt in converted.doubts:
                    summary.doubts.setdefault(doubt, []).append(record.file_name)
        if not any(used.values()):
            raise InputError(f"{root}: no usable pair left; first fault: {summary.faults[0]}")
        if summary.events["images without boxes"] == summary.images.total():
            raise InputError(f"{root}: none of the {summary.images.total()} images has boxes; expected some")
        kept = {stem for stems in used.values() for stem in stems}
        groups = {stem: group for stem, group in (groups or {}).items() if stem in kept}
        write_splits(staging / SPLITS_FILE, PlannedSplit(used, groups, missing), asdict(options.split))
    _log(summary)
    return summary


def _spread(numbers: Sequence[int]) -> set[int]:
    """All of few images, some of many, spread evenly: those whose masks are compared with what the image shows."""
    count = len(numbers) if len(numbers) <= LOOKED_AT else 1 + len(numbers) // 100
    return {numbers[index * (len(numbers) - 1) // max(count - 1, 1)] for index in range(count)}


def _info(
    root: Path,
    out: Path,
    pairs: Sequence[ImageMaskPair],
    options: ConversionOptions,
    source: Mapping[str, Any],
) -> dict[str, Any]:
    files = "".join(
        f"{pair.image.relative_to(root).as_posix()}\t{pair.mask.relative_to(root).as_posix()}\n"
        for pair in pairs
    )
    return {
        "description": "Blood-cell instances",
        "version": bccd_d2.__version__,
        "image_root": written_root(root, out),
        "options": {**asdict(options), **source},
        **options.spec.unlabeled,
        "files_sha256": hashlib.sha256(files.encode()).hexdigest(),
    }


def _log(summary: ConversionSummary) -> None:
    for name, count in sorted(summary.events.items()):
        logger.info("%s: %d", name, count)
    for part in PARTS:
        if not summary.images[part]:
            logger.warning("no image in %s", part)
    if summary.faults:
        logger.warning("%d files left out", len(summary.faults))
    for doubt, names in summary.doubts.items():
        logger.warning("%s", list_names(f"{doubt} ({len(names)} images)", names))
    if summary.per_image and statistics.median(summary.per_image) < FEWEST:
        logger.warning(
            "%d of %d images have no or only one instance; if they show more cells, look at the masks and what the "
            "--spec says of them",
            sum(number < FEWEST for number in summary.per_image),
            len(summary.per_image),
        )
