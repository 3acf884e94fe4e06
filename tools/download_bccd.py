"""Fetch the whole Kaggle set "BCCD Dataset with mask" (1169 + 159 pairs) and check that it is whole.

The set is fetched with kagglehub (pip install -e '.[kaggle]') into --output. --check only counts what is there.
The exit status is 1 where pairs are missing or files are left over; what is missing is listed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bccd_d2.conversion.dataset_spec import find_pairs
from bccd_d2.errors import InputError, run_command

KAGGLE_HANDLE = "jeetblahiri/bccd-dataset-with-mask"
EXPECTED_PAIRS = {"train": 1169, "test": 159}


@dataclass(frozen=True)
class Inventory:
    """What a folder holds of the data set.

    Attributes:
        found: pairs of image and mask by part.
        faults: files without a partner, one line each.
        expected: pairs that the part should have.
    """

    found: Mapping[str, int]
    faults: tuple[str, ...]
    expected: Mapping[str, int]

    @property
    def complete(self) -> bool:
        """Whether every part has as many pairs as it should and no file is left over."""
        return not self.faults and dict(self.found) == dict(self.expected)

    def lines(self) -> list[str]:
        """What was found and what is missing, a line a part and a fault."""
        rows = []
        for part in sorted({*self.found, *self.expected}):
            found, expected = self.found.get(part, 0), self.expected.get(part, 0)
            rest = (
                ""
                if found == expected
                else f" ({abs(found - expected)} {'missing' if found < expected else 'more'})"
            )
            rows.append(f"{part}: {found} pairs, expected {expected}{rest}")
        return rows + [f"unpaired: {fault}" for fault in self.faults]


def take_inventory(root: Path, expected: Mapping[str, int] | None = None) -> Inventory:
    """Count the pairs below ``root``.

    Args:
        root: folder with the data set at any depth.
        expected: pairs by part; ``None`` stands for :data:`EXPECTED_PAIRS`.

    Raises:
        InputError: there is no pair at all.
    """
    faults: list[str] = []
    pairs = find_pairs(root, faults)
    found = Counter(pair.part or "no part" for pair in pairs)
    return Inventory(found, tuple(faults), EXPECTED_PAIRS if expected is None else expected)


def download(out: Path, handle: str = KAGGLE_HANDLE, fetch: Callable[[str], str] | None = None) -> None:
    """Fetch the data set from Kaggle into ``out``.

    kagglehub keeps what it fetched in its own cache and goes on there after an interruption. The files are copied
    beside ``out`` and moved into place, so ``out`` is whole or not there.

    Args:
        out: folder that does not exist yet.
        handle: the data set's name on Kaggle, OWNER/NAME.
        fetch: returns the folder that holds the data set of that name; ``None`` stands for kagglehub.

    Raises:
        InputError: ``out`` exists, kagglehub is not installed, or the data set cannot be fetched.
    """
    if out.exists():
        raise InputError(
            f"{out} exists; --check tells whether it is whole, another --output fetches it again"
        )
    fetch = fetch or _kagglehub()
    try:
        source = Path(fetch(handle))
    except Exception as error:  # kagglehub, requests and Kaggle's own client each raise kinds of their own
        raise InputError(
            f"{handle} cannot be fetched from Kaggle ({type(error).__name__}: {error}). Needed are a network and, "
            "where Kaggle asks for it, a token (KAGGLE_USERNAME and KAGGLE_KEY, or ~/.kaggle/kaggle.json); or fetch "
            "the archive with a browser, unpack it, and give its folder to tools/convert_bccd.py --root"
        ) from error
    unfinished = out.with_name(f".{out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    try:
        for path in tqdm(files, desc="copying", unit="file"):
            target = unfinished / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        unfinished.mkdir(parents=True, exist_ok=True)
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _kagglehub() -> Callable[[str], str]:
    try:
        import kagglehub
    except ImportError as error:
        raise InputError(
            "fetching from Kaggle needs the package kagglehub: pip install -e '.[kaggle]'"
        ) from error
    return kagglehub.dataset_download


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
