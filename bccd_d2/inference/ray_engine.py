"""A batch spread over a Ray cluster (extra ``ray``): one model per worker, one image per task."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bccd_d2.errors import InputError
from bccd_d2.inference.batch import Job, with_diameters
from bccd_d2.inference.predict_file import FilePredictor
from bccd_d2.io.storage import is_url

RETRIES = 3
"""Attempts for an image whose worker died, after the first; an image that kills every worker is given up."""


class PredictionWorker:
    """What each worker of the cluster holds: the job, and from its first image on the model."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._predictor: FilePredictor | None = None

    def predict(self, path: str | Path, name: str) -> None:
        """Predict one file and write its results."""
        self._predictor = self._predictor or self._job.file_predictor()
        self._predictor.predict(path, name)


def run_job_on_ray(
    job: Job, address: str | None = None, *, workers: int = 0, gpus_per_worker: float = 0
) -> None:
    """Predict what is pending on a Ray cluster, with the files that one process would write.

    Every image is a task. A worker that dies is started again and its image tried again, on whichever worker is free;
    after ``RETRIES`` times it counts as not predicted, and the others go on. A path that is no address must mean the
    same file on every machine of the cluster. ``address`` is that of a running cluster, such as "auto" or
    "ray://head:10001"; ``None`` starts one here. ``workers`` 0 is as many as the cluster has free CPUs or, with
    ``gpus_per_worker`` (a share such as 0.5 too), GPUs for.

    Raises :class:`InputError` if Ray, the cluster or the model is not there or the options do not suit the model,
    :class:`OSError` if the results cannot be written.
    """
    if not job.pending:
        return
    job = with_diameters(job)
    with _cluster(address) as ray:
        number = workers or _free_workers(ray, gpus_per_worker)
        number = max(1, min(number, len(job.pending)))
        remote = ray.remote(num_cpus=1, num_gpus=gpus_per_worker, max_restarts=-1, max_task_retries=RETRIES)(
            PredictionWorker
        )
        everywhere = _with_absolute_paths(job)
        idle = [remote.remote(everywhere) for _ in range(number)]
        waiting = list(reversed(everywhere.pending))
        running: dict[Any, tuple[Any, str]] = {}
        with tqdm(total=len(waiting), unit="image", disable=None) as bar:
            while waiting or running:
                while idle and waiting:
                    path, name = waiting.pop()
                    worker = idle.pop()
                    running[worker.predict.remote(path, name)] = worker, name
                (finished, *_), _ = ray.wait(list(running))
                worker, name = running.pop(finished)
                idle.append(worker)
                _settle(ray, finished, name)
                bar.update()


def _settle(ray: Any, task: Any, name: str) -> None:
    """Raise what a task has raised; that its worker died is a matter of this image alone."""
    try:
        ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, InputError | OSError) else error from None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        logging.getLogger(__name__).error("%s: not predicted, its workers died (%s)", name, reason)


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected; a cluster that was started here is stopped again."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError("--ray: Ray is not installed; pip install 'bccd_d2[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    # Workers find this package where the driver has it, installed or not.
    packages = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    dashboard = False if address is None else None  # only a cluster that is started here has a choice
    try:
        ray.init(
            address=address,
            include_dashboard=dashboard,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": packages}},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"--ray-address {address}: no Ray cluster can be reached ({error})") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _free_workers(ray: Any, gpus_per_worker: float) -> int:
    free = ray.available_resources()
    workers = int(free.get("CPU", 1))
    return min(workers, int(free.get("GPU", 0) / gpus_per_worker)) if gpus_per_worker else workers


def _with_absolute_paths(job: Job) -> Job:
    """The same job for processes that run in another folder."""

    def absolute(path: str | Path) -> str:
        return str(path) if is_url(path) else os.path.abspath(path)  # noqa: PTH100  Path would follow links

    model = replace(job.model, config=absolute(job.model.config), weights=absolute(job.model.weights))
    storage = replace(job.outputs.storage, url=absolute(job.outputs.storage.url))
    pending = [(absolute(path), name) for path, name in job.pending]
    types = tuple(absolute(path) for path in job.types)
    return replace(
        job, model=model, outputs=replace(job.outputs, storage=storage), pending=pending, types=types
    )
