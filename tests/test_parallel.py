"""Results come in order, no faster than they are taken, and a dead worker is said."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bccd_d2.errors import InputError
from bccd_d2.parallel import AHEAD, map_in_order


def square(value: int) -> int:
    return value * value


def die(value: int) -> int:
    os._exit(1)


def fail(value: int) -> int:
    raise InputError(f"bad {value}")


@pytest.mark.parametrize("workers", [1, 2])
def test_in_order(workers: int) -> None:
    assert list(map_in_order(square, range(40), workers)) == [n * n for n in range(40)]


def test_items_are_taken_as_results_are() -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(1000):
            taken.append(n)
            yield n

    results = map_in_order(square, items(), 2)
    for _ in range(10):
        next(results)
    assert len(taken) <= 10 + 2 * AHEAD
    results.close()  # type: ignore[attr-defined]


def test_a_worker_that_dies() -> None:
    with pytest.raises(InputError, match="a worker process was killed"):
        list(map_in_order(die, range(3), 2))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_through(workers: int) -> None:
    with pytest.raises(InputError, match="bad 0"):
        list(map_in_order(fail, range(3), workers))


def test_no_workers() -> None:
    with pytest.raises(InputError, match="workers 0"):
        list(map_in_order(square, [1], 0))


INTERRUPTED = """
import time
from bccd_d2.parallel import map_in_order
from bccd_d2.commands import run_command


def main():
    print("started", flush=True)
    for _ in map_in_order(time.sleep, [0.05] * 1000, 2):
        pass


if __name__ == "__main__":
    run_command(main)
"""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
def test_an_interrupt_at_any_moment_ends_it_cleanly(tmp_path: Path, delay: float) -> None:
    """While threads and processes start, too."""
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)  # all processes of the group, as a terminal does
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted; finished files are intact\n")


WAITS_FOR_EVER = """
import os, time
from bccd_d2.parallel import map_in_order
def pid(_):
    return os.getpid()
if __name__ == "__main__":
    for worker in map_in_order(pid, range(10**6), 2):
        print(worker, flush=True)
        time.sleep(60)
"""


def test_workers_end_when_the_first_process_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text(WAITS_FOR_EVER)
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    os.kill(worker, 0)  # it is there
    process.kill()
    process.wait()
    limit = time.monotonic() + 20
    while is_running(worker):
        assert time.monotonic() < limit, "the worker goes on"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
