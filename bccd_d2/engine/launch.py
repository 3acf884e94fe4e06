"""Starts a command's processes: Detectron2's ``launch`` for GPUs, the same over gloo for CPUs."""

from __future__ import annotations

import gc
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from detectron2.engine import launch as launch_on_gpus
from detectron2.utils import comm
from torch import distributed
from torch import multiprocessing as mp

from bccd_d2.commands import run_command
from bccd_d2.errors import InputError
from bccd_d2.system import pass_on, receive_stop_signals, restore_signals


def launch(main: Callable[[Namespace], int | None], arguments: Namespace) -> int | None:
    """Run ``main(arguments)`` in as many processes as the arguments say; ``main`` is importable by name.

    The arguments are Detectron2's (``num_gpus``, ``num_machines``, ``machine_rank``, ``dist_url``) and
    ``num_processes``, above 1 on machines without GPUs. Returns the exit status of ``main``, or of the first process
    that failed. Raises InputError where there are fewer GPUs, or both kinds of processes are asked for.
    """
    gpus, cpus = arguments.num_gpus, arguments.num_processes
    if gpus > max(1, torch.cuda.device_count()):
        raise InputError(f"--num-gpus {gpus}: this machine has {torch.cuda.device_count()}")
    if cpus < 1:
        raise InputError(f"--num-processes: expected a number from 1 on, found {cpus}")
    if cpus > 1 and gpus > 1:
        raise InputError(f"expected --num-gpus or --num-processes, found both ({gpus} and {cpus})")
    machines = arguments.num_machines
    if max(gpus, cpus) * machines == 1:
        return main(arguments)
    before = receive_stop_signals(_pass_on)
    try:
        # A machine with a GPU or several talks over NCCL, one without over gloo.
        if torch.cuda.is_available() and cpus == 1:
            launch_on_gpus(
                _run,
                gpus,
                num_machines=machines,
                machine_rank=arguments.machine_rank,
                dist_url=arguments.dist_url,
                args=(main, arguments),
            )
        else:
            with tempfile.TemporaryDirectory() as folder:
                # "file:///tmp/..." and "file:///C:/..."; torch takes the rest as it is, so not Path.as_uri.
                meeting = f"file:///{Path(folder, 'rendezvous').as_posix().lstrip('/')}"
                url = arguments.dist_url if machines > 1 else meeting
                mp.spawn(_cpu_worker, nprocs=cpus, args=(url, main, arguments))
    except mp.ProcessExitedException as error:
        return error.exit_code if error.exit_code > 0 else 128 - error.exit_code
    finally:
        restore_signals(before)
    return None


def _run(main: Callable[[Namespace], int | None], arguments: Namespace) -> None:
    """In a process of several: ends it with a status instead of an exception that the parent would print."""
    run_command(partial(main, arguments))


def _cpu_worker(
    local_rank: int, url: str, main: Callable[[Namespace], int | None], arguments: Namespace
) -> None:
    count, machines = arguments.num_processes, arguments.num_machines
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    with gloo_group(url, count * machines, arguments.machine_rank * count + local_rank):
        _set_local_group(count, machines, arguments.machine_rank)
        comm.synchronize()
        _run(main, arguments)


@contextmanager
def gloo_group(url: str, world_size: int, rank: int) -> Iterator[None]:
    """Be process ``rank`` of ``world_size`` that meet at ``url`` (``file://`` or ``tcp://``) while the block runs.

    Whoever ends with gloo's threads alive may be aborted in the middle of Python's end, after all work is done
    (pytorch/pytorch#179291): whatever holds the group must be gone before.
    """
    distributed.init_process_group("gloo", init_method=url, world_size=world_size, rank=rank)
    try:
        yield
    finally:
        comm._get_global_gloo_group.cache_clear()
        comm._LOCAL_PROCESS_GROUP = None
        distributed.destroy_process_group()
        gc.collect()


def _set_local_group(count: int, machines: int, machine_rank: int) -> None:
    """Tell Detectron2 which processes share this machine, for which its release 0.6 has no function."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(count)
        return
    for machine in range(machines):
        group = distributed.new_group(list(range(machine * count, (machine + 1) * count)))
        if machine == machine_rank:
            comm._LOCAL_PROCESS_GROUP = group


def _pass_on(signum: int, frame: FrameType | None) -> Any:
    """Hand a signal to the children, and wait for them as before."""
    for child in active_children():
        if child.pid is not None:
            pass_on(signum, child.pid)
