"""Ways to break a valid file: its bytes, or the values in it.

Every function takes a ``random.Random``, so that a seed, or Hypothesis, says what is broken.
"""

from __future__ import annotations

import copy
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import yaml

# What stands where another value is expected.
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**30, 10**400, 0.5, -0.5, 1e308),
    *(float("nan"), float("inf"), float("-inf"), "", "x", "1", "\ud800", "\0", "a" * 5000, "../..", "/"),
    *(
        [],
        [[]],
        [1, 2, 3],
        ["x"],
        [float("nan")] * 4,
        [10**400] * 4,
        {},
        {"a": 1},
        {"size": [9, 9], "counts": "x"},
    ),
]
# Whole files that no format expects.
FILES = [
    b"",
    b"\0",
    b"\xff\xfe\xff\xfe",
    "a: ü".encode("utf-16"),
    b"\x80abc",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"1",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"{a: " * 20_000,
    b"<a>" * 100_000,
    b"9" * 20_000,
    # Each line ten times the one before.
    b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in range(98, 108)),
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "xxxxxxxxxx">'
    + b"".join(b'<!ENTITY %c "%s">' % (c, b"&%c;" % (c - 1) * 10) for c in range(98, 108))
    + b"]><annotation>&k;</annotation>",
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
]
LARGE = [struct.pack(kind, value) for kind in ("<I", ">I") for value in (0x7FFFFFFF, 0xFFFFFFFF, 0x10000, 0)]


def mutate_bytes(content: bytes, draw: random.Random) -> bytes:
    """One to four changes of the bytes, wherever they fall."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        if not data:
            break
        # Headers are where a byte says most.
        start = draw.randrange(min(len(data), 64)) if draw.random() < 0.4 else draw.randrange(len(data))
        length = draw.choice((1, 2, 4, 16, 256))
        change = draw.randrange(7)
        if change == 0:
            del data[start:]
        elif change == 1:
            data[start] ^= 1 << draw.randrange(8)
        elif change == 2:
            data[start] = draw.randrange(256)
        elif change == 3:
            del data[start : start + length]
        elif change == 4:
            data[start:start] = data[start : start + length]
        elif change == 5:
            data[start : start + length] = bytes(length)
        else:
            data[start : start + 4] = draw.choice(LARGE)
    return bytes(data)


def mutate_png(content: bytes, draw: random.Random) -> bytes:
    """Bytes of one chunk, whose checksum is made to agree."""
    chunks, position = [], 8
    while position + 8 <= len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        chunks.append((content[position + 4 : position + 8], content[position + 8 : position + 8 + length]))
        position += 12 + length
    chosen = draw.randrange(len(chunks))
    chunks[chosen] = (chunks[chosen][0], mutate_bytes(chunks[chosen][1], draw))
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def mutate_tree(tree: Any, draw: random.Random, values: list[Any] = VALUES) -> Any:
    """One to three entries of nested dicts and lists, replaced, deleted, doubled or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw.randint(1, 3)):
        places = [place for place in _places(tree) if place[0]]
        if not places or draw.random() < 0.02:
            return copy.deepcopy(draw.choice(values))
        container, key = draw.choice(places)
        change = draw.randrange(6)
        if change == 0:
            del container[key]
        elif change == 1 and isinstance(container, list):
            container.insert(draw.randrange(len(container) + 1), copy.deepcopy(container[key]))
        elif change == 1:
            container[draw.choice(("x", "id", "", "_BASE_"))] = container.pop(key)
        elif change == 2 and isinstance(container[key], int | float) and abs(container[key]) < 1e9:
            container[key] = draw.choice((-container[key], container[key] * 1000, container[key] + 0.5))
        else:
            container[key] = copy.deepcopy(draw.choice(values))
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    found: list[tuple[Any, Any]] = []
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            found += [(tree, key), *_places(tree[key])]
    return found


def mutate_json(content: bytes, draw: random.Random) -> bytes:
    """Values of a JSON file."""
    return json.dumps(mutate_tree(json.loads(content), draw)).encode()


def mutate_yaml(content: bytes, draw: random.Random) -> bytes:
    """Values of a YAML file."""
    return yaml.dump(mutate_tree(yaml.safe_load(content), draw)).encode("utf-8", "surrogatepass")


def mutate_lines(content: bytes, draw: random.Random) -> bytes:
    """Lines of JSON, or of a table."""
    lines = content.splitlines(keepends=True)
    index = draw.randrange(len(lines))
    try:
        lines[index] = mutate_json(lines[index], draw) + b"\n"
    except ValueError:
        lines[index] = b",".join(draw.sample(parts := lines[index].split(b","), len(parts)))
    return b"".join(lines)


def mutate_xml(content: bytes, draw: random.Random) -> bytes:
    """Text between tags, or a whole element."""
    text = content.decode()
    for _ in range(draw.randint(1, 3)):
        elements = list(re.finditer(r"<(\w+)>([^<>]*)</\1>", text))
        if not elements:
            break
        element = draw.choice(elements)
        start, end = element.span(2) if draw.random() < 0.7 else element.span()
        value = "" if draw.random() < 0.2 else str(draw.choice(VALUES))
        text = text[:start] + value + text[end:]
    return text.encode("utf-8", "surrogatepass")


def mutate_npy(content: bytes, draw: random.Random) -> bytes:
    """Shape and type of a NumPy array, whose header keeps its length."""
    header = content[10:].partition(b"\n")[0].decode()
    change = draw.choice(
        [
            (
                r"\(.*\)",
                draw.choice(["(99999, 99999)", "(-1, 5)", "()", "(0, 7)", "(10**9, 10**9)", "(2, 3, 4, 5)"]),
            ),
            (
                r"'descr': '[^']*'",
                f"'descr': '{draw.choice(['<U5', '<c8', '|O', '<M8[s]', '|V3', '<f8', '>u2'])}'",
            ),
            (r"fortran_order': \w+", f"fortran_order': {draw.choice(['True', '7', 'None'])}"),
        ]
    )
    changed = re.sub(change[0], change[1], header).strip().encode().ljust(len(header))[: len(header)]
    return content[:10] + changed + content[10 + len(header) :]


def mutate_safetensors(content: bytes, draw: random.Random) -> bytes:
    """The header, which says where the tensors lie; its length is made to agree."""
    (length,) = struct.unpack("<Q", content[:8])
    header = mutate_json(content[8 : 8 + length], draw)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def mutate(
    examples: list[bytes], structured: Callable[[bytes, random.Random], bytes] | None, draw: random.Random
) -> bytes:
    """A broken file.

    Args:
        examples: valid ones.
        structured: changes what is in them; ``None`` for bytes alone.
        draw: decides.
    """
    kind = draw.random()
    if kind < 0.03:
        return draw.choice(FILES)
    content = draw.choice(examples)
    if structured is not None and kind < 0.6:
        try:
            content = structured(content, draw)
        except (ValueError, OverflowError, yaml.YAMLError):  # such values cannot be written in this format
            return mutate_bytes(content, draw)
        return content
    if kind > 0.95:
        other = draw.choice(examples)
        content = content[: draw.randrange(len(content) + 1)] + other[draw.randrange(len(other) + 1) :]
    return mutate_bytes(content, draw)
