"""What the steps of a training took: reads ``metrics.json`` of its OUTPUT_DIR.

    python benchmarks/run_times.py output/r50 --gpu gpu.csv
    python benchmarks/run_times.py output/r50 --seconds 180      # only how many iterations take so long, at least 6

``gpu.csv`` holds timestamp, utilization.gpu and memory.used, as benchmarks/gpu_session.sh has nvidia-smi print them
while the training runs.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from pathlib import Path

from bccd_d2.commands import run_command
from bccd_d2.errors import InputError


def median_of(records: list[dict[str, float]], key: str) -> float:
    """Of the later half of a run, which is past its start."""
    values = [record[key] for record in records if key in record]
    if not values:
        raise InputError(f"metrics.json: expected records with {key!r}, found none")
    return statistics.median(values[len(values) // 2 :])


def main(arguments: list[str] | None = None) -> None:
    """Print the times, or a number of iterations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="OUTPUT_DIR of the training")
    parser.add_argument("--seconds", type=float, metavar="S", help="print how many iterations take so long")
    parser.add_argument("--gpu", type=Path, metavar="CSV", help="what nvidia-smi wrote meanwhile")
    given = parser.parse_args(arguments)
    path = given.run / "metrics.json"
    if not path.is_file():
        raise InputError(f"{path} is not there; expected the OUTPUT_DIR of a training")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    step = median_of(records, "time")
    if given.seconds is not None:
        print(max(6, int(given.seconds / step)))  # Detectron2 does not time the first three
        return
    loader = median_of(records, "data_time")
    print(
        f"{records[-1]['iteration'] + 1:.0f} iterations; a step {step:.3f} s (median), the loader {loader:.3f} s of it"
    )
    if given.gpu is not None and given.gpu.is_file():
        with given.gpu.open(newline="") as file:
            rows = [(float(row[1]), float(row[2])) for row in csv.reader(file) if len(row) == 3]
        busy = [row for row in rows if row[1] > 0.5 * max(memory for _, memory in rows)]
        print(
            f"GPU: utilisation {statistics.median(used for used, _ in busy):.0f} % (median while at least half of the "
            f"peak memory is in use), peak memory {max(memory for _, memory in rows) / 1024:.1f} GB"
        )
    results = given.run / "results.json"
    if results.is_file():
        for name, groups in json.loads(results.read_text()).items():
            print(f"{name}: " + ", ".join(f"{kind} AP {groups[kind]['AP']:.1f}" for kind in ("bbox", "segm")))


if __name__ == "__main__":
    run_command(main)
