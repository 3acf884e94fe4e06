"""Feed broken files to everything that reads files, and report whatever is not an error of ours.

    python benchmarks/fuzz_readers.py [--minutes 10] [--seed 0] [--output FOLDER] [--readers NAME ...]

Valid files are broken at random: bytes (cut short, flipped, deleted, doubled, zeroed, spliced), values (another
type, missing, NaN, of 400 digits, negative, endless nesting, names that are no text), and whole files (empty, a
folder, UTF-16, entity and alias bombs). A reader may take what is left, raise InputError, or pass on an error of the
file system that names the file.
Anything else is foreign: another exception, a crash, more than 10 seconds of the processor, or more than 3 GiB of
memory. Of each foreign exception, told apart by where it was raised, the first input is kept in --output.
The readers run in forks, so that a crash ends one and not the run. The status is 1 if there was anything foreign.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fuzz_examples import example
from fuzz_mutations import mutate
from fuzz_targets import READERS, Reader
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.errors import InputError, run_command

SECONDS = 10
MEMORY = 3 * 2**30
BATCH_SECONDS = 5.0
FOLDER_SHARE = 0.005
"""Share of the inputs that are a folder where a file is expected."""


class Outcome(NamedTuple):
    """What a reader made of an input: "read", "InputError", "OSError", or "foreign" with where it was raised."""

    kind: str
    detail: str = ""


class TooSlow(BaseException):
    """Raised by the alarm."""


@dataclass
class Tally:
    """Of one reader: inputs by outcome, foreign ones by place, seconds of the slowest input."""

    outcomes: Counter[str] = field(default_factory=Counter)
    foreign: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


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
    except OSError as error:
        # A file that is not there or is a folder: the command ends with the system's words and the name.
        if error.errno is not None and error.filename is not None:
            return Outcome("OSError")
        return Outcome("foreign", _where(error))
    except (Exception, TooSlow) as error:
        return Outcome("foreign", _where(error))
    return Outcome("read")


def _where(error: BaseException) -> str:
    """Kind of an exception and the innermost places of ours and at all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "bccd_d2/" in frame.filename]
    places = dict.fromkeys(f"{Path(f.filename).name}:{f.lineno}" for f in [*ours[-1:], *frames[-1:]])
    return f"{type(error).__name__} at {', '.join(places)}"


def check_examples(readers: list[Reader]) -> None:
    """Read every valid file once, in this process, which also fills what readers keep for later."""
    for reader in readers:
        for name in reader.examples:
            with tempfile.TemporaryDirectory() as folder:
                path = place(reader, Path(folder))
                path.write_bytes(example(name))
                reader.read(path)


def batch(reader: Reader, seed: int, start: int, until: float, work: Path, report: Path) -> None:
    """In a fork: inputs number ``start`` and on until the time is up; a line for each goes to ``report``."""
    with contextlib.suppress(ValueError, OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    logging.disable(logging.CRITICAL)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    signal.signal(signal.SIGPROF, _raise_too_slow)
    number = start
    with report.open("w", encoding="utf-8") as lines:
        while number == start or time.monotonic() < until:
            lines.write(f"{number}\t")
            lines.flush()
            folder = work / "input"
            shutil.rmtree(folder, ignore_errors=True)
            path = write_input(reader, random.Random(f"{seed} {reader.name} {number}"), folder)
            started = time.monotonic()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            outcome = read_input(reader, path)
            signal.setitimer(signal.ITIMER_PROF, 0)
            lines.write(f"{outcome.kind}\t{outcome.detail}\t{time.monotonic() - started:.2f}\n")
            number += 1


def _raise_too_slow(signum: int, frame: Any) -> None:
    raise TooSlow


def run_batch(
    reader: Reader, seed: int, start: int, seconds: float, work: Path, note: Callable[..., None]
) -> int:
    """Run a batch in a fork and ``note`` number, outcome and seconds of each input; returns the next number."""
    report = work / "report.txt"
    process = os.fork()
    if not process:
        status = 1
        try:
            batch(reader, seed, start, time.monotonic() + seconds, work, report)
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + seconds + 3 * SECONDS
    ended, status = os.waitpid(process, os.WNOHANG)
    while not ended:
        time.sleep(0.02)
        if time.monotonic() > deadline:  # it hangs where no alarm reaches it
            os.kill(process, signal.SIGKILL)
        ended, status = os.waitpid(process, os.WNOHANG)
    number = start
    for line in report.read_text(encoding="utf-8").splitlines():
        words = line.split("\t")
        number = int(words[0])
        if len(words) == 4:
            note(number, Outcome(words[1], words[2]), float(words[3]))
        else:
            note(number, Outcome("foreign", f"ended with {os.waitstatus_to_exitcode(status)}"), 0.0)
    return number + 1


def fuzz(readers: list[Reader], minutes: float, seed: int, out: Path) -> dict[str, Tally]:
    """All readers by turns until the time is up."""
    tallies = {reader.name: Tally() for reader in readers}
    following = dict.fromkeys(tallies, 0)
    rounds = max(1, round(60 * minutes / BATCH_SECONDS / len(readers)))
    seconds = 60 * minutes / rounds / len(readers)
    with tempfile.TemporaryDirectory() as folder:
        for _, reader in tqdm([(r, reader) for r in range(rounds) for reader in readers], unit="batch"):
            tally = tallies[reader.name]

            def note(
                number: int, outcome: Outcome, taken: float, reader: Reader = reader, tally: Tally = tally
            ) -> None:
                tally.outcomes[outcome.kind] += 1
                tally.slowest = max(tally.slowest, taken)
                if outcome.kind == "foreign":
                    if outcome.detail not in tally.foreign:
                        _keep(reader, seed, number, outcome, out)
                    tally.foreign[outcome.detail] += 1

            following[reader.name] = run_batch(
                reader, seed, following[reader.name], seconds, Path(folder), note
            )
    return tallies


def _keep(reader: Reader, seed: int, number: int, outcome: Outcome, out: Path) -> None:
    """Write an input again, with its neighbours, into a folder of its own."""
    folder = out / reader.name.replace(" ", "_") / str(number)
    shutil.rmtree(folder, ignore_errors=True)
    write_input(reader, random.Random(f"{seed} {reader.name} {number}"), folder)
    (folder / "OUTCOME.txt").write_text(f"{outcome.detail}\n", encoding="utf-8")


def main() -> int:
    """Fuzz and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=10, metavar="N", help="of all readers together (default 10)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same inputs, in order")
    parser.add_argument(
        "--output", type=Path, default=Path("output/fuzz"), metavar="DIR", help="for inputs to keep"
    )
    names = [reader.name for reader in READERS]
    parser.add_argument("--readers", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    given = parser.parse_args()
    chosen = [reader for reader in READERS if given.readers is None or reader.name in given.readers]
    check_examples(chosen)
    tallies = fuzz(chosen, given.minutes, given.seed, given.output)
    kinds = ("read", "InputError", "OSError", "foreign")
    rows: list[list[Any]] = [
        [
            name,
            sum(t.outcomes.values()),
            *(t.outcomes[kind] for kind in kinds),
            len(t.foreign),
            f"{t.slowest:.1f}",
        ]
        for name, t in tallies.items()
    ]
    totals = [sum(row[column] for row in rows) for column in range(1, 7)]
    headers = ["reader", "inputs", *kinds, "kinds of foreign", "slowest, s"]
    print(tabulate([*rows, ["all", *totals, ""]], headers=headers, tablefmt="pipe"))
    for name, tally in tallies.items():
        for detail, count in tally.foreign.most_common():
            print(f"{name}: {detail} ({count} times)")
    if totals[4]:
        print(f"inputs kept in {given.output}", file=sys.stderr)
    return 1 if totals[4] else 0


if __name__ == "__main__":
    run_command(main)
