"""Commands on a full disk, in a folder that is read-only, and in one that another run is using.

    python benchmarks/disks.py [--work FOLDER]

Conversion, training and prediction write to a tmpfs that is too small, whose size then grows until they can go on; to
one that is mounted read-only; and to a folder that another process holds. They must end with status 1 and one
line that names the folder, print no traceback, leave nothing half-written, and go on to what an undisturbed run comes
to. Needs the right to mount. The status is 1 if anything was not as it should be.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soak
from tabulate import tabulate

from bccd_d2.errors import InputError, run_command
from bccd_d2.files import locked
from bccd_d2.synthetic import SyntheticSet, write_synthetic_set

PREDICT = soak.REPOSITORY / "tools" / "predict.py"
SAME_BYTES = (
    "annotations",
    "splits",
    "results",
    "last_checkpoint",
    "predictions",
    "cells",
    "counts",
    "coco",
    "csv",
)
"""Files that begin so hold neither times nor paths."""
# As many as fill a small disk, and each large enough for the shipped model to find cells in.
SMEARS = SyntheticSet(images=12, width=400, height=320)


@dataclass(frozen=True)
class Task:
    """One of the commands.

    Attributes:
        name: for the table.
        script: of tools/.
        arguments: given the output folder.
        sizes: of the disk, in kB: too small for anything, for all of it, and large enough.
    """

    name: str
    script: Path
    arguments: Callable[[Path], list[str]]
    sizes: tuple[int, int, int]

    def run(self, out: Path) -> tuple[int, str]:
        """Run it to its end: status and what it printed."""
        command = [sys.executable, str(self.script), *self.arguments(out)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout


@dataclass
class Report:
    """What was seen: rows of the table, and what was not as it should be."""

    rows: list[list[Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def refused(self, task: Task, where: str, out: Path, result: tuple[int, str], left: str) -> None:
        """Note a run that had to end with status 1 and a line that names the folder."""
        status, text = result
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        line = errors[-1] if errors else text[-300:]
        self.rows.append([task.name, where, status, line.replace(str(out), "OUT"), left])
        if status != 1 or "Traceback" in text or len(errors) != 1 or str(out) not in line:
            self.faults.append(f"{task.name}, {where}: status {status}\n{text}")

    def expect(self, good: bool, what: str) -> None:
        """Note a fault unless ``good``."""
        if not good:
            self.faults.append(what)


@contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[Callable[[str], None]]:
    """A tmpfs at ``folder``; gives a function that mounts it again with other options."""
    folder.mkdir(parents=True, exist_ok=True)

    def mount(*options: str) -> None:
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"cannot mount ({done.stderr.strip()}): run it as root")

    mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs")
    try:
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def left_in(folder: Path) -> list[str]:
    """Files that a command left, but for what says what it did."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(("log.txt", "events.", "config.yaml"))
    )


def same_results(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files, checkpoints and results bit for bit."""
    if left_in(one) != left_in(other):
        return False
    for name in left_in(one):
        if name.endswith(".pth"):
            states = [{**soak.read_checkpoint(folder / name), "config": ""} for folder in (one, other)]
            if not soak.same(*states):
                return False
        elif name.startswith(SAME_BYTES) and (one / name).read_bytes() != (other / name).read_bytes():
            return False
    return True


def try_task(task: Task, work: Path, report: Report) -> None:
    """Everything with one command."""
    undisturbed = work / "undisturbed" / "out"
    status, text = task.run(undisturbed)
    report.expect(status == 0, f"{task.name}, undisturbed: status {status}\n{text}")
    out = work / "disk" / "out"
    with disk(work / "disk", task.sizes[0]) as remount:
        report.refused(task, f"{task.sizes[0]} kB", out, task.run(out), ", ".join(left_in(work / "disk")))
        remount(f"size={task.sizes[1]}k")
        report.refused(
            task, f"{task.sizes[1]} kB", out, task.run(out), f"{len(left_in(work / 'disk'))} files"
        )
        tally = soak.Tally()
        soak.check_files(work / "disk", tally, task.name)
        report.faults += tally.faults
        report.expect(
            not any(work.glob("disk/out/**/*partial*/*")), f"{task.name}: unfinished files are left"
        )
        remount(f"size={task.sizes[2]}k")
        status, text = task.run(out)
        report.rows.append(
            [task.name, f"{task.sizes[2]} kB, going on", status, "", f"{len(left_in(out))} files"]
        )
        report.expect(status == 0, f"{task.name}, going on: status {status}\n{text}")
        report.expect(same_results(out, undisturbed), f"{task.name}: not what an undisturbed run comes to")
        remount("ro")
        report.refused(task, "read-only", out, task.run(out), f"{len(left_in(out))} files")
        report.expect(same_results(out, undisturbed), f"{task.name}: changed on a read-only disk")
    out = work / "shared" / "out"
    with locked(out, "this script"):
        report.refused(task, "in use by another process", out, task.run(out), "")
    report.expect(not out.exists(), f"{task.name}: something is left in a folder that another process held")


def main() -> int:
    """Try all commands and print what they said."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="an empty folder to work in (default: a temporary one)"
    )
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    work = given.work or Path(tempfile.mkdtemp(prefix="disks-"))
    smears, few, data = work / "smears", work / "few", work / "data"
    write_synthetic_set(smears, SMEARS)
    write_synthetic_set(few, soak.SMEARS)
    converted = soak.conversion(work, few, real=True)
    report = Report()
    soak.finish(converted, tally := soak.Tally(), "data")
    report.faults += tally.faults
    options = [*soak.OPTIONS.split(), "SOLVER.CHECKPOINT_PERIOD", "1"]
    training = [
        "--config-file",
        str(soak.CONFIG),
        "--data-root",
        str(data),
        "--resume",
        *options,
        "OUTPUT_DIR",
    ]
    conversion = ["--root", str(smears), "--overwrite"]
    images = str(max(smears.rglob("original"), key=lambda folder: len(list(folder.iterdir()))))
    tasks = [
        Task("convert", soak.CONVERT, lambda out: [*conversion, "--output", str(out)], (8, 40, 4000)),
        Task("train", soak.TRAIN, lambda out: [*training, str(out)], (8, 14000, 80000)),
        Task("predict", PREDICT, lambda out: ["--input", images, "--output", str(out)], (8, 800, 40000)),
    ]
    for task in tasks:
        (work / task.name).mkdir(exist_ok=True)
        try_task(task, work / task.name, report)
    headers = ["command", "folder", "status", "what it says", "what is left"]
    print(tabulate(report.rows, headers=headers, tablefmt="pipe"))
    print(f"{len(report.faults)} faults")
    print("\n".join(report.faults))
    if not report.faults:
        shutil.rmtree(work)
    return 1 if report.faults else 0


if __name__ == "__main__":
    run_command(main)
