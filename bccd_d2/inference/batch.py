"""Many images, in one process or several: what is finished is on disk, and what is on disk is not done again."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from detectron2.engine import launch
from detectron2.utils import comm
from PIL import Image
from torch.multiprocessing import ProcessRaisedException

from bccd_d2.cell_types.typer import CellTyper, find_classifiers
from bccd_d2.errors import InputError
from bccd_d2.inference.exporting.engines import EAGER, FLOAT32, load_predictor
from bccd_d2.inference.exporting.exported import Precision
from bccd_d2.inference.finder import CellFinder
from bccd_d2.inference.magnification import DiameterEstimate, combine
from bccd_d2.inference.model_files import ModelFiles
from bccd_d2.inference.options import AUTO, PredictionOptions
from bccd_d2.inference.outputs import (
    BATCH_FILES,
    DIAMETERS,
    MANIFEST,
    RECORDS,
    Outputs,
    claim_output,
    describe_run,
    describe_types,
    is_same_run,
    read_manifest,
    recorded_results,
    write_manifest,
)
from bccd_d2.inference.predict_file import FilePredictor, Images, OutputError, keep_inputs, places_of
from bccd_d2.inference.writers import format_files
from bccd_d2.io.find_images import SUFFIXES, find_images
from bccd_d2.io.images import MAX_PIXELS, open_source
from bccd_d2.io.slide_source import SLIDE_SUFFIXES
from bccd_d2.io.storage import Storage, is_url

# Of the images of one folder and size so many are looked at for the diameter of their red cells.
_SAMPLED_IMAGES = 5
# Of the 255 of a file name; the rest is for the page, the suffix and the unfinished file.
_MAX_NAME_BYTES = 210


@dataclass(frozen=True)
class Job:
    """What a process needs to know to take its share of a batch; can be sent to other processes.

    ``pending`` are those of ``images`` that are not finished, ``diameters`` the estimates of :func:`with_diameters`,
    ``types`` the files of classifiers. ``device`` ``None`` is the configuration's, ``max_detections`` ``None`` its
    ``TEST.DETECTIONS_PER_IMAGE``. ``engine`` and ``precision`` are those of :func:`load_predictor`.
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
    types: tuple[str, ...] = ()
    engine: str = EAGER
    precision: Precision = FLOAT32

    def load(self, device: str | None = None) -> CellFinder:
        """The predictor, on ``device`` or else the job's own, see :func:`load_predictor`."""
        return load_predictor(
            self.model,
            self.options,
            engine=self.engine,
            precision=self.precision,
            device=device or self.device,
            max_detections=self.max_detections,
        )

    def file_predictor(self, device: str | None = None) -> FilePredictor:
        """What predicts the files, on ``device`` or else the job's own; an InputError if a model cannot be read."""
        typer = CellTyper.load(self.types, device or self.device or "cpu") if self.types else None
        return FilePredictor(self.load(device), self.outputs, self.max_pixels, self.diameters, typer)


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
    types: str | Path | None = None,
    engine: str = EAGER,
    precision: Precision = FLOAT32,
) -> Job:
    """Find the images, take the output folder, and see what is left to do.

    ``inputs`` are files, folders, patterns and addresses, see :func:`bccd_d2.io.find_images.find_images`; results of
    earlier runs among them are skipped. ``output`` is a folder or an address that fsspec knows; ``overwrite``
    predicts everything again and deletes what another model has left there. ``types`` is a folder of classifiers of
    cell types.

    Raises :class:`InputError` if there are no images, one of them would be written over, the model cannot be read, or
    the folder holds results of another model; :class:`OSError` if the folder cannot be written.
    """
    storage = Storage(str(output))
    images = _without_results(find_images(inputs, SUFFIXES | SLIDE_SUFFIXES))
    if long := [name for _, name in images if len(os.fsencode(Path(name).name)) > _MAX_NAME_BYTES]:
        raise InputError(
            f"--input: {len(long)} file names of more than {_MAX_NAME_BYTES} bytes, which leave no room for what the "
            f"results add to them; shorten them, such as {long[0]}"
        )
    description = describe_run(model, options, max_detections)
    if engine != EAGER:
        description["engine"] = engine
    if precision != FLOAT32:
        description["precision"] = precision
    classifiers: tuple[str, ...] = ()
    if types is not None:
        classifiers = tuple(map(str, find_classifiers(types, description["class_names"])))
        description["types"] = describe_types(classifiers)
    if overwrite:
        _forget_results(storage, description, images)
    elif not storage.exists(MANIFEST):
        for name in BATCH_FILES:
            if storage.exists(name):
                raise InputError(
                    f"{storage.path(name)} exists; give --overwrite to replace it, or another --output"
                )
    keep_inputs(storage, images, (name for _, image in images for name in format_files(image, formats)))
    # A run that ended before its first image, as for want of its weights, leaves nothing to mix with.
    free = overwrite or not storage.find(RECORDS)
    outputs = Outputs(storage, formats, claim_output(storage, description, free))
    pending = [(path, name) for path, name in images if overwrite or not outputs.is_finished(path, name)]
    return Job(
        model,
        options,
        outputs,
        images,
        pending,
        device=device,
        max_pixels=max_pixels,
        max_detections=max_detections,
        types=classifiers,
        engine=engine,
        precision=precision,
    )


def run_job(job: Job, num_gpus: int = 1) -> None:
    """Predict what is pending, with one process per GPU if there are several.

    Raises :class:`InputError` if the model cannot be read, :class:`OSError` if the results cannot be written.
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
    predictor = job.file_predictor(f"cuda:{rank}" if processes > 1 else None)
    predictor.predict_all(job.pending[rank::processes], show_progress=rank == 0)


def with_diameters(job: Job) -> Job:
    """The job with the diameters of red cells that ``diameter="auto"`` asks for, which the manifest keeps.

    Images of one folder and size are taken to be of one magnification: a few of them are looked at, and have one
    estimate. Images at addresses, and those whose microns per pixel are known, are left to
    :meth:`bccd_d2.inference.finder.CellFinder.magnification_of`.
    """
    if job.options.diameter != AUTO or job.options.scale is not None:
        return job
    storage = job.outputs.storage
    manifest = read_manifest(storage) or {}
    known = known_diameters(job)
    predictor = job.load()
    if not predictor.training_diameter:
        return job
    estimates: dict[str, DiameterEstimate] = {}
    for group, images in _groups(job.images).items():
        if group not in known:
            found = _estimate_group(predictor, images, job.max_pixels)
            if found is None:
                continue
            known[group] = found
            logging.getLogger(__name__).log(
                logging.WARNING if found.doubt else logging.INFO,
                "%s: diameter of red cells %s, for %d images", group, found, len(images),
            )  # fmt: skip
        estimates |= {name: known[group] for _, name in images}
    write_manifest(storage, manifest, {group: asdict(found) for group, found in known.items()})
    return replace(job, diameters=estimates)


def known_diameters(job: Job) -> dict[str, DiameterEstimate]:
    """The estimates in a job's manifest by folder and size of the images; what cannot be read is left out."""
    content = (read_manifest(job.outputs.storage) or {}).get(DIAMETERS)
    estimates = {}
    for group, entry in content.items() if isinstance(content, dict) else ():
        with suppress(TypeError, InputError):
            estimates[group] = DiameterEstimate(**entry)
    return estimates


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


def _estimate_group(predictor: CellFinder, images: Images, max_pixels: int) -> DiameterEstimate | None:
    """``None`` where no image needs an estimate: all know their microns per pixel, or cannot be read."""
    chosen = np.unique(np.linspace(0, len(images) - 1, _SAMPLED_IMAGES).round().astype(int))
    estimates = []
    for index in chosen.tolist():
        # What cannot be read is reported when it is predicted.
        with (
            suppress(InputError, OSError, MemoryError),
            open_source(images[index][0], max_pixels=max_pixels) as source,
        ):
            if not predictor.knows_microns_of(source):
                estimates.append(predictor.estimate_diameter(source))
    return combine(estimates) if estimates else None


def _without_results(images: Images) -> Images:
    """Leave out what this command has written into an input folder before."""
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
            "%d images are results of earlier predictions and are skipped", len(images) - len(kept)
        )
    return kept


def _forget_results(storage: Storage, description: Mapping[str, object], images: Images) -> None:
    """Delete the results that a folder's records list, unless they were made as ``description`` says."""
    try:
        if is_same_run(read_manifest(storage) or {}, description):
            return
    except InputError:
        pass  # a manifest that cannot be read is replaced
    root, inputs = storage.local_root, places_of(images)
    for name in [*recorded_results(storage), *BATCH_FILES]:
        if root is None or (root / name).resolve() not in inputs:
            storage.delete(name)
