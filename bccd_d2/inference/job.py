"""A batch from its inputs to its results, in one process or one a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessRaisedException

from bccd_d2.errors import InputError
from bccd_d2.inference.batch import RECORDS, OutputError, Outputs, predict_pending, read_record
from bccd_d2.inference.collect import CELLS, COUNTS, PREDICTIONS
from bccd_d2.inference.manifest import MANIFEST, claim_output, describe_run, manifest_bytes
from bccd_d2.inference.model_zoo import ModelFiles
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.io.find_images import SUFFIXES, find_images
from bccd_d2.io.images import MAX_PIXELS
from bccd_d2.io.slide_source import SLIDE_SUFFIXES
from bccd_d2.io.sources import ArraySource
from bccd_d2.io.storage import Storage, is_url

Images = Sequence[tuple[str | Path, str]]


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
    """

    model: ModelFiles
    options: PredictionOptions
    outputs: Outputs
    images: Images
    pending: Images
    device: str | None = None
    max_pixels: int = MAX_PIXELS

    def load(self, device: str | None = None) -> BCCDPredictor:
        """The predictor, on ``device`` or else the job's own.

        Raises:
            InputError: the model cannot be read.
        """
        return BCCDPredictor(
            self.model.config, self.model.weights, self.options, device=device or self.device
        )


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
) -> Job:
    """Find the images, take the output folder, and see what is left to do.

    Args:
        inputs: see :func:`bccd_d2.io.find_images.find_images`; what lies in the output folder is none of them.
        output: folder of the results, or an address that fsspec knows.
        model: to predict with.
        options: how.
        formats: names in :data:`bccd_d2.inference.writers.FORMATS`.
        overwrite: predict everything anew, and delete what another model has left there.
        device: see :class:`Job`.
        max_pixels: see :class:`Job`.

    Raises:
        InputError: there are no images, the model cannot be read, or the folder holds results of another model.
        OSError: the folder cannot be written.
    """
    storage = Storage(str(output))
    images = _without_results(find_images(inputs, SUFFIXES | SLIDE_SUFFIXES), storage)
    description = describe_run(model, options)
    if overwrite:
        _forget_results(storage, description)
    elif not storage.exists(MANIFEST):
        for name in (PREDICTIONS, CELLS, COUNTS):
            if storage.exists(name):
                raise InputError(
                    f"{storage.path(name)} exists; give --overwrite to replace it, or another --output"
                )
    # A run that ended before its first image, as for want of its weights, leaves nothing to mix with.
    free = overwrite or not storage.find(RECORDS)
    outputs = Outputs(storage, formats, claim_output(storage, description, free))
    pending = [(path, name) for path, name in images if overwrite or not outputs.is_finished(path, name)]
    return Job(model, options, outputs, images, pending, device, max_pixels)


def run_job(job: Job, num_gpus: int = 1) -> None:
    """Predict what is pending, with a process a GPU if there are several.

    Raises:
        InputError: the model cannot be read.
        OSError: the results cannot be written.
    """
    if not job.pending:
        return
    try:
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
    check_options(predictor)
    predict_pending(
        share.pending, predictor, share.outputs, max_pixels=share.max_pixels, show_progress=rank == 0
    )


def check_options(predictor: BCCDPredictor) -> None:
    """Refuse options that the model cannot follow once, and not for every image.

    Raises:
        InputError: see :meth:`bccd_d2.inference.finder.CellFinder.scale_of`.
    """
    predictor.scale_of(ArraySource(np.zeros((1, 1, 3), np.uint8)))


def _without_results(images: Images, storage: Storage) -> Images:
    """Leave out what an earlier run has written, where the output folder lies inside an input folder."""
    root = storage.local_root
    if root is None:
        return images
    kept = [
        (path, name)
        for path, name in images
        if is_url(path) or not Path(path).resolve().is_relative_to(root.resolve())
    ]
    if not kept:
        raise InputError(f"--input: there are images in the output folder {root} only")
    return kept


def _forget_results(storage: Storage, description: dict[str, object]) -> None:
    """Delete the results that a folder's records list, unless they were made as ``description`` says."""
    content = storage.read(MANIFEST)
    if content == manifest_bytes(description):
        return
    for record in storage.find(RECORDS):
        for name in read_record(storage, record).get("results", ()):
            storage.delete(name)
        storage.delete(record)
    for name in (PREDICTIONS, CELLS, COUNTS):
        storage.delete(name)
