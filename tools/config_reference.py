"""Write docs/configuration.md, the reference of all configuration keys, from the comments in bccd_d2/config.py."""

from __future__ import annotations

import argparse
from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported
from bccd_d2.config_reference import reference_page
from bccd_d2.errors import run_command
from bccd_d2.files import replacing


def main(arguments: list[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("docs/configuration.md"), help="default: docs/configuration.md"
    )
    options = parser.parse_args(arguments)
    with replacing(options.output) as temporary:
        temporary.write_text(reference_page(), encoding="utf-8")
    print(options.output)


if __name__ == "__main__":
    run_command(main)
