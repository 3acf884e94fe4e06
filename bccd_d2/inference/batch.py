"""Many images, one after the other: what is finished is on disk, and what is on disk is not done again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from bccd_d2.errors import InputError
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.result import ImageResult
from bccd_d2.inference.writers import FORMATS, format_files, write_formats
from bccd_d2.io.images import MAX_PIXELS, open_source, page_count
from bccd_d2.io.sources import ImageSource
from bccd_d2.io.storage import Storage, fingerprint, local_copy
from bccd_d2.structures.cells import Cells

Progress = Callable[[int, int], None]
Record = dict[str, Any]

RECORDS = "records"
"""Folder of what is known of each file's results, below the output folder."""


class Predictor(Protocol):
    """What a batch needs of :class:`bccd_d2.inference.predictor.BCCDPredictor`."""

    class_names: list[str]
    options: PredictionOptions

    def predict_source(self, source: ImageSource, *, progress: Progress | None = None) -> Cells:
        """The cells of an image, best score first."""


class OutputError(OSError):
    """Results cannot be written: no matter of one image, so the batch ends."""


@dataclass(frozen=True)
class Outputs:
    """Where the results of a batch go, and in which formats; can be sent to other processes.

    Attributes:
        storage: the folder of the results.
        formats: names in :data:`bccd_d2.inference.writers.FORMATS`.
        key: of what the results are made with, see :func:`bccd_d2.inference.manifest.claim_output`.
    """

    storage: Storage
    formats: tuple[str, ...]
    key: str

    def record(self, name: str) -> Record | None:
        """What is known of a file's results; ``None`` if they are not there or made with something else."""
        found = read_record(self.storage, record_file(name))
        return found if found.get("key") == self.key else None

    def is_finished(self, path: str | Path, name: str) -> bool:
        """Whether all results of this very file are there, made with the same model and options."""
        found = self.record(name)
        if found is None or found["error"] is not None or not set(self.formats) <= set(found["formats"]):
            return False
        try:
            same = found["file"] == fingerprint(path)
        except OSError:
            return False
        return same and all(self.storage.exists(file) for file in found["results"])


def record_file(name: str) -> str:
    """Path below the output folder of what is known of an image file's results; it is written last."""
    return f"{RECORDS}/{name}.json"


def read_record(storage: Storage, file: str) -> Record:
    """Content of a record; an empty one if it is not there or broken, and then the file is predicted anew."""
    try:
        found = json.loads(storage.read(file) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if _is_record(found) else {}


def _is_record(found: Any) -> bool:
    """Whether it has what :func:`predict_one` writes."""
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key, 0), str | None) for key in ("error", "file")
    ):
        return False
    lists: list[Any] = [found.get(key) for key in ("formats", "results", "images")]
    if not all(isinstance(entries, list) for entries in lists):
        return False
    texts, images = [*lists[0], *lists[1]], lists[2]
    return all(isinstance(text, str) for text in texts) and all(_is_summary(image) for image in images)


def _is_summary(image: Any) -> bool:
    if not isinstance(image, dict) or not isinstance(image.get("name"), str):
        return False
    counts: list[Any] = [image.get("cells"), image.get("in_frame")]
    area = image.get("area_mm2", "")
    if not all(isinstance(count, dict) for count in counts) or counts[0].keys() != counts[1].keys():
        return False
    numbers = [number for count in counts for number in count.values()]
    # JSON may have whole numbers that no float can hold.
    counted = all(isinstance(number, int) and 0 <= number < 2**53 for number in numbers)
    return counted and (area is None or (isinstance(area, int | float) and 0 <= area <= sys.float_info.max))


def predict_one(
    path: str | Path,
    name: str,
    predictor: Predictor,
    outputs: Outputs,
    progress: Progress | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Record:
    """Predict all images of one file and write their results, each file whole or not at all.

    Args:
        path: of the image file, or an address that fsspec knows.
        name: of the image in the results; with several pages, ``.page001`` and so on are added.
        predictor: finds the cells.
        outputs: where the results go.
        progress: called with the number of tiles done and of all tiles.
        max_pixels: see :func:`bccd_d2.io.sources.open_source`.

    Returns:
        The record, which :func:`record_file` holds now: ``key``, ``formats``, ``file`` (fingerprint), ``results``
        (paths below the output folder), ``images`` (``name``, ``height``, ``width``, and its counts: ``cells``
        and ``in_frame`` by class, ``area_mm2``), ``seconds``, and ``error``, which is ``None`` unless the file could
        not be read.

    Raises:
        OutputError: the results cannot be written.
    """
    started = time.perf_counter()
    previous = outputs.record(name)
    # Formats of an earlier run are written again rather than left to grow old.
    formats = [key for key in FORMATS if key in outputs.formats or (previous and key in previous["formats"])]
    record: Record = {"key": outputs.key, "formats": formats, "file": None, "results": [], "images": []}
    record["error"] = None
    with _output_errors(outputs), outputs.storage.staging() as folder:
        try:
            record["file"] = fingerprint(path)
            for result in _results(path, name, predictor, progress, max_pixels):
                with _output_errors(outputs):
                    write_formats(result, folder, formats)
                    for file in format_files(result.name, formats):
                        outputs.storage.publish(folder / file, file)
                record["results"] += format_files(result.name, formats)
                record["images"].append(_summary(result))
        except OutputError:
            raise
        except (InputError, OSError, MemoryError) as error:
            record["error"] = _message(path, error)
        record["seconds"] = round(time.perf_counter() - started, 3)
        staged = folder / "record.json"
        staged.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
        outputs.storage.publish(staged, record_file(name))
    return record


def predict_pending(
    images: Sequence[tuple[str | Path, str]],
    predictor: Predictor,
    outputs: Outputs,
    *,
    max_pixels: int = MAX_PIXELS,
    show_progress: bool = True,
) -> None:
    """Predict files one after the other, with a progress bar, see :func:`predict_one`."""
    with tqdm(images, unit="image", disable=not show_progress) as bar:
        for path, name in bar:
            progress = partial(_show_tiles, bar)
            predict_one(path, name, predictor, outputs, progress, max_pixels=max_pixels)


def _show_tiles(bar: tqdm[Any], done: int, total: int) -> None:
    bar.set_postfix_str(f"tile {done}/{total}" if total > 1 else "")


def _results(
    path: str | Path, name: str, predictor: Predictor, progress: Progress | None, max_pixels: int
) -> Iterator[ImageResult]:
    """The result of each image of a file, its source open."""
    with local_copy(path) as file:
        pages = page_count(file)
        for page in range(pages):
            with open_source(file, page=page, max_pixels=max_pixels) as source:
                cells = predictor.predict_source(source, progress=progress)
                yield ImageResult(
                    name if pages == 1 else f"{name}.page{page + 1:03d}",
                    source,
                    cells,
                    predictor.class_names,
                    predictor.options.microns_per_pixel or source.microns_per_pixel,
                )


def _summary(result: ImageResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "height": result.cells.height,
        "width": result.cells.width,
        **asdict(result.counts),
    }


@contextmanager
def _output_errors(outputs: Outputs) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{outputs.storage.url}: results cannot be written ({error}). What is finished is intact, and the same "
            "command goes on from there"
        ) from error


def _message(path: str | Path, error: BaseException) -> str:
    """The error in words, naming the file."""
    if isinstance(error, MemoryError):
        return f"{path}: not enough memory to predict it"
    text = str(error)
    return text if str(path) in text else f"{path}: {text}"
