"""One file to its results, or one after the other: each result whole or not at all, and what is finished stays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from bccd_d2.errors import InputError
from bccd_d2.inference.cell_types import CellTyper
from bccd_d2.inference.finder import PredictionOptions
from bccd_d2.inference.magnification import DiameterEstimate, Magnification
from bccd_d2.inference.outputs import Outputs, Record, record_file
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers import FORMATS, format_files, write_formats
from bccd_d2.io.images import MAX_PIXELS, open_source, page_count
from bccd_d2.io.sources import ImageSource
from bccd_d2.io.storage import Storage, fingerprint, is_url, local_copy
from bccd_d2.structures.cells import Cells

Images = Sequence[tuple[str | Path, str]]
"""Path and name of each file."""
Progress = Callable[[int, int], None]


class Predictor(Protocol):
    """What a batch needs of :class:`bccd_d2.inference.predictor.BCCDPredictor`."""

    class_names: list[str]
    options: PredictionOptions
    training_diameter: float

    def magnification_of(
        self,
        source: ImageSource,
        options: PredictionOptions | None = None,
        estimate: DiameterEstimate | None = None,
    ) -> Magnification:
        """How an image is magnified."""

    def predict_source(
        self,
        source: ImageSource,
        options: PredictionOptions | None = None,
        *,
        progress: Progress | None = None,
    ) -> Cells:
        """The cells of an image, best score first."""


class OutputError(OSError):
    """Results cannot be written: no matter of one image, so the batch ends."""


def predict_pending(
    images: Images,
    predictor: Predictor,
    outputs: Outputs,
    *,
    max_pixels: int = MAX_PIXELS,
    diameters: Mapping[str, DiameterEstimate] | None = None,
    typer: CellTyper | None = None,
    show_progress: bool = True,
) -> None:
    """Predict files one after the other, with a progress bar, see :func:`predict_one`."""
    diameters = diameters or {}
    with tqdm(images, unit="image", disable=not show_progress) as bar:
        for path, name in bar:
            progress = partial(_show_tiles, bar)
            estimate = diameters.get(name)
            predict_one(
                path,
                name,
                predictor,
                outputs,
                progress,
                max_pixels=max_pixels,
                estimate=estimate,
                typer=typer,
            )


def _show_tiles(bar: tqdm[Any], done: int, total: int) -> None:
    bar.set_postfix_str(f"tile {done}/{total}" if total > 1 else "")


def predict_one(
    path: str | Path,
    name: str,
    predictor: Predictor,
    outputs: Outputs,
    progress: Progress | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    estimate: DiameterEstimate | None = None,
    typer: CellTyper | None = None,
) -> Record:
    """Predict all images of one file and write their results, each file whole or not at all.

    Args:
        path: of the image file, or an address that fsspec knows.
        name: of the image in the results; with several pages, ``.page001`` and so on are added.
        predictor: finds the cells.
        outputs: where the results go.
        progress: called with the number of tiles done and of all tiles.
        max_pixels: see :func:`bccd_d2.io.images.open_source`.
        estimate: of the diameter of red cells, for ``diameter="auto"``; ``None`` to make one of each image.
        typer: gives the cells types; ``None`` for none.

    Returns:
        The record, which :func:`bccd_d2.inference.outputs.record_file` holds now: ``key``, ``formats``, ``file``
        (fingerprint), ``results`` (paths below the output folder), ``images`` (``name``, ``height``, ``width``, its
        counts ``cells`` and ``in_frame`` by class, ``area_mm2``, ``diameter_px``, ``diameter_from``, ``quality``),
        ``seconds``, and ``error``, which is ``None`` unless the file could not be read.

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
            for result in _results(path, name, predictor, progress, max_pixels, estimate, typer):
                files = format_files(result.name, formats)
                keep_inputs(outputs.storage, [(path, name)], files)
                with _output_errors(outputs):
                    write_formats(result, folder, formats)
                    for file in files:
                        outputs.storage.publish(folder / file, file)
                record["results"] += files
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


def _results(
    path: str | Path,
    name: str,
    predictor: Predictor,
    progress: Progress | None,
    max_pixels: int,
    estimate: DiameterEstimate | None,
    typer: CellTyper | None,
) -> Iterator[ImageResult]:
    """The result of each image of a file, its source open."""
    with local_copy(path) as file:
        pages = page_count(file)
        for page in range(pages):
            with open_source(file, page=page, max_pixels=max_pixels) as source:
                magnification = predictor.magnification_of(source, estimate=estimate)
                options = replace(predictor.options, scale=magnification.scale)
                cells = predictor.predict_source(source, options, progress=progress)
                microns = predictor.options.microns_per_pixel or source.microns_per_pixel
                types = None
                if typer is not None:
                    types = typer(
                        source,
                        cells,
                        predictor.class_names,
                        microns_per_pixel=microns,
                        diameter_px=magnification.diameter,
                    )
                yield ImageResult(
                    name if pages == 1 else f"{name}.page{page + 1:03d}",
                    source,
                    cells,
                    predictor.class_names,
                    microns,
                    magnification=magnification,
                    types=types,
                    training_diameter=predictor.training_diameter,
                )


def _summary(result: ImageResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "height": result.cells.height,
        "width": result.cells.width,
        "cells": dict(result.counts.cells),
        "in_frame": dict(result.counts.in_frame),
        "area_mm2": result.counts.area_mm2,
        "diameter_px": result.counts.diameter_px,
        "diameter_from": result.counts.diameter_from,
        "quality": {**asdict(result.quality), "flags": list(result.quality.flags)},
    }


def keep_inputs(storage: Storage, images: Images, names: Iterable[str]) -> None:
    """Refuse to write over an image.

    Args:
        storage: folder of the results.
        images: the inputs.
        names: below that folder, of what is to be written.

    Raises:
        InputError: one of these is one of the inputs.
    """
    root, inputs = storage.local_root, places_of(images)
    if root is None or not any(place.is_relative_to(root.resolve()) for place in inputs):
        return
    for name in names:
        if (root / name).resolve() in inputs:
            raise InputError(
                f"--output: {storage.path(name)} is an input and would be written over; give another --output"
            )


def places_of(images: Images) -> set[Path]:
    """The files of this machine among the images, links resolved."""
    return {Path(path).resolve() for path, _ in images if not is_url(path)}


@contextmanager
def _output_errors(outputs: Outputs) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{outputs.storage.url}: results cannot be written ({error}). What is finished is intact, and the same "
            "command resumes from there"
        ) from error


def _message(path: str | Path, error: BaseException) -> str:
    """The error in words, naming the file."""
    if isinstance(error, MemoryError):
        return f"{path}: not enough memory to predict it"
    text = str(error)
    return text if str(path) in text else f"{path}: {text}"
