"""Fetch the whole Kaggle set "BCCD Dataset with mask" (1169 + 159 pairs) and check that it is whole.

The set is fetched with kagglehub (pip install -e '.[kaggle]') into --output. --check only counts what is there.
The exit status is 1 where pairs are missing or files are left over; what is missing is listed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bccd_d2.conversion.download import KAGGLE_HANDLE, download, take_inventory
from bccd_d2.errors import run_command


def main(arguments: list[str] | None = None) -> int:
    """Fetch, count, report."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python tools/download_bccd.py --output datasets/kaggle\n"
        "then:    python tools/convert_bccd.py --root datasets/kaggle --output datasets/bccd",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("datasets/kaggle"), metavar="DIR", help="default: datasets/kaggle"
    )
    parser.add_argument("--check", action="store_true", help="fetch nothing; count the pairs in --output")
    parser.add_argument("--handle", default=KAGGLE_HANDLE, help=f"name on Kaggle (default {KAGGLE_HANDLE})")
    options = parser.parse_args(arguments)
    if not options.check:
        download(options.output, options.handle)
    inventory = take_inventory(options.output)
    print("\n".join(inventory.lines()))
    if not inventory.complete:
        print(f"{options.output} is not the whole data set", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_command(main)
