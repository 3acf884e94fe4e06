"""Which image is used for training, validation and testing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bccd_d2.conversion.coco import read_json, write_json
from bccd_d2.errors import InputError

PARTS = ("train", "val", "test")
RATIOS = (0.70, 0.15, 0.15)
SEED = 42
Splits = dict[str, list[str]]
"""Stems by part; the parts are ``train``, ``val`` and ``test``, each sorted."""


def split_stems(
    stems: Iterable[str],
    *,
    ratios: Sequence[float] = RATIOS,
    seed: int = SEED,
    max_images: int | None = None,
) -> Splits:
    """Deal stems to train, val and test.

    The order of dealing is that of a hash of seed and stem: it depends neither on the order of the file
    system nor on the version of a random generator.

    Args:
        stems: names of the images, each once.
        ratios: shares of train, val and test; they add up to 1.
        seed: another seed, another split.
        max_images: use no more than this many images, chosen by the same order.

    Raises:
        InputError: ratios that do not add up to 1, a cap below 1, or a stem that occurs twice.
    """
    if len(ratios) != len(PARTS) or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-6:
        raise InputError(f"split ratios {tuple(ratios)}, expected three shares that add up to 1")
    if max_images is not None and max_images < 1:
        raise InputError(f"max_images {max_images}, expected at least 1")
    ordered = sorted(stems, key=lambda stem: (_order(stem, seed), stem))
    if len(set(ordered)) != len(ordered):
        raise InputError("a stem occurs twice among the images to split")
    ordered = ordered[:max_images]
    splits: Splits = {}
    start = 0
    for part, size in zip(PARTS, _part_sizes(len(ordered), ratios)):
        splits[part] = sorted(ordered[start : start + size])
        start += size
    return splits


def write_splits(path: Path | str, splits: Mapping[str, Sequence[str]], options: Mapping[str, Any]) -> None:
    """Write splits as JSON with the options that made them and a hash of the lists, atomically."""
    document = {
        "format": "bccd_d2 splits 1",
        "options": dict(options),
        "sha256": splits_hash(splits),
        **{part: list(splits.get(part, ())) for part in PARTS},
    }
    write_json(path, document)


def read_splits(path: Path | str) -> Splits:
    """Read what :func:`write_splits` wrote.

    Raises:
        InputError: a part is missing or no list of stems, or a stem is in two places.
    """
    document = read_json(path)
    splits: Splits = {}
    for part in PARTS:
        entries = document.get(part) if isinstance(document, Mapping) else None
        if not isinstance(entries, list) or not all(isinstance(stem, str) for stem in entries):
            raise InputError(f"{path}: no list of stems {part!r}, expected lists train, val and test")
        splits[part] = entries
    seen: dict[str, str] = {}
    for part, names in splits.items():
        for stem in names:
            if stem in seen:
                raise InputError(f"{path}: {stem!r} is in {seen[stem]} and in {part}, expected one part")
            seen[stem] = part
    return splits


def splits_hash(splits: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 of which stem is in which part."""
    lines = (f"{part}\t{stem}\n" for part in PARTS for stem in sorted(splits.get(part, ())))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _order(stem: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{stem}".encode()).digest()


def _part_sizes(total: int, ratios: Sequence[float]) -> list[int]:
    """Sizes by largest remainder; no part with a share stays empty while there are images for all."""
    exact = [ratio * total for ratio in ratios]
    sizes = [int(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(ratios)), key=lambda index: sizes[index] - exact[index])
    for index in by_remainder[: total - sum(sizes)]:
        sizes[index] += 1
    for index, ratio in enumerate(ratios):
        largest = sizes.index(max(sizes))
        if ratio > 0 and sizes[index] == 0 and sizes[largest] > 1:
            sizes[index] += 1
            sizes[largest] -= 1
    return sizes
