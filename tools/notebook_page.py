"""Run docs/walkthrough.ipynb and write docs/walkthrough.md, the same with what it printed and drew."""

from __future__ import annotations

import argparse
from pathlib import Path

from bccd_d2.errors import run_command
from bccd_d2.notebook import execute, write_page


def main(arguments: list[str] | None = None) -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--notebook", type=Path, default=Path("docs/walkthrough.ipynb"), help="default: %(default)s"
    )
    path = parser.parse_args(arguments).notebook
    page = path.with_suffix(".md")
    write_page(execute(path), page, path.parent / "images" / path.stem)
    print(page)


if __name__ == "__main__":
    run_command(main)
