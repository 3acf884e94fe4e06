"""Corrected annotations, and some images of the model's former data, as the data set of an adaptation."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bccd_d2.conversion.convert import ConversionOptions, convert_annotations, convert_dataset
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.splits import SplitPlan, deal_order
from bccd_d2.errors import InputError
from bccd_d2.files import write_json
from bccd_d2.io.coco_images import image_root
from bccd_d2.structures.coco import read_coco, subset, unlabeled_categories
from bccd_d2.structures.dataset_files import annotation_file
from bccd_d2.structures.names import match_classes

_logger = logging.getLogger(__name__)
FEWEST_TO_DIVIDE = 3
"""Of fewer images none is held back."""
_HELD_BACK_SHARE, _MOST_HELD_BACK = 0.2, 20
_SEED = 42
# Crops of corrected images for each one of replay data.
_CORRECTED_PER_REPLAY = 2


def read_corrected(
    corrected: Path, kind: str | None, images: Path | None, spec: DatasetSpec | None
) -> tuple[dict[str, Any], Path]:
    """The annotations as one COCO document, and the folder that its file names are relative to."""
    everything = SplitPlan("random", ratios=(1.0, 0.0, 0.0))
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "data"
        if spec is None:
            convert_annotations(corrected, out, ConversionOptions(split=everything), kind=kind, images=images)
        else:
            convert_dataset(corrected, out, ConversionOptions(spec, split=everything))
        file = annotation_file(out, "train")
        document = read_coco(file)
        return document, image_root(document, file).resolve()


def join_classes(document: Mapping[str, Any], names: Sequence[str], where: str) -> list[str]:
    """Classes of the adapted model: the start model's if the annotations have no others, else the annotations'.

    Categories of ``document`` are renamed to the start model's.
    """
    known, categories = dict(enumerate(names)), document["categories"]
    matches = match_classes({c["id"]: c["name"] for c in categories}, known, where=where, required=False)
    for category in categories:
        category["name"] = known.get(matches.get(category["id"], -1), category["name"])
    if len(matches) == len(categories):
        return list(names)
    classes = [category["name"] for category in categories]
    _logger.warning(
        f"{where}: classes {', '.join(classes)}, but the start model has {', '.join(names)}: the adapted model has "
        "those of the annotations; new ones start from the mean of the old ones"
    )
    return classes


def write_data(
    document: Mapping[str, Any], root: Path, classes: Sequence[str], out: Path
) -> tuple[list[str], list[str]]:
    """Divide corrected images and write them as a data set of ``bccd_train`` and ``bccd_val`` below ``out``.

    Classes that no cell of the COCO ``document`` has are taken for not annotated: they are no negatives, neither in
    training nor in the evaluation. Returns the file names of the images that are held back, none of fewer than
    :data:`FEWEST_TO_DIVIDE`, and of the others. Raises InputError where there is no cell.
    """
    cells = [annotation for annotation in document["annotations"] if not annotation["iscrowd"]]
    with_cells = {cell["image_id"] for cell in cells}
    ordered = deal_order([i["file_name"] for i in document["images"] if i["id"] in with_cells], _SEED)
    if not ordered:
        raise InputError(f"{root}: found no image with a cell, expected corrected cells to train on")
    share = round(_HELD_BACK_SHARE * len(ordered))
    held_back = ordered[: min(_MOST_HELD_BACK, max(1, share))] if len(ordered) >= FEWEST_TO_DIVIDE else []
    trained_on = sorted({image["file_name"] for image in document["images"]} - set(held_back))
    annotated = {c["name"] for c in document["categories"] if c["id"] in {a["category_id"] for a in cells}}
    for part, chosen in (("train", trained_on), ("val", held_back)):
        _write_part(document, root, classes, annotated, chosen, annotation_file(out, part))
    return held_back, trained_on


def write_replay(replay: Path, classes: Sequence[str], corrected: int, out: Path) -> int:
    """Write some images of a data set below ``out``; how often the corrected ones must be repeated."""
    file = annotation_file(replay, "train")
    if not file.is_file():
        raise InputError(f"--replay: {file} is not there; expected a folder that tools/convert_bccd.py wrote")
    document, known = read_coco(file), dict(enumerate(classes))
    matches = match_classes({c["id"]: c["name"] for c in document["categories"]}, known, where=str(file))
    for category in document["categories"]:
        category["name"] = known[matches[category["id"]]]
    chosen = deal_order([image["file_name"] for image in document["images"]], _SEED)[: max(10, 2 * corrected)]
    annotated = {category["name"] for category in document["categories"]}
    root = image_root(document, file)
    _write_part(document, root, classes, annotated, chosen, annotation_file(out / "replay", "train"))
    return -(-_CORRECTED_PER_REPLAY * len(chosen) // corrected)


def _write_part(
    document: Mapping[str, Any],
    root: Path,
    classes: Sequence[str],
    annotated: Collection[str],
    chosen: Collection[str],
    file: Path,
) -> None:
    """Write the images of ``chosen`` with all ``classes``; those that are not ``annotated`` are no negatives."""
    categories = list(document["categories"])
    missing = [name for name in classes if name not in {category["name"] for category in categories}]
    free = 1 + max(category["id"] for category in categories)
    categories += [{"id": number, "name": name} for number, name in enumerate(missing, free)]
    others = set(classes) - set(annotated)
    images = [
        {**i, "unlabeled_categories": sorted(others.union(unlabeled_categories(document, i, str(file))))}
        for i in document["images"]
        if i["file_name"] in chosen
    ]
    write_json(file, {**subset(document, images, root), "categories": categories})
