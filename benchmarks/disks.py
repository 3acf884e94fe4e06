"""Commands on a full disk, in a folder that is read-only, and in one that another run is using.

    python benchmarks/disks.py [--work FOLDER]

Conversion, training and prediction write to a tmpfs that is too small, whose size then grows until they can resume; to
one that is mounted read-only; and to a folder that another process holds. They must end with status 1 and one line that
names the folder, print no traceback, leave nothing half-written, and come to what an undisturbed run comes to. Needs
the right to mount. The status is 1 if anything was not as it should be.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soak
from tabulate import tabulate

from bccd_d2.commands import run_command
from bccd_d2.errors import InputError
from bccd_d2.files import locked
from bccd_d2.synthetic import SyntheticSet, write_synthetic_set

# Files that begin so hold neither times nor paths.
SAME_BYTES = (
    *("annotations", "splits", "results", "last_checkpoint"),
    *("predictions", "cells", "counts", "coco", "csv"),
)
# As many as fill a small disk, and each large enough for the shipped model to find cells in.
SMEARS = SyntheticSet(images=12, width=400, height=320)

Result = tuple[int, str]
"""Status and what was printed."""


@dataclass(frozen=True)
class Task:
    """A script of tools/, arguments before the output, and kB of a disk too small for anything, for all, or enough."""

    script: str
    arguments: list[str]
    sizes: tuple[int, int, int]

    def run(self, out: Path) -> Result:
        """Run it to its end."""
        script = str(soak.REPOSITORY / "tools" / f"{self.script}.py")
        command = [sys.executable, script, *self.arguments, str(out)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout


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
    compared = [name for name in left_in(one) if name.endswith(".pth") or name.startswith(SAME_BYTES)]
    return left_in(one) == left_in(other) and all(
        soak.same_files(one / name, other / name) for name in compared
    )


def try_task(task: Task, work: Path, rows: list[list[Any]], faults: list[str]) -> None:
    """Everything with one command; adds to the rows of the table and to what was not as it should be."""

    def expect(good: bool, what: str, text: str = "") -> None:
        if not good:
            faults.append(f"{task.script}, {what}\n{text}")

    def refused(where: str, out: Path) -> None:
        """It ends with status 1 and a line that names the folder."""
        status, text = task.run(out)
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        line = errors[-1] if errors else text[-300:]
        rows.append([task.script, where, status, line.replace(str(out), "OUT")])
        expect(status == 1 and "Traceback" not in text and len(errors) == 1 and str(out) in line, where, text)

    def resumes(where: str, out: Path) -> None:
        status, text = task.run(out)
        rows.append([task.script, where, status, ""])
        expect(status == 0, where, text)

    undisturbed, out = work / "undisturbed" / "out", work / "disk" / "out"
    resumes("undisturbed", undisturbed)
    small, larger, enough = task.sizes
    with disk(work / "disk", small) as remount:
        refused(f"{small} kB", out)
        remount(f"size={larger}k")
        refused(f"{larger} kB", out)
        tally = soak.Tally()
        soak.check_files(work / "disk", tally, task.script)
        faults += tally.faults
        expect(not any(work.glob("disk/out/**/*partial*/*")), "unfinished files are left")
        remount(f"size={enough}k")
        resumes(f"{enough} kB, resumed", out)
        expect(same_results(out, undisturbed), "not what an undisturbed run comes to")
        remount("ro")
        refused("read-only", out)
        expect(same_results(out, undisturbed), "changed on a read-only disk")
    out = work / "shared" / "out"
    with locked(out, "this script"):
        refused("in use by another process", out)
    expect(not out.exists(), "something is left in a folder that another process held")


def main() -> int:
    """Try all commands and print what they said."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="an empty folder (default: a temporary one)")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    work = given.work or Path(tempfile.mkdtemp(prefix="disks-"))
    smears, few, data = work / "smears", work / "few", work / "data"
    write_synthetic_set(smears, SMEARS)
    write_synthetic_set(few, soak.SMEARS)
    images = max(smears.rglob("original"), key=lambda folder: len(list(folder.iterdir())))
    training = f"--config-file {soak.CONFIG} --data-root {data} --resume {soak.OPTIONS} OUTPUT_DIR"
    tasks = [
        Task("convert_bccd", f"--root {smears} --overwrite --output".split(), (8, 40, 4000)),
        Task("train_net", training.split(), (8, 14000, 80000)),
        Task("predict", f"--input {images} --output".split(), (8, 800, 40000)),
    ]
    rows: list[list[Any]] = []
    faults: list[str] = []
    status, text = Task("convert_bccd", f"--root {few} --output".split(), (0, 0, 0)).run(data)
    if status:
        raise InputError(f"the data of the training cannot be converted: {text}")
    for task in tasks:
        (work / task.script).mkdir(exist_ok=True)
        try_task(task, work / task.script, rows, faults)
    print(tabulate(rows, headers=["command", "folder", "status", "what it says"], tablefmt="pipe"))
    print("\n".join([f"{len(faults)} faults", *faults]))
    if not faults:
        shutil.rmtree(work)
    return 1 if faults else 0


if __name__ == "__main__":
    run_command(main)
