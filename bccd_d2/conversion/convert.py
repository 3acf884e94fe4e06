"""The conversion from end to end: a folder of pairs in, COCO JSON and splits out."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

import bccd_d2
from bccd_d2.conversion.class_source import ClassSource, ImageRecord, SingleClass
from bccd_d2.conversion.coco import write_coco
from bccd_d2.conversion.encode import encode_labels
from bccd_d2.conversion.images import read_binary_mask, read_image_size
from bccd_d2.conversion.instances import MIN_AREA, InstanceCounts, label_instances
from bccd_d2.conversion.layout import ImageMaskPair, find_pairs, relative_posix
from bccd_d2.conversion.splits import PARTS, SEED, split_stems, write_splits
from bccd_d2.conversion.staging import staged_output
from bccd_d2.errors import InputError

logger = logging.getLogger(__name__)
SPLITS_FILE = "splits.json"


@dataclass(frozen=True)
class ConversionOptions:
    """What a user may choose; written to the JSON's ``info``."""

    min_area: int = MIN_AREA
    connectivity: int = 8
    seed: int = SEED
    max_images: int | None = None


@dataclass
class ConversionSummary:
    """What came out: images and instances by part, what was dropped, and the faults of skipped files."""

    images: Counter[str] = field(default_factory=Counter)
    instances: Counter[str] = field(default_factory=Counter)
    counts: InstanceCounts = field(default_factory=InstanceCounts)
    class_counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@dataclass
class _ConvertedImage:
    record: ImageRecord
    annotations: list[dict[str, Any]]
    counts: InstanceCounts
    class_counts: Counter[str]


def convert_dataset(
    root: Path | str,
    out: Path | str,
    options: ConversionOptions | None = None,
    *,
    class_source: ClassSource | None = None,
    workers: int = 1,
    overwrite: bool = False,
    skip_bad: bool = False,
) -> ConversionSummary:
    """Convert all pairs below ``root`` to COCO JSON and a split.

    Written are ``out/annotations/instances_{train,val,test}.json`` and ``out/splits.json``.

    Args:
        root: data root, see :func:`bccd_d2.conversion.layout.find_pairs`.
        out: output folder; its files appear together at the end or, on any failure, not at all.
        options: see :class:`ConversionOptions`.
        class_source: tells the class of each instance; one class ``cell`` where absent.
        workers: processes.
        overwrite: replace an earlier output.
        skip_bad: leave out files that cannot be used and list them in the summary, instead of raising.

    Raises:
        InputError: bad input, see the message.
    """
    root, out, options = Path(root), Path(out), options or ConversionOptions()
    class_source = class_source or SingleClass()
    summary = ConversionSummary()
    pairs = find_pairs(root, summary.faults if skip_bad else None)
    splits = split_stems([pair.stem for pair in pairs], seed=options.seed, max_images=options.max_images)
    part_of = {stem: part for part, stems in splits.items() for stem in stems}
    numbered = [(number, pair) for number, pair in enumerate(pairs, start=1) if pair.stem in part_of]
    info = _info(root, out, pairs, options)
    documents: dict[str, dict[str, Any]] = {
        part: {"info": info, "categories": class_source.categories, "images": [], "annotations": []}
        for part in PARTS
    }
    targets = [*(f"annotations/instances_{part}.json" for part in PARTS), SPLITS_FILE]
    with staged_output(out, targets, overwrite=overwrite) as staging:
        used: dict[str, list[str]] = {part: [] for part in PARTS}
        annotation_id = 1
        convert = partial(_convert_pair, root=root, options=options, class_source=class_source)
        for converted in tqdm(
            _map(convert, numbered, workers), total=len(numbered), unit="image", desc="convert", disable=None
        ):
            if isinstance(converted, str):
                if not skip_bad:
                    raise InputError(converted)
                summary.faults.append(converted)
                continue
            record = converted.record
            part = part_of[record.stem]
            used[part].append(record.stem)
            documents[part]["images"].append(
                {
                    "id": record.id,
                    "file_name": record.file_name,
                    "height": record.height,
                    "width": record.width,
                }
            )
            for annotation in converted.annotations:
                documents[part]["annotations"].append({"id": annotation_id, **annotation})
                annotation_id += 1
            summary.images[part] += 1
            summary.instances[part] += len(converted.annotations)
            summary.counts += converted.counts
            summary.class_counts += converted.class_counts
        if not any(used.values()):
            raise InputError(f"{root}: no usable pair left; first fault: {summary.faults[0]}")
        for part in PARTS:
            write_coco(staging / "annotations" / f"instances_{part}.json", documents[part])
        write_splits(staging / SPLITS_FILE, used, {"seed": options.seed, "max_images": options.max_images})
    _log(summary, options)
    return summary


def _convert_pair(
    numbered: tuple[int, ImageMaskPair], *, root: Path, options: ConversionOptions, class_source: ClassSource
) -> _ConvertedImage | str:
    """Convert one pair; a fault comes back as text, so that one bad file need not end the run."""
    number, pair = numbered
    try:
        height, width = read_image_size(pair.image)
        mask = read_binary_mask(pair.mask)
        if mask.shape != (height, width):
            raise InputError(
                f"{pair.mask}: mask of {mask.shape[1]}x{mask.shape[0]} pixels, "
                f"expected {width}x{height} as its image {pair.image.name}"
            )
    except (InputError, OSError) as error:
        return str(error)
    file_name = pair.image.relative_to(root).as_posix()
    record = ImageRecord(number, pair.stem, file_name, pair.image, height, width)
    labels, counts = label_instances(mask, min_area=options.min_area, connectivity=options.connectivity)
    assignment = class_source(record, labels)
    annotations = [
        {
            "image_id": number,
            "category_id": assignment.category_ids[instance.label],
            "bbox": instance.bbox,
            "area": instance.area,
            "segmentation": instance.segmentation,
            "iscrowd": int(instance.label in assignment.ignored),
            "border": instance.border,
        }
        for instance in encode_labels(assignment.labels)
        if instance.label in assignment.category_ids
    ]
    return _ConvertedImage(record, annotations, counts, assignment.counts)


def _map(function: Any, items: Sequence[Any], workers: int) -> Iterator[Any]:
    """``map`` in order, over ``workers`` processes where there are several."""
    if workers <= 1:
        yield from map(function, items)
        return
    # OpenCV's own threads on top of one process a core make everything slower.
    # Spawned, not forked: a fork copies the locks of OpenCV's threads without the threads and then waits forever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        try:
            yield from pool.map(function, items, chunksize=4)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _info(
    root: Path, out: Path, pairs: Sequence[ImageMaskPair], options: ConversionOptions
) -> dict[str, Any]:
    files = "".join(
        f"{pair.image.relative_to(root).as_posix()}\t{pair.mask.relative_to(root).as_posix()}\n"
        for pair in pairs
    )
    return {
        "description": "Blood-cell instances from semantic masks",
        "version": bccd_d2.__version__,
        "image_root": relative_posix(root, out),
        "options": asdict(options),
        "files_sha256": hashlib.sha256(files.encode("utf-8", "surrogateescape")).hexdigest(),
    }


def _log(summary: ConversionSummary, options: ConversionOptions) -> None:
    counts = summary.counts
    logger.info(
        "%d components, %d kept, %d specks under %d px dropped",
        counts.components, counts.kept, counts.specks, options.min_area,
    )  # fmt: skip
    for name, count in sorted(summary.class_counts.items()):
        logger.info("%s: %d", name, count)
