"""One file to its results, or one after the other: each result whole or not at all, and what is finished stays."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bccd_d2.cell_types.typer import CellTyper
from bccd_d2.errors import InputError
from bccd_d2.inference.finder import CellFinder, Progress
from bccd_d2.inference.magnification import DiameterEstimate
from bccd_d2.inference.outputs import Outputs, Record
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers import FORMATS, format_files, write_formats
from bccd_d2.io.images import MAX_PIXELS, open_source, page_count, page_name
from bccd_d2.io.sources import ImageSource
from bccd_d2.io.storage import Storage, fingerprint, is_url, local_copy

Images = Sequence[tuple[str | Path, str]]
"""Path, or address that fsspec knows, and name of each file."""


class OutputError(OSError):
    """Results cannot be written: no matter of one image, so the batch ends."""


@dataclass(frozen=True)
class FilePredictor:
    """Predicts files and writes their results; one per process.

    ``diameters`` estimates the red cells by name of the file, for ``diameter="auto"``; others are estimated from their
    image. Images of more than ``max_pixels`` that must be decoded whole are refused. Without ``typer`` cells have no
    types.
    """

    predictor: CellFinder
    outputs: Outputs
    max_pixels: int = MAX_PIXELS
    diameters: Mapping[str, DiameterEstimate] = field(default_factory=dict)
    typer: CellTyper | None = None

    def predict_all(self, images: Images, *, show_progress: bool = True) -> None:
        """Predict files one after the other, see :meth:`predict`."""
        with tqdm(images, unit="image", disable=not show_progress) as bar:

            def show(done: int, total: int) -> None:
                bar.set_postfix_str(f"tile {done}/{total}" if total > 1 else "")

            for path, name in bar:
                self.predict(path, name, show)

    def predict(self, path: str | Path, name: str, progress: Progress | None = None) -> Record:
        """Predict all images of one file and write their results, see :func:`write_results`."""

        def results() -> Iterator[ImageResult]:
            with local_copy(path) as file:
                pages = page_count(file)
                for page in range(pages):
                    image = page_name(name, page, pages)
                    with open_source(file, page=page, max_pixels=self.max_pixels) as source:
                        yield predict_image(
                            source,
                            image,
                            self.predictor,
                            progress=progress,
                            estimate=self.diameters.get(name),
                            typer=self.typer,
                        )

        return write_results(path, name, results(), self.outputs)


def predict_image(
    source: ImageSource,
    name: str,
    predictor: CellFinder,
    *,
    progress: Progress | None = None,
    estimate: DiameterEstimate | None = None,
    typer: CellTyper | None = None,
) -> ImageResult:
    """Predict one image at the magnification that the predictor's options or ``estimate`` come to.

    ``source`` must stay open while the result is measured.
    """
    magnification = predictor.magnification_of(source, estimate=estimate)
    options = replace(predictor.options, scale=magnification.scale)
    cells = predictor.predict_source(source, options, progress=progress)
    names, microns = predictor.class_names, predictor.options.microns_per_pixel or source.microns_per_pixel
    types = None
    if typer is not None:
        diameter = magnification.diameter
        types = typer(source, cells, names, microns_per_pixel=microns, diameter_px=diameter)
    return ImageResult(
        name,
        source,
        cells,
        names,
        microns,
        magnification=magnification,
        types=types,
        training_diameter=predictor.training_diameter,
    )


def write_results(path: str | Path, name: str, results: Iterable[ImageResult], outputs: Outputs) -> Record:
    """Write the results of all images of one file, each whole or not at all, then the record, which is returned.

    ``name`` is that of the image in the results; the pages of a file have ``.page001`` and so on added. ``results`` are
    made while they are written. The record holds ``key``, ``formats``, ``file`` (fingerprint), ``results`` (paths below
    the output folder), ``images`` (``name``, ``height``, ``width``, ``counts``, ``quality``), ``seconds`` and
    ``error``: why the file could not be read, else ``None``. Raises :class:`OutputError` if it cannot be written.
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
            for result in results:
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
        outputs.write_record(name, record)
    return record


def _summary(result: ImageResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "height": result.cells.height,
        "width": result.cells.width,
        "counts": asdict(result.counts),
        "quality": asdict(result.quality) | {"flags": list(result.quality.flags)},
    }


def keep_inputs(storage: Storage, images: Images, names: Iterable[str]) -> None:
    """Raise :class:`InputError` if one of ``names`` below the folder of the results is one of the input files."""
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
