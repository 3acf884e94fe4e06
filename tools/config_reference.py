"""Write docs/configuration.md, the reference of this project's configuration keys, from the comments in the code."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported
from bccd_d2 import config
from bccd_d2.commands import CommandParser, run_command
from bccd_d2.files import replacing

HEADER = """# Configuration reference

The keys that this project adds to Detectron2's, or gives another default; Detectron2's own keys are explained in its
documentation. Set a key in a YAML file of `configs/`, or as `KEY VALUE` at the end of a command line. A key that does
not exist, or that you set and that has no effect, is an error.

*Made from the comments in `bccd_d2/config/__init__.py` by `python tools/config_reference.py`.*
"""


def keys() -> list[tuple[str, str, str]]:
    """Name, default (empty for a group) and comment of each key, in the order of the code."""
    source = inspect.getsource(config.add_bccd_config)
    lines = [line.strip() for line in source.splitlines()]
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign):
            continue
        start = node.lineno - 1
        while lines[start - 1].startswith("#"):
            start -= 1
        comment = " ".join(line.removeprefix("#").strip() for line in lines[start : node.lineno - 1])
        default = ast.unparse(node.value)
        name = ast.unparse(node.targets[0]).removeprefix("cfg.")
        found.append((name, "" if default == "CN()" else default, comment.replace("|", "\\|")))
    return found


def reference_page() -> str:
    """Markdown: a table of key, default and meaning for each group of keys, such as ``INPUT.STAIN``."""
    comments = {name: comment for name, default, comment in keys() if not default}
    groups: dict[str, list[str]] = {}
    for name, default, comment in keys():
        if default:
            row = f"| `{name}` | `{default}` | {comment} |"
            groups.setdefault(name.rpartition(".")[0], []).append(row)
    sections = [HEADER]
    for group, rows in sorted(groups.items()):
        heading = [f"\n## {group}\n", *([f"{comments[group]}\n"] if comments.get(group) else [])]
        sections += [*heading, "| key | default | meaning |", "|---|---|---|", *rows]
    return "\n".join(sections) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Write the page."""
    parser = CommandParser(__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("docs/configuration.md"), help="default: docs/configuration.md"
    )
    output = parser.parse_args(arguments).output
    with replacing(output) as temporary:
        temporary.write_text(reference_page(), encoding="utf-8")
    print(output)


if __name__ == "__main__":
    run_command(main)
