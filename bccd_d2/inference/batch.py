"""Many images, one after the other: what is finished is on disk, and what is on disk is not done again."""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from detectron2.engine import launch
from detectron2.utils import comm
from PIL import Image
from torch.multiprocessing import ProcessRaisedException
from tqdm import tqdm

from bccd_d2.errors import InputError
from bccd_d2.inference.finder import AUTO, PredictionOptions
from bccd_d2.inference.magnification import DiameterEstimate, Magnification, combine
from bccd_d2.inference.model_zoo import ModelFiles
from bccd_d2.inference.outputs import (
    BATCH_FILES,
    DIAMETERS,
    MANIFEST,
    RECORDS,
    Outputs,
    Record,
    claim_output,
    describe_run,
    is_same_run,
    read_manifest,
    record_file,
    recorded_results,
    write_manifest,
)
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers import FORMATS, format_files, write_formats
from bccd_d2.io.find_images import SUFFIXES, find_images
from bccd_d2.io.images import MAX_PIXELS, open_source, page_count
from bccd_d2.io.slide_source import SLIDE_SUFFIXES
from bccd_d2.io.sources import ArraySource, ImageSource
from bccd_d2.io.storage import Storage, fingerprint, is_url, local_copy
from bccd_d2.structures.cells import Cells

Images = Sequence[tuple[str | Path, str]]
Progress = Callable[[int, int], None]

# Of the images of one folder and size so many are looked at for the diameter of their red cells.
_SAMPLED_IMAGES = 5


class Predictor(Protocol):
    """What a batch needs of :class:`bccd_d2.inference.predictor.BCCDPredictor`."""

    class_names: list[str]
    options: PredictionOptions

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


@dataclass(frozen=True)
class Job:
    """What a process needs to know to take its share of a batch; can be sent to other processes.

    Attributes:
        model: to predict with.
        options: how.
        outputs: where the results go.
        images: path and name of every file of the batch.
        pending: those of them that are not finished.
        device: "cpu", "cuda", "cuda:1"; ``None`` for what the configuration says.
        max_pixels: an image that must be decoded whole and claims more is refused.
        max_detections: in place of ``TEST.DETECTIONS_PER_IMAGE``.
        diameters: estimates by name of the file, see :func:`estimate_diameters`.
    """

    model: ModelFiles
    options: PredictionOptions
    outputs: Outputs
    images: Images
    pending: Images
    device: str | None = None
    max_pixels: int = MAX_PIXELS
    max_detections: int | None = None
    diameters: Mapping[str, DiameterEstimate] = field(default_factory=dict)

    def load(self, device: str | None = None) -> BCCDPredictor:
        """The predictor, on ``device`` or else the job's own.

        Raises:
            InputError: the model cannot be read, or it cannot follow the options.
        """
        predictor = BCCDPredictor(
            self.model.config,
            self.model.weights,
            self.options,
            device=device or self.device,
            max_detections=self.max_detections,
        )
        # Once here rather than for every image.
        predictor.magnification_of(
            ArraySource(np.zeros((1, 1, 3), np.uint8)), estimate=DiameterEstimate(None, 0)
        )
        return predictor


def prepare_job(
    inputs: Sequence[str | Path],
    output: str | Path,
    model: ModelFiles,
    options: PredictionOptions,
    formats: tuple[str, ...],
    *,
    overwrite: bool = False,
    device: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_detections: int | None = None,
) -> Job:
    """Find the images, take the output folder, and see what is left to do.

    Args:
        inputs: see :func:`bccd_d2.io.find_images.find_images`; results of earlier runs among them are passed by.
        output: folder of the results, or an address that fsspec knows.
        model: to predict with.
        options: how.
        formats: names in :data:`bccd_d2.inference.writers.FORMATS`.
        overwrite: predict everything again, and delete what another model has left there.
        device: see :class:`Job`.
        max_pixels: see :class:`Job`.
        max_detections: see :class:`Job`.

    Raises:
        InputError: there are no images, one of them would be written over, the model cannot be read, or the folder
            holds results of another model.
        OSError: the folder cannot be written.
    """
    storage = Storage(str(output))
    images = _without_results(find_images(inputs, SUFFIXES | SLIDE_SUFFIXES))
    description = describe_run(model, options, max_detections)
    if overwrite:
        _forget_results(storage, description, images)
    elif not storage.exists(MANIFEST):
        for name in BATCH_FILES:
            if storage.exists(name):
                raise InputError(
                    f"{storage.path(name)} exists; give --overwrite to replace it, or another --output"
                )
    _keep_inputs(storage, images, (name for _, image in images for name in format_files(image, formats)))
    # A run that ended before its first image, as for want of its weights, leaves nothing to mix with.
    free = overwrite or not storage.find(RECORDS)
    outputs = Outputs(storage, formats, claim_output(storage, description, free))
    pending = [(path, name) for path, name in images if overwrite or not outputs.is_finished(path, name)]
    return Job(model, options, outputs, images, pending, device, max_pixels, max_detections)


def run_job(job: Job, num_gpus: int = 1) -> None:
    """Predict what is pending, with one process per GPU if there are several.

    Raises:
        InputError: the model cannot be read.
        OSError: the results cannot be written.
    """
    if not job.pending:
        return
    try:
        job = with_diameters(job)
        launch(predict_share, num_gpus, dist_url="auto", args=(job,))
    except ProcessRaisedException as error:
        # The traceback of the process is text by now; its last line is the error.
        kind, _, text = str(error).strip().splitlines()[-1].partition(": ")
        if kind.rpartition(".")[2] in (InputError.__name__, OutputError.__name__):
            raise InputError(text) from error
        raise
    finally:
        # Also what Ctrl-C has kept a process from deleting; all of them have ended by now.
        job.outputs.storage.clear_staging()


def predict_share(job: Job) -> None:
    """Predict the share of this process of a launch: every n-th image of those pending for n processes."""
    rank, processes = comm.get_rank(), comm.get_world_size()
    share = replace(job, pending=job.pending[rank::processes])
    predictor = share.load(f"cuda:{rank}" if processes > 1 else None)
    predict_pending(
        share.pending,
        predictor,
        share.outputs,
        max_pixels=share.max_pixels,
        diameters=share.diameters,
        show_progress=rank == 0,
    )


def predict_pending(
    images: Images,
    predictor: Predictor,
    outputs: Outputs,
    *,
    max_pixels: int = MAX_PIXELS,
    diameters: Mapping[str, DiameterEstimate] | None = None,
    show_progress: bool = True,
) -> None:
    """Predict files one after the other, with a progress bar, see :func:`predict_one`."""
    diameters = diameters or {}
    with tqdm(images, unit="image", disable=not show_progress) as bar:
        for path, name in bar:
            progress = partial(_show_tiles, bar)
            estimate = diameters.get(name)
            predict_one(path, name, predictor, outputs, progress, max_pixels=max_pixels, estimate=estimate)


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

    Returns:
        The record, which :func:`bccd_d2.inference.outputs.record_file` holds now: ``key``, ``formats``, ``file``
        (fingerprint), ``results`` (paths below the output folder), ``images`` (``name``, ``height``, ``width``, its
        counts ``cells`` and ``in_frame`` by class, ``area_mm2``, ``diameter_px``, ``diameter_from``), ``seconds``, and
        ``error``, which is ``None`` unless the file could not be read.

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
            for result in _results(path, name, predictor, progress, max_pixels, estimate):
                files = format_files(result.name, formats)
                _keep_inputs(outputs.storage, [(path, name)], files)
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
) -> Iterator[ImageResult]:
    """The result of each image of a file, its source open."""
    with local_copy(path) as file:
        pages = page_count(file)
        for page in range(pages):
            with open_source(file, page=page, max_pixels=max_pixels) as source:
                magnification = predictor.magnification_of(source, estimate=estimate)
                options = replace(predictor.options, scale=magnification.scale)
                cells = predictor.predict_source(source, options, progress=progress)
                yield ImageResult(
                    name if pages == 1 else f"{name}.page{page + 1:03d}",
                    source,
                    cells,
                    predictor.class_names,
                    predictor.options.microns_per_pixel or source.microns_per_pixel,
                    magnification=magnification,
                )


def _summary(result: ImageResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "height": result.cells.height,
        "width": result.cells.width,
        **asdict(result.counts),
    }


def with_diameters(job: Job) -> Job:
    """The job with the diameters of red cells that ``diameter="auto"`` asks for, which the manifest keeps.

    Images of one folder and size are taken to be of one magnification: a few of them are looked at, and have one
    estimate. Images at addresses, and those whose microns per pixel are known, are left to
    :meth:`bccd_d2.inference.finder.CellFinder.magnification_of`.

    Raises:
        InputError: the model cannot be read.
        OSError: the manifest cannot be written.
    """
    if job.options.diameter != AUTO or job.options.scale is not None:
        return job
    storage = job.outputs.storage
    manifest = read_manifest(storage) or {}
    known = dict(manifest.get(DIAMETERS, {}))
    predictor = job.load()
    estimates: dict[str, DiameterEstimate] = {}
    for group, images in _groups(job.images).items():
        if group not in known:
            found = _estimate_group(predictor, images, job.max_pixels)
            if found is None:
                continue
            known[group] = asdict(found)
            log = logging.getLogger(__name__)
            (log.warning if found.doubt else log.info)(
                "%s: diameter of red cells %s, of %d images", group, found, len(images)
            )
        estimates |= {name: DiameterEstimate(**known[group]) for _, name in images}
    write_manifest(storage, manifest, known)
    return replace(job, diameters=estimates)


def _groups(images: Images) -> dict[str, Images]:
    """Images of this machine by folder and size."""
    groups: dict[str, list[tuple[str | Path, str]]] = defaultdict(list)
    for path, name in images:
        if is_url(path):
            continue
        try:
            with Image.open(path) as image:
                size = f"{image.width}x{image.height}"
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            size = Path(path).name  # of a kind of its own, or to be reported when it is predicted
        groups[f"{Path(path).parent.as_posix()} {size}"].append((path, name))
    return dict(groups)


def _estimate_group(predictor: BCCDPredictor, images: Images, max_pixels: int) -> DiameterEstimate | None:
    """``None`` where no image needs an estimate: all know their microns per pixel, or cannot be read."""
    chosen = np.unique(np.linspace(0, len(images) - 1, _SAMPLED_IMAGES).round().astype(int))
    estimates = []
    for index in chosen.tolist():
        try:
            with open_source(images[index][0], max_pixels=max_pixels) as source:
                if not predictor.knows_microns_of(source):
                    estimates.append(predictor.estimate_diameter(source))
        except (InputError, OSError, MemoryError):
            continue  # reported when it is predicted
    return combine(estimates) if estimates else None


def _without_results(images: Images) -> Images:
    """Leave out what this command has written before, into whichever folder, where that lies inside an input folder."""
    known: dict[Path, set[Path]] = {}

    def results_in(folder: Path) -> set[Path]:
        if folder not in known:
            storage = Storage(str(folder))
            ours = (folder / MANIFEST).is_file() and (folder / RECORDS).is_dir()
            known[folder] = {folder / name for name in recorded_results(storage)} if ours else set()
        return known[folder]

    def is_result(path: str | Path) -> bool:
        if is_url(path):
            return False
        place = Path(path).resolve()
        return any(place in results_in(folder) for folder in place.parents)

    kept = [(path, name) for path, name in images if not is_result(path)]
    if not kept:
        raise InputError(f"--input: {images[0][0]} and all others are results of an earlier prediction")
    if len(kept) < len(images):
        logging.getLogger(__name__).info(
            "%d images are results of earlier predictions and are passed by", len(images) - len(kept)
        )
    return kept


def _keep_inputs(storage: Storage, images: Images, names: Iterator[str] | Sequence[str]) -> None:
    """Refuse to write over an image.

    Args:
        storage: folder of the results.
        images: the inputs.
        names: below that folder, of what is to be written.

    Raises:
        InputError: one of these is one of the inputs.
    """
    root = storage.local_root
    inputs = _places(images)
    written = (
        [(name, (root / name).resolve()) for name in names]
        if root is not None and any(place.is_relative_to(root.resolve()) for place in inputs)
        else []
    )
    for name, place in written:
        if place in inputs:
            raise InputError(
                f"--output: {storage.path(name)} is an input and would be written over; give another --output"
            )


def _places(images: Images) -> set[Path]:
    return {Path(path).resolve() for path, _ in images if not is_url(path)}


def _forget_results(storage: Storage, description: Mapping[str, object], images: Images) -> None:
    """Delete the results that a folder's records list, unless they were made as ``description`` says."""
    try:
        if is_same_run(read_manifest(storage) or {}, description):
            return
    except InputError:
        pass  # a manifest that cannot be read is replaced
    root, inputs = storage.local_root, _places(images)
    for name in [*recorded_results(storage), *BATCH_FILES]:
        if root is None or (root / name).resolve() not in inputs:
            storage.delete(name)


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
