"""Which image is used for training, validation and testing: dealt, written, read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bccd_d2.errors import InputError
from bccd_d2.files import write_json
from bccd_d2.structures.coco import PARTS as PARTS
from bccd_d2.structures.coco import read_json

RATIOS = (0.70, 0.15, 0.15)
SEED = 42
Splits = dict[str, list[str]]
"""Stems by part; the parts are ``train``, ``val`` and ``test``, each sorted."""


def deal_order(stems: Iterable[str], seed: int) -> list[str]:
    """Stems in an order that looks random: that of a hash of seed and stem.

    It depends neither on the order of the file system nor on the version of a random generator, and an image that
    joins later does not change the order of the others.

    Raises:
        InputError: a stem occurs twice.
    """
    ordered = sorted(stems, key=lambda stem: (hashlib.sha256(f"{seed}\0{stem}".encode()).digest(), stem))
    for stem, following in pairwise(ordered):
        if stem == following:
            raise InputError(f"{stem!r} occurs twice among the images to split")
    return ordered


def split_stems(
    stems: Iterable[str],
    *,
    ratios: Sequence[float] = RATIOS,
    seed: int = SEED,
    max_images: int | None = None,
) -> Splits:
    """Deal stems to train, val and test.

    Args:
        stems: names of the images, each once.
        ratios: shares of train, val and test; they add up to 1.
        seed: another seed, another split.
        max_images: use no more than this many images, chosen by :func:`deal_order`.

    Raises:
        InputError: ratios that do not add up to 1, a cap below 1, or a stem that occurs twice.
    """
    check_ratios(ratios)
    if max_images is not None and max_images < 1:
        raise InputError(f"max_images {max_images}, expected at least 1")
    ordered = deal_order(stems, seed)[:max_images]
    splits: Splits = {}
    start = 0
    for part, size in zip(PARTS, part_sizes(len(ordered), ratios)):
        splits[part] = sorted(ordered[start : start + size])
        start += size
    return splits


def split_groups(
    group_of: Mapping[str, str], *, ratios: Sequence[float] = RATIOS, seed: int = SEED
) -> Splits:
    """Deal whole groups to train, val and test, so that no group is in two parts.

    The largest group goes first, each to the part that lacks most. The shares are met as well as the groups allow.

    Args:
        group_of: group of each stem.
        ratios: as in :func:`split_stems`.
        seed: decides between groups of equal size.

    Raises:
        InputError: fewer groups than parts with a share.
    """
    check_ratios(ratios)
    members: dict[str, list[str]] = {}
    for stem, group in group_of.items():
        members.setdefault(group, []).append(stem)
    wanted = [part for part, ratio in zip(PARTS, ratios) if ratio > 0]
    if len(members) < len(wanted):
        raise InputError(f"{len(members)} groups, expected at least one for each of {', '.join(wanted)}")
    lacking = {part: ratio * len(group_of) for part, ratio in zip(PARTS, ratios)}
    splits: Splits = {part: [] for part in PARTS}
    ordered = sorted(deal_order(members, seed), key=lambda group: -len(members[group]))
    for position, group in enumerate(ordered):
        empty = [part for part in wanted if not splits[part]]
        # The last groups are kept for parts that would stay empty otherwise.
        choices = empty if len(ordered) - position <= len(empty) else wanted
        part = max(choices, key=lambda name: lacking[name])
        splits[part] += members[group]
        lacking[part] -= len(members[group])
    return {part: sorted(stems) for part, stems in splits.items()}


def write_splits(
    path: Path | str,
    splits: Mapping[str, Sequence[str]],
    options: Mapping[str, Any],
    groups: Mapping[str, str] | None = None,
    missing: Sequence[str] | None = None,
) -> None:
    """Write splits as JSON with the options that made them and a hash of the lists, atomically.

    Args:
        path: file to write.
        splits: stems by part.
        options: what made them, for the reader's information.
        groups: group of each stem, where images were dealt by groups.
        missing: stems that were asked for and are not there.
    """
    document: dict[str, Any] = {
        "format": "bccd_d2 splits 1",
        "options": dict(options),
        "sha256": splits_hash(splits),
        **{part: list(splits.get(part, ())) for part in PARTS},
    }
    if groups:
        document["groups"] = dict(sorted(groups.items()))
    if missing:
        document["missing"] = list(missing)
    write_json(Path(path), document)


def read_splits(path: Path | str) -> Splits:
    """Read a split file: ours, or lists of ``[image path, mask path]`` as in the report's ``bccd_splits_100.json``.

    Paths are those of another machine; their stems are taken.

    Raises:
        InputError: no JSON, a part that is missing or no list of stems or paths, a stem in two places, or a hash that
            does not agree with the lists.
    """
    document = read_json(path)
    splits: Splits = {}
    for part in PARTS:
        entries = document.get(part) if isinstance(document, Mapping) else None
        if not isinstance(entries, list):
            raise InputError(f"{path}: no list {part!r}, expected lists train, val and test")
        splits[part] = [_stem(entry, path, part) for entry in entries]
    seen: dict[str, str] = {}
    for part, names in splits.items():
        for stem in names:
            if stem in seen:
                raise InputError(f"{path}: {stem!r} is in {seen[stem]} and in {part}, expected it once")
            seen[stem] = part
    written = document.get("sha256")
    if written is not None and written != splits_hash(splits):
        raise InputError(
            f"{path}: its lists do not agree with its sha256; the file was changed after it was written"
        )
    return splits


def splits_hash(splits: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 of which stem is in which part."""
    lines = (f"{part}\t{stem}\n" for part in PARTS for stem in sorted(splits.get(part, ())))
    # Names that are no text come from file systems that do not write UTF-8.
    return hashlib.sha256("".join(lines).encode(errors="surrogatepass")).hexdigest()


def check_ratios(ratios: Sequence[float]) -> None:
    """Raise :class:`InputError` unless ``ratios`` are three shares that add up to 1."""
    if len(ratios) != len(PARTS) or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-6:
        raise InputError(f"split ratios {tuple(ratios)}, expected three shares that add up to 1")


def part_sizes(total: int, ratios: Sequence[float]) -> list[int]:
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


def _stem(entry: Any, path: Path | str, part: str) -> str:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, list) and entry and isinstance(entry[0], str):
        # Backslashes too: the other machine may have been one with Windows.
        name = entry[0].replace("\\", "/").rsplit("/", 1)[-1]
        return name.rsplit(".", 1)[0] if "." in name.lstrip(".") else name
    raise InputError(f"{path}: {part}: {str(entry)[:60]!r}, expected a stem or [image path, mask path]")


def read_image_sets(folder: Path | str) -> dict[str, str]:
    """Official part of each stem from VOC's lists ``train.txt``, ``val.txt`` and ``test.txt``.

    Args:
        folder: usually ``ImageSets/Main``; one stem per line, which may hold spaces. A list may be absent.

    Raises:
        InputError: there is no list, none names an image, a list is not UTF-8, or a stem is in two lists.
    """
    folder = Path(folder)
    part_of: dict[str, str] = {}
    for part in PARTS:
        path = folder / f"{part}.txt"
        if not path.is_file():
            continue
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 ({error}), expected one stem per line") from error
        for stem in filter(None, map(str.strip, lines)):
            if part_of.setdefault(stem, part) != part:
                raise InputError(f"{path}: {stem!r} is in {part_of[stem]}.txt too, expected one part")
    if not part_of:
        names = ", ".join(f"{part}.txt" for part in PARTS)
        raise InputError(f"{folder}: no image named in lists {names}; expected one stem per line")
    return part_of
