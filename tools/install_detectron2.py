"""Install Detectron2 without a compiler, or from upstream with one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Runs before bccd_d2 itself is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bccd_d2 import installation
from bccd_d2.commands import run_command


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and install."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--source",
        default="pypi",
        metavar="pypi|git|PATH",
        help="pypi (default): keep an importable detectron2, else install its Python files from PyPI, checked by hash; "
        f"git: build upstream at commit {installation.UPSTREAM_COMMIT[:8]} (needs a compiler); "
        "PATH: build a local checkout",
    )
    options = parser.parse_args(arguments)
    print(installation.install(options.source))


if __name__ == "__main__":
    run_command(main)
