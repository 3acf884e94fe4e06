"""From the results of single images to those of a batch: one list of cells, one table, one count."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bccd_d2.errors import InputError
from bccd_d2.files import naming
from bccd_d2.inference.differential import COLUMNS, Row, Tally, differential
from bccd_d2.inference.outputs import CELLS, COUNTS, DIFFERENTIAL, PREDICTIONS, QUALITY, Outputs
from bccd_d2.inference.quality import Quality
from bccd_d2.inference.results import Counts, add_counts
from bccd_d2.inference.writers import FORMATS
from bccd_d2.inference.writers.coco import results_entries
from bccd_d2.inference.writers.tables import (
    ALL_IMAGES,
    COUNT_COLUMNS,
    QUALITY_COLUMNS,
    count_rows,
    quality_row,
    write_csv,
)


@dataclass(frozen=True)
class BatchSummary:
    """What a batch has come to.

    Attributes:
        images: number of images with results; a file of several pages has several.
        counts: of all of them together.
        empty: names of images in which no cell was found.
        quality: of each image, by its name.
        failures: why a file has no results, one text each.
        files: what was written for the whole batch, as other programs call it.
        differential: what the types of the cells come to; empty without types.
    """

    images: int
    counts: Counts
    empty: list[str]
    quality: dict[str, Quality]
    failures: list[str]
    files: list[str]
    differential: Sequence[Row] = ()


def collect(
    images: Sequence[tuple[str | Path, str]], outputs: Outputs, *, types: bool = False
) -> BatchSummary:
    """Write the results of a whole batch from those of its images, reading one image at a time.

    ``predictions.json`` (with format "coco") is a COCO results list in the order of ``images``, whose ``image_id``
    counts files from 1, or pages where a file has several. ``cells.csv``,
    ``counts.csv`` and ``quality.csv`` come with format "csv".

    Args:
        images: path and name of each file, as for :func:`bccd_d2.inference.predict_file.predict_one`.
        outputs: where their results are.
        types: whether the cells have types; then ``differential.csv`` comes with format "csv" too.

    Raises:
        OSError: a file cannot be read or written.
    """
    found: list[dict[str, Any] | None] = []
    failures = []
    for path, name in images:
        record = outputs.record(name)
        if record is None or record["error"] is not None:
            failures.append(f"{path}: not predicted" if record is None else record["error"])
            found.append(None)
        else:
            found += record["images"]
    results = [(number, image) for number, image in enumerate(found, start=1) if image is not None]
    counts = [(image["name"], _counts(image)) for _, image in results]
    quality = {image["name"]: _quality(image) for _, image in results}
    total = add_counts(part for _, part in counts)
    files = []
    found_types: list[Row] = []
    if "coco" in outputs.formats:
        files.append(_publish(outputs, PREDICTIONS, lambda path: _write_predictions(outputs, results, path)))
    if "csv" in outputs.formats:
        names = [image["name"] for _, image in results]
        files.append(_publish(outputs, CELLS, lambda path: _join_tables(outputs, names, path)))
        rows = [row for name, part in [*counts, (ALL_IMAGES, total)] for row in count_rows(name, part)]
        files.append(_publish(outputs, COUNTS, lambda path: write_csv(path, COUNT_COLUMNS, rows)))
        measured = [quality_row(*entry) for entry in quality.items()]
        files.append(_publish(outputs, QUALITY, lambda path: write_csv(path, QUALITY_COLUMNS, measured)))
        if types:
            tally = Tally()
            for name in names:
                tally.add(csv.DictReader(io.StringIO(_file(outputs, "csv", name))))
            found_types = differential(tally)
            content = [list(row.values()) for row in found_types]
            files.append(_publish(outputs, DIFFERENTIAL, lambda path: write_csv(path, COLUMNS, content)))
    outputs.storage.clear_staging()
    empty = [name for name, part in counts if not sum(part.cells.values())]
    return BatchSummary(len(results), total, empty, quality, failures, files, found_types)


def _counts(image: dict[str, Any]) -> Counts:
    return Counts(
        image["cells"],
        image["in_frame"],
        image["area_mm2"],
        image.get("diameter_px"),
        image.get("diameter_from", ""),
        _quality(image).flags,
    )


def _quality(image: dict[str, Any]) -> Quality:
    values = image["quality"]
    return Quality(**values | {"flags": tuple(values["flags"])})


def _publish(outputs: Outputs, name: str, write: Callable[[Path], None]) -> str:
    with naming(Path(outputs.storage.url)), outputs.storage.staging() as folder:
        write(folder / name)
        outputs.storage.publish(folder / name, name)
    return outputs.storage.path(name)


def _file(outputs: Outputs, key: str, name: str) -> str:
    """Text of one image's file in a format that has one file per image."""
    ((folder, suffix, _),) = FORMATS[key]
    content = outputs.storage.read(f"{folder}/{name}{suffix}")
    if content is None:
        raise InputError(f"{outputs.storage.path(folder)}/{name}{suffix} is gone: run the command again")
    return content.decode("utf-8")


def _annotations(outputs: Outputs, name: str) -> dict[str, Any]:
    """One image's COCO document."""
    try:
        return json.loads(_file(outputs, "coco", name))
    except ValueError as error:
        raise InputError(
            f"{outputs.storage.path('coco')}/{name}.json: not JSON ({error}); delete it and run the command again"
        ) from error


def _write_predictions(outputs: Outputs, results: list[tuple[int, dict[str, Any]]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        separator = "\n"
        for number, image in results:
            for entry in results_entries(_annotations(outputs, image["name"]), number):
                file.write(separator + json.dumps(entry, ensure_ascii=False))
                separator = ",\n"
        file.write("\n]\n")


def _join_tables(outputs: Outputs, names: list[str], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        for index, name in enumerate(names):
            header, _, rows = _file(outputs, "csv", name).partition("\n")
            file.write(rows if index else f"{header}\n{rows}")
