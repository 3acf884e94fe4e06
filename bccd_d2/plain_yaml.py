"""Reads YAML that people write, and refuses what is more than it looks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bccd_d2.errors import InputError

MAX_NODES = 100_000
"""Values that a file may come to once its aliases stand for what they name; eleven lines of them can make 10^11."""
MAX_BRACKETS = 200
"""The time that PyYAML takes goes with the square of the brackets that are open at once."""


def read_yaml(path: Path) -> Any:
    """Read YAML of plain values in UTF-8.

    Raises:
        InputError: it is no such YAML, asks for objects of Python's, refers to itself, or its aliases multiply.
        OSError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if _brackets(text) > MAX_BRACKETS:
            raise InputError(f"{path}: not YAML (more than {MAX_BRACKETS} brackets that are open at once)")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {}, path)
        return loader.construct_document(node)
    except InputError:
        raise
    # Beside YAML's own: no UTF-8, a date that is none, a number of 10,000 digits, endless nesting.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: not YAML ({error})") from error


def _brackets(text: str) -> int:
    """The most opening brackets that no closing one has followed."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = max(0, depth + (1 if bracket in "[{" else -1))
        deepest = max(deepest, depth)
    return deepest


def _size(node: yaml.Node, known: dict[int, int], path: Path) -> int:
    """Number of values that a node comes to; ``known`` holds those of the nodes seen, 0 while they are counted."""
    if id(node) in known:
        if not known[id(node)]:
            raise InputError(f"{path}: an alias stands for what it is part of, expected plain values")
        return known[id(node)]
    known[id(node)] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    total = 1 + sum(_size(child, known, path) for child in children)
    if total > MAX_NODES:
        raise InputError(f"{path}: its aliases come to more than {MAX_NODES} values, expected plain values")
    known[id(node)] = total
    return total
