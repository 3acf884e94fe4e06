"""The reference of this project's configuration keys, made from the comments in the code."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from bccd_d2 import config, config_heads

_HEADER = """# Configuration reference

Every key that this project adds to Detectron2's, or gives another default. Detectron2's own keys are explained in its
documentation. A key is set in a YAML file of `configs/`, or as `KEY VALUE` at the end of a command line; one that does
not exist, or that would have no effect, is an error.

*Made from the comments in `bccd_d2/config.py` by `python tools/config_reference.py`.*
"""
_FUNCTIONS = (config.add_bccd_config, config_heads.add_head_keys)


@dataclass(frozen=True)
class Key:
    """One configuration key.

    Attributes:
        name: with dots, such as ``INPUT.SCALE``.
        default: as Python writes it.
        comment: what is said above it, in one line; empty where the key belongs to the comment of the key before.
    """

    name: str
    default: str
    comment: str


def configuration_keys() -> list[Key]:
    """The keys of :func:`bccd_d2.config.add_bccd_config` and of the functions that it calls, in order."""
    return [key for function in _FUNCTIONS for key in _keys_of(function)]


def _keys_of(function: Callable[..., None]) -> list[Key]:
    source = inspect.getsource(function)
    lines = source.splitlines()
    keys = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign) or not ast.unparse(node.targets[0]).startswith("cfg."):
            continue
        name = ast.unparse(node.targets[0]).removeprefix("cfg.")
        comment = _comment_above(lines, node.lineno - 1)
        if ast.unparse(node.value) == "CN()":
            # A group has no value; what is said above it belongs to its keys.
            keys.append((node.lineno, Key(name, "", comment)))
        else:
            keys.append((node.lineno, Key(name, ast.unparse(node.value), comment)))
    return [key for _, key in sorted(keys, key=lambda pair: pair[0])]


def reference_page() -> str:
    """Markdown: a section a group of keys (``INPUT.STAIN``), a table of key, default and meaning in each."""
    groups: dict[str, tuple[str, list[Key]]] = {}
    for key in configuration_keys():
        if not key.default:
            groups[key.name] = (key.comment, groups.get(key.name, ("", []))[1])
            continue
        group = key.name.rpartition(".")[0]
        groups.setdefault(group, ("", []))[1].append(key)
    sections = [_HEADER]
    for group, (comment, keys) in sorted(groups.items()):
        if not keys:
            continue
        sections.append(f"\n## {group}\n")
        if comment:
            sections.append(f"{comment}\n")
        sections += ["| key | default | meaning |", "|---|---|---|"]
        sections += [f"| `{k.name}` | `{_cell(k.default)}` | {_cell(k.comment)} |" for k in keys]
    return "\n".join(sections) + "\n"


def _comment_above(lines: list[str], index: int) -> str:
    words: list[str] = []
    while index > 0 and lines[index - 1].strip().startswith("#"):
        index -= 1
        words.insert(0, lines[index].strip().removeprefix("#").strip())
    return " ".join(words)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
