"""Kill conversions and trainings at random moments, resume them, and compare the results with undisturbed ones.

    python benchmarks/soak.py [--rounds 100] [--seed 0] [--work FOLDER]

In each round a conversion of synthetic smears is killed and repeated, and a training on it is killed once or twice and
resumed. The signal is SIGKILL, SIGTERM or SIGINT; the moment is drawn evenly from the time an undisturbed one takes, or
is that at which files are being written. After each kill every file that a reader would read must load; at the end
annotations, splits, results and all of the final and best checkpoints must be those of the undisturbed ones, bit for
bit. The status is 1 if anything was not as it should be.

Importing torch and Detectron2 takes longer than the training itself. So the processes are forks of this one, which has
imported everything and run nothing, and run the commands' scripts from there.
"""

from __future__ import annotations

import argparse
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported

# isort: split
import torch
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.commands import run_command
from bccd_d2.config import load_config
from bccd_d2.files import read_json
from bccd_d2.io.coco_images import check_file
from bccd_d2.modeling.checkpoint_files import read_checkpoint
from bccd_d2.reporting.run_figures import read_records
from bccd_d2.synthetic import SyntheticSet, write_synthetic_set

REPOSITORY = Path(__file__).resolve().parent.parent
CONVERT, TRAIN = (REPOSITORY / "tools" / f"{name}.py" for name in ("convert_bccd", "train_net"))
CONFIG = REPOSITORY / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"
SMEARS = SyntheticSet(images=24, width=160, height=128, cell_diameter=(22, 26))
# A small model with all that has a state: average, accumulated gradients, best checkpoint, strong augmentation.
OPTIONS = """
    MODEL.RESNETS.DEPTH 50 MODEL.RESNETS.STEM_OUT_CHANNELS 8 MODEL.RESNETS.RES2_OUT_CHANNELS 16
    MODEL.RESNETS.WIDTH_PER_GROUP 8 MODEL.RESNETS.NORM BN MODEL.FPN.OUT_CHANNELS 16
    MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 16 MODEL.RPN.POST_NMS_TOPK_TEST 20
    MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 TEST.DETECTIONS_PER_IMAGE 10 INPUT.CROP.SIZE [64,64] INPUT.SCALE 1.0
    INPUT.AUGMENTATION.PRESET strong MODEL_EMA.ENABLED True SOLVER.ACCUMULATE 2 SOLVER.IMS_PER_BATCH 2
    SOLVER.WARMUP_ITERS 2 SOLVER.MAX_ITER 4 SOLVER.CHECKPOINT_PERIOD 1 TEST.EVAL_PERIOD 2
    TEST.VALIDATION_LOSS_PERIOD 2
"""
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Status after a signal, beside 0 of a process that had ended before: SIGTERM ends a conversion as Ctrl-C does.
EXPECTED = {signal.SIGKILL: {-9}, signal.SIGTERM: {-15, 130, 143}, signal.SIGINT: {-2, 130}}
SAME = (
    *(f"data/{name}" for name in ("annotations/instances_train.json", "annotations/instances_val.json")),
    *("data/splits.json", "run/results.json", "run/model_final.pth", "run/model_final_raw.pth"),
    "run/model_best.pth",
)


@dataclass
class Tally:
    """What happened."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    files: int = 0
    rounds: int = 0


@dataclass(frozen=True)
class Command:
    """A script of tools/; ``unfinished`` is a pattern of what is below ``folder`` while it writes."""

    script: Path
    arguments: list[str]
    folder: Path
    unfinished: str

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder / f"{self.script.stem}.txt"

    def start(self) -> int:
        """Start it; returns the number of the process."""
        sys.stdout.flush()  # or the fork would write it too
        self.log.write_bytes(b"")
        process = os.fork()
        if process:
            return process
        status = 0
        try:
            os.setpgid(0, 0)  # Ctrl-C is for the soak alone
            signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
            output = os.open(self.log, os.O_WRONLY)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.argv = [str(self.script), *self.arguments]
            runpy.run_path(str(self.script), run_name="__main__")
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
            status = 99
        sys.stdout.flush()
        os._exit(status)

    def kill(self, signum: int, is_time: Callable[[float], bool]) -> int:
        """Start it and send a signal as soon as ``is_time``, told the seconds since, says so; its status."""
        process, started, sent = self.start(), time.monotonic(), False
        while True:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if not sent and is_time(time.monotonic() - started):
                os.kill(process, signum)
                sent = True
            time.sleep(0.001)


def conversion(folder: Path, smears: Path) -> Command:
    """Of the smears to ``folder``/data."""
    arguments = f"--root {smears} --output {folder / 'data'} --overwrite --workers 1".split()
    return Command(CONVERT, arguments, folder, "data/.unfinished-*/*")


def training(folder: Path) -> Command:
    """On ``folder``/data into ``folder``/run, resumed where there is something to resume."""
    arguments = f"--config-file {CONFIG} --data-root {folder / 'data'} --resume {OPTIONS}".split()
    arguments += ["DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(folder / "run")]
    return Command(TRAIN, arguments, folder, "run/.model_*.partial.pth")


def read_any(path: Path) -> None:
    """Read a file as its readers do; raises what they raise."""
    readers: dict[str, Callable[[Path], Any]] = {".json": read_json, ".yaml": load_config}
    if path.name == "metrics.json" and path.parents[1].name != "inference":
        read_records(path, "total_loss")
    elif path.parent.name == "annotations":
        if faults := check_file(path)[0]:
            raise ValueError("; ".join(faults))
    elif path.name == "last_checkpoint":
        read_checkpoint(path.parent / path.read_text(encoding="utf-8"))
    elif path.suffix in (".json", ".yaml", ".pth"):
        readers.get(path.suffix, read_checkpoint)(path)


def check_files(folder: Path, tally: Tally, where: str) -> None:
    """Read every file of a folder but the hidden ones, which nobody reads."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            tally.files += 1
            try:
                read_any(path)
            except Exception as error:
                tally.faults.append(f"{where}: {path} cannot be read: {error!r}")


def disturb(command: Command, seconds: float, draw: random.Random, tally: Tally, where: str) -> None:
    """Kill a command at a random moment, or the next time that it writes, and look at what it leaves."""
    signum, moment = draw.choice(SIGNALS), draw.uniform(0, 1.05 * seconds)
    watch = draw.random() < 0.5

    def is_time(passed: float) -> bool:
        writing = passed > seconds or any(command.folder.glob(command.unfinished))
        return passed > moment and (writing or not watch)

    status = command.kill(signum, is_time)
    name, signal_name = command.script.stem, signal.Signals(signum).name if status else "ended before"
    tally.kills[name, signal_name] += 1
    if status and status not in EXPECTED[signum]:
        tally.faults.append(f"{where}: {name} ended with status {status} after {signal_name}")
    if "Traceback" in command.log.read_text(encoding="utf-8", errors="replace"):
        tally.faults.append(f"{where}: {name} printed a traceback")
    check_files(command.folder, tally, where)


def same(one: Any, other: Any) -> bool:
    """Equal content, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def same_files(one: Path, other: Path) -> bool:
    """Equal files; checkpoints but for their configuration, which names folders and loader processes."""
    if one.suffix != ".pth":
        return one.read_bytes() == other.read_bytes()
    states = [{**read_checkpoint(path), "config": ""} for path in (one, other)]
    return same(*states)


def finish(command: Command, tally: Tally, where: str) -> float:
    """Let a command run to its end; the seconds."""
    started = time.monotonic()
    status = os.waitstatus_to_exitcode(os.waitpid(command.start(), 0)[1])
    if status:
        tally.faults.append(f"{where}: {command.script.stem} ended with status {status}, see {command.log}")
    return time.monotonic() - started


def soak(work: Path, rounds: int, seed: int, tally: Tally) -> None:
    """All rounds; the folder of one with a fault is kept."""
    draw = random.Random(seed)
    smears, reference = work / "smears", work / "reference"
    write_synthetic_set(smears, SMEARS)
    reference.mkdir()
    # The conversion twice, and the second counts: the first is several times as long.
    commands = [conversion(reference, smears)] * 2 + [training(reference)]
    _, converting, learning = (finish(command, tally, "undisturbed") for command in commands)
    if tally.faults:
        return
    print(f"undisturbed: conversion {converting:.1f} s, training {learning:.1f} s")
    for number in tqdm(range(rounds), unit="round"):
        where, folder, before = f"round {number}", work / f"round{number}", len(tally.faults)
        folder.mkdir()
        command = conversion(folder, smears)
        disturb(command, converting, draw, tally, where)
        finish(command, tally, where)
        command = training(folder)
        for _ in range(draw.randint(1, 2)):
            disturb(command, learning, draw, tally, where)
        finish(command, tally, where)
        for name in SAME:
            if not (folder / name).is_file() or not same_files(folder / name, reference / name):
                tally.faults.append(f"{where}: {name} is missing or differs")
        tally.rounds += 1
        if len(tally.faults) == before:
            shutil.rmtree(folder)


def main() -> int:
    """Soak and say what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of moments and signals")
    parser.add_argument("--work", type=Path, metavar="DIR", help="an empty folder (default: a temporary one)")
    given = parser.parse_args()
    # A fork has none of its parent's threads, so the parent must not have started any.
    tqdm.monitor_interval = 0
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    if not threads.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **threads})
    torch.set_num_threads(1)
    for script in (CONVERT, TRAIN):
        runpy.run_path(str(script), run_name="imported")
    work = given.work or Path(tempfile.mkdtemp(prefix="soak-"))
    work.mkdir(parents=True, exist_ok=True)
    tally = Tally()
    with suppress(KeyboardInterrupt):  # what was seen until then is printed
        soak(work, given.rounds, given.seed, tally)
    rows = [(*what, count) for what, count in sorted(tally.kills.items())]
    print(tabulate(rows, headers=["command", "signal", "times"], tablefmt="pipe"))
    kills = sum(tally.kills.values())
    print(f"{tally.rounds} rounds, {kills} kills, {tally.files} files read, {len(tally.faults)} faults")
    print("\n".join(tally.faults))
    if not tally.faults:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if tally.faults else 0


if __name__ == "__main__":
    run_command(main)
