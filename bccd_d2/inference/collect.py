"""From the results of single images to those of a batch: one list of cells, one table, one count."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bccd_d2.cell_types.differential import COLUMNS, Row, Tally, differential
from bccd_d2.errors import InputError
from bccd_d2.inference.outputs import DIFFERENTIAL, PREDICTIONS, QUALITY, Outputs
from bccd_d2.inference.predict_file import Images
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
from bccd_d2.io.cells_table import CELLS, COUNTS, CellRow, read_cells


@dataclass(frozen=True)
class BatchSummary:
    """What a batch has come to."""

    images: int  # number of images with results; a file of several pages has several
    counts: Counts  # of all of them together
    empty: list[str]  # names of images in which no cell was found
    quality: dict[str, Quality]  # of each image, by its name
    failures: list[str]  # why a file has no results, one text each
    differential: Sequence[Row] = ()  # what the types of the cells come to; empty without types


def collect(images: Images, outputs: Outputs, *, types: bool = False) -> BatchSummary:
    """Write the results of a whole batch from those of its images, reading one image at a time.

    Format "coco" gives ``predictions.json``, a COCO results list in the order of ``images`` whose ``image_id`` counts
    files from 1, or pages where a file has several. Format "csv" gives ``cells.csv``, ``counts.csv`` and
    ``quality.csv``, and ``differential.csv`` where the cells have ``types``.
    """
    found: list[dict[str, Any] | None] = []
    failures = []
    written = []
    for path, name in images:
        record = outputs.record(name)
        if record is None or record["error"] is not None:
            failures.append(f"{path}: not predicted" if record is None else record["error"])
            found.append(None)
        else:
            found += record["images"]
            written.append(set(record["formats"]))
    # Formats of an earlier run have been written again with the others.
    formats = set(outputs.formats).union(set.intersection(*written) if written else ())
    results = [(number, image) for number, image in enumerate(found, start=1) if image is not None]
    names = [image["name"] for _, image in results]
    counts = [Counts(**image["counts"]) for _, image in results]
    quality = {image["name"]: Quality(**image["quality"]) for _, image in results}
    total = add_counts(counts)
    found_types: list[Row] = []
    write = outputs.storage.write
    if "coco" in formats:
        write(PREDICTIONS, lambda path: _write_predictions(outputs, results, path))
    if "csv" in formats:
        write(CELLS, lambda path: _join_tables(outputs, names, path))
        rows = [
            *(row for one, part in zip(names, counts) for row in count_rows(one, part, quality[one].flags)),
            *count_rows(ALL_IMAGES, total),
        ]
        write(COUNTS, lambda path: write_csv(path, COUNT_COLUMNS, rows))
        measured = [quality_row(*entry) for entry in quality.items()]
        write(QUALITY, lambda path: write_csv(path, QUALITY_COLUMNS, measured))
        if types:
            tally = Tally()
            for name in names:
                tally.add(image_cells(outputs, name))
            found_types = differential(tally)
            content = [list(row.values()) for row in found_types]
            write(DIFFERENTIAL, lambda path: write_csv(path, COLUMNS, content))
    outputs.storage.clear_staging()
    empty = [name for name, part in zip(names, counts) if not sum(part.cells.values())]
    return BatchSummary(len(results), total, empty, quality, failures, found_types)


def image_file(outputs: Outputs, key: str, name: str) -> str:
    """Text of one image's file in a format that has one file per image; an InputError if it is not there any more."""
    ((folder, suffix, _),) = FORMATS[key]
    content = outputs.storage.read(f"{folder}/{name}{suffix}")
    if content is None:
        raise InputError(f"{outputs.storage.path(folder)}/{name}{suffix} is gone: run the command again")
    return content.decode("utf-8")


def image_cells(outputs: Outputs, name: str) -> list[CellRow]:
    """The rows of one image's table; an InputError if it is not there any more, or cannot be read."""
    text = io.StringIO(image_file(outputs, "csv", name), newline="")
    return read_cells(text, f"{outputs.storage.path('csv')}/{name}.csv")


def _write_predictions(outputs: Outputs, results: list[tuple[int, dict[str, Any]]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        separator = "\n"
        for number, image in results:
            content = image_file(outputs, "coco", image["name"])
            try:
                document = json.loads(content)
            except ValueError as error:
                raise InputError(
                    f"{outputs.storage.path('coco')}/{image['name']}.json: not JSON ({error}); delete it and run the "
                    "command again"
                ) from error
            for entry in results_entries(document, number):
                file.write(separator + json.dumps(entry, ensure_ascii=False))
                separator = ",\n"
        file.write("\n]\n")


def _join_tables(outputs: Outputs, names: list[str], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        for index, name in enumerate(names):
            header, _, rows = image_file(outputs, "csv", name).partition("\n")
            file.write(rows if index else f"{header}\n{rows}")
