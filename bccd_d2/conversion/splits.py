"""Which image is used for training, validation and testing: divided by a plan, written, read."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bccd_d2.conversion.convert_image import read_pair_mask
from bccd_d2.conversion.pairs import ImageMaskPair, list_names
from bccd_d2.conversion.stain_clusters import cluster_stains, stain_features
from bccd_d2.errors import InputError
from bccd_d2.files import read_json, read_lines, write_json
from bccd_d2.io.images import read_image
from bccd_d2.io.masks import MaskRule
from bccd_d2.parallel import map_files
from bccd_d2.segmentation.background import find_foreground
from bccd_d2.structures.dataset_files import PARTS
from bccd_d2.structures.names import match_images

logger = logging.getLogger(__name__)
SplitMode = Literal["random", "official", "prefix", "table", "stain", "file"]
Splits = dict[str, list[str]]  # stems by part; the parts are ``train``, ``val`` and ``test``, each sorted
STEM_COLUMNS = ("stem", "file_name", "filename", "image", "name")


@dataclass(frozen=True)
class SplitPlan:
    """How images are divided into train, val and test."""

    # ``random``; ``official``: the folders train/ and test/ (and val/, or else a share of train); ``prefix``: by
    # what stands before ``separator`` in the stem; ``table``: by a column of a CSV file; ``stain``: by clusters of
    # alike stain; ``file``: as a split file says
    mode: SplitMode = "random"
    ratios: tuple[float, float, float] = (0.70, 0.15, 0.15)  # shares of train, val and test
    seed: int = 42  # another seed, another split
    max_images: int | None = None  # use no more than this many images
    separator: str = "_"  # for ``prefix``
    path: str | None = None  # of the CSV file for ``table``, of the split file for ``file``
    column: str | None = None  # of the CSV file
    clusters: int = 8  # number of stain clusters

    def __post_init__(self) -> None:
        if len(self.ratios) != len(PARTS) or min(self.ratios) < 0 or abs(sum(self.ratios) - 1) > 1e-6:
            raise InputError(f"split ratios {tuple(self.ratios)}, expected three shares that add up to 1")
        if self.mode == "table" and self.column is None:
            raise InputError("split mode 'table' without a column, expected its name")
        if self.max_images is not None and self.max_images < 1:
            raise InputError(f"max_images {self.max_images}, expected at least 1")


class PlannedSplit(NamedTuple):
    """Stems by part; where there are groups, the group of each stem; stems a split file lists that are not here."""

    splits: Splits
    groups: dict[str, str] | None = None
    missing: list[str] | None = None


def plan_split(
    pairs: Sequence[ImageMaskPair],
    plan: SplitPlan,
    mask_rule: MaskRule | None = None,
    workers: int = 1,
    faults: list[str] | None = None,
) -> PlannedSplit:
    """Divide pairs as the plan says; pairs that are in no part are not used. ``mask_rule`` and ``workers`` are for
    stain clusters, like ``faults``, which takes what is said of files that cannot be read for their stain. Raises
    InputError where the plan does not fit the pairs.
    """
    if plan.mode == "file":
        return _from_file(pairs, plan)
    ordered = deal_order((pair.stem for pair in pairs), plan.seed)[: plan.max_images]
    if plan.mode == "random":
        return PlannedSplit(_deal(ordered, plan.ratios))
    chosen = set(ordered)
    pairs = [pair for pair in pairs if pair.stem in chosen]
    if plan.mode == "official":
        return PlannedSplit(_official(pairs, plan))
    if plan.mode == "stain":
        groups = _groups_by_stain(pairs, plan, mask_rule or MaskRule(), workers, faults)
    elif plan.mode == "table":
        groups = _groups_from_table(pairs, str(plan.path), str(plan.column))
    else:
        groups = _groups_by_prefix(pairs, plan.separator)
    sizes = sorted(Counter(groups.values()).items())
    logger.info("%d groups: %s", len(sizes), ", ".join(f"{name} ({size})" for name, size in sizes))
    return PlannedSplit(_deal_groups(groups, plan), groups)


def deal_order(stems: Iterable[str], seed: int) -> list[str]:
    """Stems in the order of a hash of seed and stem.

    It depends neither on the order of the file system nor on the version of a random generator, and an image that
    joins later does not change the order of the others.
    """
    return sorted(stems, key=lambda stem: (hashlib.sha256(f"{seed}\0{stem}".encode()).digest(), stem))


def _deal(ordered: Sequence[str], ratios: Sequence[float]) -> Splits:
    """Stems by part; sizes by largest remainder, no part with a share empty while there are images for all."""
    exact = [ratio * len(ordered) for ratio in ratios]
    sizes = [int(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(ratios)), key=lambda index: sizes[index] - exact[index])
    for index in by_remainder[: len(ordered) - sum(sizes)]:
        sizes[index] += 1
    for index, ratio in enumerate(ratios):
        largest = sizes.index(max(sizes))
        if ratio > 0 and sizes[index] == 0 and sizes[largest] > 1:
            sizes[index] += 1
            sizes[largest] -= 1
    ends = np.cumsum(sizes).tolist()
    return {part: sorted(ordered[end - size : end]) for part, size, end in zip(PARTS, sizes, ends)}


def _deal_groups(group_of: Mapping[str, str], plan: SplitPlan) -> Splits:
    """Whole groups by part: the largest first, each to the part that lacks most; the seed decides between equals."""
    members: dict[str, list[str]] = {}
    for stem, group in group_of.items():
        members.setdefault(group, []).append(stem)
    wanted = [part for part, ratio in zip(PARTS, plan.ratios) if ratio > 0]
    if len(members) < len(wanted):
        raise InputError(f"{len(members)} groups, expected at least one for each of {', '.join(wanted)}")
    lacking = {part: ratio * len(group_of) for part, ratio in zip(PARTS, plan.ratios)}
    splits: Splits = {part: [] for part in PARTS}
    ordered = sorted(deal_order(members, plan.seed), key=lambda group: -len(members[group]))
    for position, group in enumerate(ordered):
        empty = [part for part in wanted if not splits[part]]
        # The last groups are kept for parts that would stay empty otherwise.
        choices = empty if len(ordered) - position <= len(empty) else wanted
        part = max(choices, key=lambda name: lacking[name])
        splits[part] += members[group]
        lacking[part] -= len(members[group])
    return {part: sorted(stems) for part, stems in splits.items()}


def _official(pairs: Sequence[ImageMaskPair], plan: SplitPlan) -> Splits:
    by_part: Splits = {part: [] for part in PARTS}
    for pair in pairs:
        if pair.part is None:
            raise InputError(
                f"{pair.image}: in no folder train or test and no list of the data set's image_sets, expected one for "
                "an official split"
            )
        by_part[pair.part].append(pair.stem)
    if not by_part["train"]:
        raise InputError("no image in the official part train, expected some for an official split")
    if not by_part["val"] and plan.ratios[1] > 0:
        # val is carved from train in the proportion the two have to each other
        train, val, _ = plan.ratios
        share = val / (train + val)
        by_part |= _deal(deal_order(by_part["train"], plan.seed), (1 - share, share))
    return {part: sorted(stems) for part, stems in by_part.items()}


def _groups_by_prefix(pairs: Sequence[ImageMaskPair], separator: str) -> dict[str, str]:
    lacking = [pair.stem for pair in pairs if separator not in pair.stem]
    if lacking:
        raise InputError(list_names(f"stems without {separator!r}, expected a prefix before it", lacking))
    return {pair.stem: pair.stem.split(separator, 1)[0] for pair in pairs}


def _groups_by_stain(
    pairs: Sequence[ImageMaskPair], plan: SplitPlan, rule: MaskRule, workers: int, faults: list[str] | None
) -> dict[str, str]:
    features: dict[str, NDArray[np.float64]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    measure = partial(_measure_stain, rule=rule)
    for pair, stain in map_files(measure, pairs, workers, "measure stains", faults):
        features[pair.stem], sizes[pair.stem] = stain
    return cluster_stains(features, sizes, plan.clusters)


def _measure_stain(pair: ImageMaskPair, rule: MaskRule) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Stain features and (height, width) of a pair."""
    image = read_image(pair.image, "RGB")
    size = image.shape[:2]
    mask = read_pair_mask(pair, size, rule) if rule.kind != "none" else find_foreground(image)
    return stain_features(image, (mask != 0).view(np.uint8)), size


def _groups_from_table(pairs: Sequence[ImageMaskPair], path: str, column: str) -> dict[str, str]:
    try:
        reader = csv.DictReader(read_lines(Path(path), "a CSV table"))
        rows, header = list(reader), reader.fieldnames or []
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV table ({error})") from error
    stem_column = next((name for name in STEM_COLUMNS if name in header), None)
    for name, wanted in ((column, repr(column)), (stem_column, " or ".join(map(repr, STEM_COLUMNS)))):
        if name not in header:
            raise InputError(f"{path}: columns {', '.join(header) or 'none'}, expected one named {wanted}")
    group_of = {str(row[stem_column]): row[column] for row in rows if row[stem_column] and row[column]}
    stems = [pair.stem for pair in pairs]
    found = match_images(stems, group_of, where=path, required=False)
    lacking = [stem for stem in stems if stem not in found]
    if lacking:
        raise InputError(list_names(f"{path}: no {column!r} for these images", lacking))
    return {stem: group_of[name] for stem, name in found.items()}


def _from_file(pairs: Sequence[ImageMaskPair], plan: SplitPlan) -> PlannedSplit:
    """The file's lists, as far as there are such pairs; says what is missing on either side."""
    listed = read_splits(str(plan.path))
    names = [name for part in PARTS for name in listed[part]]
    found = match_images(names, [pair.stem for pair in pairs], where=str(plan.path), required=False)
    splits = {part: sorted(found[name] for name in listed[part] if name in found) for part in PARTS}
    missing = [name for name in names if name not in found]
    used = set(found.values())
    if not used:
        raise InputError(list_names(f"{plan.path}: none of the images it lists is here", missing))
    if missing:
        headline = f"{plan.path}: images it lists that are not here ({len(missing)})"
        logger.warning("%s", list_names(headline, missing))
    if unlisted := len(pairs) - len(used):
        logger.warning("%s: %d images here are not listed and not used", plan.path, unlisted)
    if plan.max_images is not None:
        kept = set(deal_order(used, plan.seed)[: plan.max_images])
        splits = {part: [stem for stem in stems if stem in kept] for part, stems in splits.items()}
    return PlannedSplit(splits, missing=missing)


def write_splits(path: Path | str, split: PlannedSplit, options: Mapping[str, Any]) -> None:
    """Write a split as JSON with the options that made it and a hash of its lists, atomically."""
    document: dict[str, Any] = {
        "format": "bccd_d2 splits 1",
        "options": dict(options),
        "sha256": splits_hash(split.splits),
        **{part: list(split.splits.get(part, ())) for part in PARTS},
    }
    if split.groups:
        document["groups"] = dict(sorted(split.groups.items()))
    if split.missing:
        document["missing"] = split.missing
    write_json(Path(path), document)


def read_splits(path: Path | str) -> Splits:
    """Read a split file: ours, or lists of ``[image path, mask path]`` of another machine, of which the stems are
    taken. Raises InputError for any other file, a stem in two places, or a hash that does not agree with the lists.
    """
    document = read_json(path)
    splits: Splits = {}
    seen: dict[str, str] = {}
    for part in PARTS:
        entries = document.get(part) if isinstance(document, Mapping) else None
        if not isinstance(entries, list):
            raise InputError(f"{path}: no list {part!r}, expected lists train, val and test")
        splits[part] = [_stem(entry, path, part) for entry in entries]
        for stem in splits[part]:
            if stem in seen:
                raise InputError(f"{path}: {stem!r} is in {seen[stem]} and in {part}, expected it once")
            seen[stem] = part
    if document.get("sha256") not in (None, splits_hash(splits)):
        raise InputError(
            f"{path}: its lists do not agree with its sha256; the file was changed after it was written"
        )
    return splits


def splits_hash(splits: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 of which stem is in which part."""
    lines = (f"{part}\t{stem}\n" for part in PARTS for stem in sorted(splits.get(part, ())))
    # Names that are no text come from file systems that do not write UTF-8.
    return hashlib.sha256("".join(lines).encode(errors="surrogatepass")).hexdigest()


def _stem(entry: Any, path: Path | str, part: str) -> str:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, list) and entry and isinstance(entry[0], str):
        return PureWindowsPath(entry[0]).stem  # which takes both kinds of slashes
    raise InputError(f"{path}: {part}: {str(entry)[:60]!r}, expected a stem or [image path, mask path]")


def read_image_sets(folder: Path | str) -> dict[str, str]:
    """Official part of each stem from VOC's lists ``train.txt``, ``val.txt`` and ``test.txt`` (one may be absent),
    with one stem per line. Raises InputError where none names an image, or a stem is in two.
    """
    part_of: dict[str, str] = {}
    for part in PARTS:
        path = Path(folder) / f"{part}.txt"
        for stem in read_lines(path, "one stem per line") if path.is_file() else []:
            if stem.strip() and part_of.setdefault(stem.strip(), part) != part:
                raise InputError(
                    f"{path}: {stem.strip()!r} is in {part_of[stem.strip()]}.txt too, expected one part"
                )
    if not part_of:
        raise InputError(
            f"{folder}: no image named in lists train.txt, val.txt, test.txt; expected one stem per line"
        )
    return part_of
