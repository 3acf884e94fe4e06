"""Ways to break a valid file, its bytes or the values in it; a ``random.Random`` says what is broken."""

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
    *([], [[]], [1, 2, 3], ["x"], [float("nan")] * 4, [10**400] * 4, {}, {"a": 1}),
    {"size": [9, 9], "counts": "x"},
]
# Whole files that no format expects; the last ones name or repeat what blows up.
FILES = [
    *(
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
    ),
    *(b"[" * 100_000, b'{"a":' * 50_000, b"{a: " * 20_000, b"<a>" * 100_000, b"9" * 20_000),
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
        end, part = start + length, bytes(data[start : start + length])
        flipped = bytes([data[start] ^ 1 << draw.randrange(8)])
        first, last, new = draw.choice(
            [
                (start, len(data), b""),
                (start, start + 1, flipped),
                (start, end, b""),
                (start, start, part),
                (start, end, bytes(length)),
                (start, start + 4, draw.choice(LARGE)),
            ]
        )
        data[first:last] = new
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


def mutate_tree(tree: Any, draw: random.Random) -> Any:
    """One to three entries of nested dicts and lists, replaced, deleted, doubled or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw.randint(1, 3)):
        places = list(_places(tree))
        if not places or draw.random() < 0.02:
            return copy.deepcopy(draw.choice(VALUES))
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
            container[key] = copy.deepcopy(draw.choice(VALUES))
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    found: list[tuple[Any, Any]] = []
    if isinstance(tree, dict | list) and tree:
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            found += [(tree, key), *_places(tree[key])]
    return found


def mutate_json(content: bytes, draw: random.Random) -> bytes:
    """Values of a JSON file."""
    return json.dumps(mutate_tree(json.loads(content), draw)).encode()


def mutate_yaml(content: bytes, draw: random.Random) -> bytes:
    """Values of a YAML file."""
    return yaml.dump(mutate_tree(yaml.safe_load(content), draw)).encode("utf-8", "surrogatepass")


def mutate_text(content: bytes, draw: random.Random) -> bytes:
    """Words, numbers and lines of a text, such as XML, a table or the header of an array."""
    text = content.decode("latin-1")
    for _ in range(draw.randint(1, 3)):
        places = list(
            re.finditer(draw.choice((r"[\w.+-]+", r"<(\w+)>[^<>]*</\1>", r"[^\n]+\n")), text[:4000])
        )
        if not places:
            continue
        start, end = draw.choice(places).span()
        new = draw.choice(("", text[start:end] * 2, *(str(value) for value in VALUES)))
        text = text[:start] + new + text[end:]
    return text.encode("utf-8", "surrogatepass") if text.isascii() else text.encode("latin-1", "replace")


def mutate_safetensors(content: bytes, draw: random.Random) -> bytes:
    """The header, which says where the tensors lie; its length is made to agree."""
    (length,) = struct.unpack("<Q", content[:8])
    header = mutate_json(content[8 : 8 + length], draw)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def mutate(
    examples: list[bytes], structured: Callable[[bytes, random.Random], bytes] | None, draw: random.Random
) -> bytes:
    """A broken file made of valid ones; ``structured`` changes what is in them, beside their bytes."""
    kind = draw.random()
    if kind < 0.03:
        return draw.choice(FILES)
    content = draw.choice(examples)
    if structured is not None and kind < 0.6:
        try:
            return structured(content, draw)
        except (ValueError, OverflowError, yaml.YAMLError):  # such values cannot be written in this format
            return mutate_bytes(content, draw)
    if kind > 0.95:
        other = draw.choice(examples)
        content = content[: draw.randrange(len(content) + 1)] + other[draw.randrange(len(other) + 1) :]
    return mutate_bytes(content, draw)
