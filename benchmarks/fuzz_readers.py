"""Feed broken files to everything that reads files, and report whatever is not an error of ours.

    python benchmarks/fuzz_readers.py [--minutes 10] [--seed 0] [--output FOLDER] [--readers NAME ...]

Valid files are broken at random: bytes, values, or the whole file (fuzz_mutations.py). A reader may take what is left,
raise InputError, or pass on an error of the file system that names the file. Anything else is foreign: another
exception, a crash, more than 10 seconds of the processor, or more than 3 GiB of memory. Of each foreign exception, told
apart by where it was raised, the first input is kept in --output. The readers run in forks, so that a crash ends one
and not the run. The status is 1 if there was anything foreign.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from fuzz_examples import example
from fuzz_mutations import mutate
from fuzz_targets import READERS, Reader
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.commands import run_command
from bccd_d2.errors import InputError

SECONDS = 10
MEMORY = 3 * 2**30
BATCH_SECONDS = 5.0
FOLDER_SHARE = 0.005
"""Share of the inputs that are a folder where a file is expected."""
KINDS = ("read", "InputError", "OSError", "foreign")


class Outcome(NamedTuple):
    """What a reader made of an input, one of ``KINDS``, and where it was raised if it is foreign."""

    kind: str
    detail: str = ""


class TooSlow(BaseException):
    """Raised by the alarm."""


def place(reader: Reader, folder: Path) -> Path:
    """Where the input goes, the files beside it written."""
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in reader.neighbours:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(example(name))
    return path


def write_input(reader: Reader, draw: random.Random, folder: Path) -> Path:
    """A broken file for a reader; its neighbours are valid."""
    path = place(reader, folder)
    if draw.random() < FOLDER_SHARE:
        path.mkdir()
    else:
        path.write_bytes(mutate([example(name) for name in reader.examples], reader.structured, draw))
    return path


def read_input(reader: Reader, path: Path) -> Outcome:
    """Let the reader read, and see how it ends."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(path)
    except InputError:
        return Outcome("InputError")
    except (Exception, TooSlow) as error:
        # A file that is not there or is a folder: the command ends with the system's words and the name.
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            return Outcome("OSError")
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "bccd_d2/" in frame.filename]
        places = dict.fromkeys(f"{Path(f.filename).name}:{f.lineno}" for f in [*ours[-1:], *frames[-1:]])
        return Outcome("foreign", f"{type(error).__name__} at {', '.join(places)}")
    return Outcome("read")


def _raise_too_slow(signum: int, frame: Any) -> None:
    raise TooSlow


def _draw(reader: Reader, seed: int, number: int) -> random.Random:
    return random.Random(f"{seed} {reader.name} {number}")


def serve(connection: Connection, reader: Reader, seed: int, number: int, until: float, work: Path) -> None:
    """In a fork: inputs from ``number`` on until the time is up; sends each number, and then how it went."""
    with contextlib.suppress(ValueError, OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    logging.disable(logging.CRITICAL)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    signal.signal(signal.SIGPROF, _raise_too_slow)
    while True:
        connection.send((number, None, 0.0))
        shutil.rmtree(work / "input", ignore_errors=True)
        path = write_input(reader, _draw(reader, seed, number), work / "input")
        started = time.monotonic()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        outcome = read_input(reader, path)
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send((number, outcome, time.monotonic() - started))
        number += 1
        if time.monotonic() > until:
            return


def outcomes(
    reader: Reader, seed: int, number: int, seconds: float, work: Path
) -> Iterator[tuple[int, Outcome, float]]:
    """Number, outcome and seconds of the inputs of one fork; the last is foreign where the fork died or hung."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    until = time.monotonic() + seconds
    process = context.Process(target=serve, args=(theirs, reader, seed, number, until, work))
    process.start()
    theirs.close()
    outcome: Outcome | None = None
    with contextlib.suppress(EOFError):
        while ours.poll(30 * SECONDS):  # of the clock: the machine may be busy
            number, outcome, taken = ours.recv()
            if outcome is not None:
                yield number, outcome, taken
    process.kill()  # it may hang where no alarm reaches it
    process.join()
    if outcome is None:
        yield number, Outcome("foreign", f"ended with {process.exitcode}"), 0.0


def main() -> int:
    """Fuzz all readers by turns until the time is up, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [reader.name for reader in READERS]
    add = parser.add_argument
    add("--minutes", type=float, default=10, metavar="N", help="of all readers together (default 10)")
    add("--seed", type=int, default=0, help="the same seed gives the same inputs, in order")
    add("--output", type=Path, default=Path("output/fuzz"), metavar="DIR", help="for inputs to keep")
    add("--readers", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    given = parser.parse_args()
    readers = [reader for reader in READERS if given.readers is None or reader.name in given.readers]
    kinds: dict[str, Counter[str]] = {reader.name: Counter() for reader in readers}
    foreign: dict[str, Counter[str]] = {reader.name: Counter() for reader in readers}
    slowest, following = dict.fromkeys(kinds, 0.0), dict.fromkeys(kinds, 0)
    rounds = max(1, round(60 * given.minutes / BATCH_SECONDS / len(readers)))
    seconds = 60 * given.minutes / rounds / len(readers)
    with tempfile.TemporaryDirectory() as folder:
        for reader in tqdm(readers * rounds, unit="batch"):
            name = reader.name
            for number, outcome, taken in outcomes(
                reader, given.seed, following[name], seconds, Path(folder)
            ):
                following[name], slowest[name] = number + 1, max(slowest[name], taken)
                kinds[name][outcome.kind] += 1
                if outcome.kind == "foreign":
                    foreign[name][outcome.detail] += 1
                    if foreign[name][outcome.detail] == 1:
                        kept = given.output / name.replace(" ", "_") / str(number)
                        shutil.rmtree(kept, ignore_errors=True)
                        write_input(reader, _draw(reader, given.seed, number), kept)
                        (kept / "OUTCOME.txt").write_text(f"{outcome.detail}\n", encoding="utf-8")
    rows = [
        [name, found.total(), *(found[kind] for kind in KINDS), f"{slowest[name]:.1f}"]
        for name, found in kinds.items()
    ]
    total = sum(kinds.values(), Counter[str]())
    rows.append(["all", total.total(), *(total[kind] for kind in KINDS), ""])
    print(tabulate(rows, headers=["reader", "inputs", *KINDS, "slowest, s"], tablefmt="pipe"))
    for name, details in foreign.items():
        for detail, count in details.most_common():
            print(f"{name}: {detail} ({count} times)")
    if total["foreign"]:
        print(f"inputs kept in {given.output}", file=sys.stderr)
    return 1 if total["foreign"] else 0


if __name__ == "__main__":
    run_command(main)
