"""Fetch the whole Kaggle set "BCCD Dataset with mask" (1169 + 159 pairs) and check that it is whole.

The set is fetched with kagglehub (pip install -e '.[kaggle]') into --output; --check only counts what is there. The
exit status is 1 where pairs are missing or files are left over, which are listed.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from bccd_d2.commands import CommandParser, run_command
from bccd_d2.conversion.pairs import find_pairs
from bccd_d2.errors import InputError

KAGGLE_HANDLE = "jeetblahiri/bccd-dataset-with-mask"
EXPECTED_PAIRS = {"train": 1169, "test": 159}
EXAMPLES = """examples:
  python tools/download_bccd.py --output datasets/kaggle
  python tools/convert_bccd.py --root datasets/kaggle --output datasets/bccd
"""


def take_inventory(root: Path) -> tuple[list[str], bool]:
    """Lines on the pairs of each part below ``root`` and on files without a partner; whether nothing is amiss."""
    faults: list[str] = []
    found = Counter(pair.part or "no part" for pair in find_pairs(root, faults))
    lines = []
    for part in sorted({*found, *EXPECTED_PAIRS}):
        number, expected = found[part], EXPECTED_PAIRS.get(part, 0)
        kind = "missing" if number < expected else "more"
        rest = "" if number == expected else f" ({abs(number - expected)} {kind})"
        lines.append(f"{part}: {number} pairs, expected {expected}{rest}")
    lines += [f"unpaired: {fault}" for fault in faults]
    return lines, not faults and found == EXPECTED_PAIRS


def download(out: Path, fetch: Callable[[str], str] | None = None) -> None:
    """Fetch the data set from Kaggle into ``out``, which is whole afterwards or not there.

    ``fetch`` gives the folder of a data set by its name, by default with kagglehub, which resumes in its own cache.
    Raises :class:`InputError` if ``out`` exists, kagglehub is not installed, or the data set cannot be fetched.
    """
    if out.exists():
        raise InputError(
            f"{out} exists; --check tells whether it is whole, another --output fetches it again"
        )
    if fetch is None:
        try:
            import kagglehub
        except ImportError as error:
            raise InputError(
                "fetching from Kaggle needs the package kagglehub: pip install -e '.[kaggle]'"
            ) from error
        fetch = kagglehub.dataset_download
    try:
        source = Path(fetch(KAGGLE_HANDLE))
    except Exception as error:  # kagglehub, requests and Kaggle's own client each raise kinds of their own
        raise InputError(
            f"{KAGGLE_HANDLE} cannot be fetched from Kaggle ({type(error).__name__}: {error}). Needed are a network "
            "and, where Kaggle asks for it, a token (KAGGLE_USERNAME and KAGGLE_KEY, or ~/.kaggle/kaggle.json); or "
            "fetch the archive with a browser, unpack it, and give its folder to tools/convert_bccd.py --root"
        ) from error
    unfinished = out.with_name(f".{out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    try:
        unfinished.mkdir(parents=True)
        for path in tqdm(files, desc="copying", unit="file"):
            target = unfinished / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    """Fetch, count, report."""
    parser = CommandParser(__doc__, EXAMPLES)
    parser.add_argument(
        "--output", type=Path, default=Path("datasets/kaggle"), metavar="DIR", help="default: datasets/kaggle"
    )
    parser.add_argument("--check", action="store_true", help="fetch nothing; count the pairs in --output")
    options = parser.parse_args(arguments)
    if not options.check:
        download(options.output)
    lines, complete = take_inventory(options.output)
    print("\n".join(lines))
    if not complete:
        print(f"{options.output} is not the whole data set", file=sys.stderr)
    return int(not complete)


if __name__ == "__main__":
    run_command(main)
