"""Ways to divide a data set, from what is known of its images."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bccd_d2.conversion.layout import ImageMaskPair, list_names
from bccd_d2.conversion.splits import (
    PARTS,
    RATIOS,
    SEED,
    Splits,
    check_ratios,
    deal_order,
    read_splits,
    split_groups,
    split_stems,
)
from bccd_d2.conversion.stain_clusters import cluster_stains, stain_features
from bccd_d2.errors import InputError
from bccd_d2.io.background import find_foreground
from bccd_d2.io.images import read_image
from bccd_d2.io.masks import MaskRule, read_mask
from bccd_d2.parallel import map_in_order

logger = logging.getLogger(__name__)
SplitMode = Literal["random", "official", "prefix", "table", "stain", "file"]
SPLIT_MODES: tuple[SplitMode, ...] = ("random", "official", "prefix", "table", "stain", "file")
STEM_COLUMNS = ("stem", "file_name", "filename", "image", "name")


@dataclass(frozen=True)
class SplitPlan:
    """How images are divided into train, val and test.

    Attributes:
        mode: ``random``; ``official``: the folders train/ and test/ (and val/, or else a share of train);
            ``prefix``: by what stands before ``separator`` in the stem; ``table``: by a column of a CSV file;
            ``stain``: by clusters of alike stain; ``file``: as a split file says.
        ratios: shares of train, val and test.
        seed: of the dealing.
        max_images: use no more than this many images.
        separator: for ``prefix``.
        path: of the CSV file for ``table``, of the split file for ``file``.
        column: of the CSV file.
        clusters: number of stain clusters.
    """

    mode: SplitMode = "random"
    ratios: tuple[float, float, float] = RATIOS
    seed: int = SEED
    max_images: int | None = None
    separator: str = "_"
    path: str | None = None
    column: str | None = None
    clusters: int = 8

    def __post_init__(self) -> None:
        check_ratios(self.ratios)
        if self.mode not in SPLIT_MODES:
            raise InputError(f"split mode {self.mode!r}, expected one of {', '.join(SPLIT_MODES)}")
        if self.mode in ("table", "file") and self.path is None:
            raise InputError(f"split mode {self.mode!r} without a file, expected its path")
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
    """Divide pairs as the plan says; pairs that are in no part are not used.

    Args:
        pairs: all there are.
        plan: see :class:`SplitPlan`.
        mask_rule: how masks are read; for stain clusters only.
        workers: processes; for stain clusters only.
        faults: where given, a file that cannot be read for its stain is described here and its pair is not used.

    Raises:
        InputError: the plan does not fit the pairs.
    """
    if plan.mode == "file":
        return _from_file(pairs, plan)
    chosen = set(deal_order((pair.stem for pair in pairs), plan.seed)[: plan.max_images])
    pairs = [pair for pair in pairs if pair.stem in chosen]
    if plan.mode == "random":
        return PlannedSplit(split_stems(chosen, ratios=plan.ratios, seed=plan.seed))
    if plan.mode == "official":
        return PlannedSplit(_official(pairs, plan))
    if plan.mode == "stain":
        groups = _groups_by_stain(pairs, plan, mask_rule or MaskRule(), workers, faults)
    else:
        groups = _groups_by_name(pairs, plan)
    sizes = Counter(groups.values())
    logger.info(
        "%d groups: %s", len(sizes), ", ".join(f"{name} ({size})" for name, size in sorted(sizes.items()))
    )
    return PlannedSplit(split_groups(groups, ratios=plan.ratios, seed=plan.seed), groups)


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
        carved = split_stems(by_part["train"], ratios=(1 - share, share, 0), seed=plan.seed)
        by_part["train"], by_part["val"] = carved["train"], carved["val"]
    return {part: sorted(stems) for part, stems in by_part.items()}


def _groups_by_name(pairs: Sequence[ImageMaskPair], plan: SplitPlan) -> dict[str, str]:
    if plan.mode == "table":
        return _groups_from_table(pairs, str(plan.path), str(plan.column))
    lacking = [pair.stem for pair in pairs if plan.separator not in pair.stem]
    if lacking:
        raise InputError(
            list_names(f"stems without {plan.separator!r}, expected a prefix before it", lacking)
        )
    return {pair.stem: pair.stem.split(plan.separator, 1)[0] for pair in pairs}


def _groups_by_stain(
    pairs: Sequence[ImageMaskPair], plan: SplitPlan, rule: MaskRule, workers: int, faults: list[str] | None
) -> dict[str, str]:
    features: dict[str, NDArray[np.float64]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    results = map_in_order(partial(_measure_stain, rule=rule), pairs, workers)
    for pair, stain in zip(pairs, tqdm(results, "measure stains", len(pairs), unit="image", disable=None)):
        if not isinstance(stain, str):
            features[pair.stem], sizes[pair.stem] = stain
        elif faults is None:
            raise InputError(stain)
        else:
            faults.append(stain)
    return cluster_stains(features, sizes, plan.clusters)


def _measure_stain(pair: ImageMaskPair, rule: MaskRule) -> tuple[NDArray[np.float64], tuple[int, int]] | str:
    """Stain features and size of a pair, or what is wrong with it."""
    try:
        image = read_image(pair.image, "RGB")
        mask = read_mask(pair.mask, rule).array if rule.kind != "none" else find_foreground(image)
    except (InputError, OSError) as error:
        return str(error)
    height, width = mask.shape
    if image.shape[:2] != (height, width):
        return f"{pair.mask}: mask of {width}x{height} pixels, expected {image.shape[1]}x{image.shape[0]}"
    return stain_features(image, (mask != 0).view(np.uint8)), (height, width)


def _groups_from_table(pairs: Sequence[ImageMaskPair], path: str, column: str) -> dict[str, str]:
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows, header = list(reader), reader.fieldnames or []
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, expected a CSV table") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV table in UTF-8 ({error})") from error
    stem_column = next((name for name in STEM_COLUMNS if name in header), None)
    for name, wanted in ((column, repr(column)), (stem_column, " or ".join(map(repr, STEM_COLUMNS)))):
        if name not in header:
            raise InputError(f"{path}: columns {', '.join(header) or 'none'}, expected one named {wanted}")
    group_of = {Path(str(row[stem_column])).stem: row[column] for row in rows if row[stem_column]}
    lacking = [pair.stem for pair in pairs if not group_of.get(_last(pair.stem))]
    if lacking:
        raise InputError(list_names(f"{path}: no {column!r} for these images", lacking))
    return {pair.stem: str(group_of[_last(pair.stem)]) for pair in pairs}


def _from_file(pairs: Sequence[ImageMaskPair], plan: SplitPlan) -> PlannedSplit:
    """The file's lists, as far as there are such pairs; says what is missing on either side."""
    listed = read_splits(str(plan.path))
    by_stem = {pair.stem: pair.stem for pair in pairs}
    counts = Counter(_last(pair.stem) for pair in pairs)
    by_stem.update({_last(pair.stem): pair.stem for pair in pairs if counts[_last(pair.stem)] == 1})
    splits = {part: sorted(by_stem[stem] for stem in listed[part] if stem in by_stem) for part in PARTS}
    missing = [stem for part in PARTS for stem in listed[part] if stem not in by_stem]
    used = {stem for stems in splits.values() for stem in stems}
    if not used:
        raise InputError(list_names(f"{plan.path}: none of the images it lists is here", missing))
    if missing:
        logger.warning(
            "%s", list_names(f"{plan.path}: images it lists that are not here ({len(missing)})", missing)
        )
    unlisted = len(pairs) - len(used)
    if unlisted:
        logger.warning("%s: %d images here are not listed and not used", plan.path, unlisted)
    if plan.max_images is not None:
        kept = set(deal_order(used, plan.seed)[: plan.max_images])
        splits = {part: [stem for stem in stems if stem in kept] for part, stems in splits.items()}
    return PlannedSplit(splits, missing=missing)


def _last(stem: str) -> str:
    return stem.rsplit("/", 1)[-1]
