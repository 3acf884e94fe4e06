"""The audit from end to end: a folder of pairs in, one page and one JSON out."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bccd_d2.audit.annotations import Annotations, read_annotations
from bccd_d2.audit.document import build_document
from bccd_d2.audit.measure import ImageMeasures, measure_pair
from bccd_d2.audit.page import render_page
from bccd_d2.audit.pictures import PictureOrder, Pictures, draw_pictures
from bccd_d2.audit.similar import find_similar
from bccd_d2.audit.verdicts import Suspect, Verdict, judge, typical_areas
from bccd_d2.audit.words import KINDS
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.layout import ImageMaskPair, find_pairs
from bccd_d2.conversion.pool import map_in_order
from bccd_d2.conversion.staging import staged_output
from bccd_d2.conversion.stain_clusters import cluster_stains
from bccd_d2.errors import InputError

PAGE_FILE, JSON_FILE = "audit.html", "audit.json"
DETAILS = 8
"""Examples shown of each kind of finding."""
SHOWN_PAIRS = 12
"""Pairs of similar images shown as pictures; the JSON lists all."""
STAIN_CLUSTERS = 8
IMAGES_PER_CLUSTER = 4


@dataclass(frozen=True)
class AuditOptions:
    """What a user may choose.

    Attributes:
        spec: layout of the data, meaning of the masks, how instances are made.
        worst: how many images to show.
        stain_clusters: number of groups of alike stain; ``None``: 8, fewer where there are few images.
        max_images: look at no more than this many images, taken at even distances.
        name: of the data set, for the page; ``None``: that of its folder.
    """

    spec: DatasetSpec = field(default_factory=DatasetSpec)
    worst: int = 12
    stain_clusters: int | None = None
    max_images: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.worst < 0:
            raise InputError(f"worst {self.worst}, expected 0 or more images")
        if self.stain_clusters is not None and self.stain_clusters < 2:
            raise InputError(f"stain_clusters {self.stain_clusters}, expected at least 2")
        if self.max_images is not None and self.max_images < 1:
            raise InputError(f"max_images {self.max_images}, expected at least 1")


def audit_dataset(
    root: Path | str,
    out: Path | str,
    options: AuditOptions | None = None,
    *,
    coco: Path | str | None = None,
    workers: int = 1,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Audit all pairs below ``root``; write ``out/audit.html`` and ``out/audit.json``.

    Args:
        root: data root, see :func:`bccd_d2.conversion.layout.find_pairs`.
        out: output folder; both files appear together at the end or, on any failure, not at all.
        options: see :class:`AuditOptions`.
        coco: output folder of tools/convert_bccd.py, for parts and classes.
        workers: processes.
        overwrite: replace an earlier audit.

    Returns:
        The content of the JSON.

    Raises:
        InputError: there is no pair that can be used, or the output exists. Single bad files are listed instead.
    """
    root, out, options = Path(root), Path(out), options or AuditOptions()
    with staged_output(out, [PAGE_FILE, JSON_FILE], overwrite=overwrite) as staging:
        annotations = read_annotations(coco) if coco is not None else None
        faults: list[str] = []
        pairs = _thinned(find_pairs(root, faults, options.spec.folders), options.max_images)
        measured = _measure(pairs, root, options, workers, faults)
        if not measured:
            raise InputError(f"{root}: no usable pair; first fault: {faults[0]}")
        measures = [measures for _, measures in measured]
        verdicts = [judge(m, area) for m, area in zip(measures, typical_areas(measures))]
        similar = find_similar([m.fingerprint for m in measures], progress=True)
        document = build_document(
            options.name or root.resolve().name,
            measures,
            verdicts,
            similar,
            _stain_groups(measures, options),
            mask_classes=options.spec.mask.class_names,
            annotations=_checked(annotations, measures, coco),
            faults=[fault.replace(f"{root}{os.sep}", "") for fault in faults],
            options=asdict(options),
            worst=options.worst,
        )
        orders = _orders([pair for pair, _ in measured], verdicts, document)
        pictures = _draw(orders, options.spec, workers)
        (staging / PAGE_FILE).write_text(render_page(document, pictures), encoding="utf-8")
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        (staging / JSON_FILE).write_text(text, encoding="utf-8")
    return document


def _thinned(pairs: list[ImageMaskPair], most: int | None) -> list[ImageMaskPair]:
    if most is None or most >= len(pairs):
        return pairs
    return [pairs[int(index)] for index in np.linspace(0, len(pairs) - 1, most)]


def _measure(
    pairs: Sequence[ImageMaskPair], root: Path, options: AuditOptions, workers: int, faults: list[str]
) -> list[tuple[ImageMaskPair, ImageMeasures]]:
    results = map_in_order(partial(measure_pair, root=root, spec=options.spec), pairs, workers)
    measured = []
    for pair, result in zip(pairs, tqdm(results, "measure", len(pairs), unit="image", disable=None)):
        if isinstance(result, str):
            faults.append(result)
        else:
            measured.append((pair, result))
    return measured


def _checked(
    annotations: Annotations | None, measures: Sequence[ImageMeasures], coco: Path | str | None
) -> Annotations | None:
    if annotations is not None and not any(m.file_name in annotations.parts for m in measures):
        example = next(iter(annotations.parts), "no image at all")
        raise InputError(
            f"{coco}: lists {example!r}, but none of its images is among those found "
            f"(such as {measures[0].file_name!r}); expected a conversion of the same --root"
        )
    return annotations


def _stain_groups(measures: Sequence[ImageMeasures], options: AuditOptions) -> dict[str, str]:
    fitting = min(STAIN_CLUSTERS, max(2, len(measures) // IMAGES_PER_CLUSTER))
    return cluster_stains(
        {m.stem: m.stain for m in measures},
        {m.stem: (m.height, m.width) for m in measures},
        options.stain_clusters or fitting,
    )


def _orders(
    pairs: Sequence[ImageMaskPair], verdicts: Sequence[Verdict], document: Mapping[str, Any]
) -> list[PictureOrder]:
    """What to draw, by image: the worst, the most telling example of each finding, stains and similar images."""
    worst = set(document["worst"])
    shown = [pair["images"] for pair in document["similar"]["pairs"][:SHOWN_PAIRS]]
    plain = {stem for stems in shown for stem in stems} | {group["example"] for group in document["stains"]}
    details: dict[str, list[Suspect]] = {}
    for kind in KINDS:
        for stem, suspect in _examples(kind, pairs, verdicts):
            details.setdefault(stem, []).append(suspect)
    orders = []
    for pair, verdict in zip(pairs, verdicts):
        stem = pair.stem
        if stem in worst or stem in plain or stem in details:
            orders.append(
                PictureOrder(
                    pair,
                    verdict.suspects,
                    verdict.typical_area,
                    outlined=stem in worst,
                    plain=stem in plain,
                    details=tuple(details.get(stem, ())),
                )
            )
    return orders


def _examples(
    kind: str, pairs: Sequence[ImageMaskPair], verdicts: Sequence[Verdict]
) -> list[tuple[str, Suspect]]:
    """One suspect of a kind in each of the images that have most of them: the largest, or the likeliest pair."""
    found = []
    for pair, verdict in zip(pairs, verdicts):
        suspects = [suspect for suspect in verdict.suspects if suspect.kind == kind]
        aim = 2 * verdict.typical_area if kind == "merged" else math.inf
        if suspects:
            suspects.sort(key=lambda suspect: (abs(suspect.area - aim), -suspect.area))
            found.append((len(suspects), pair.stem, suspects[0]))
    found.sort(key=lambda entry: (-entry[0], entry[1]))
    return [(stem, suspect) for _, stem, suspect in found[:DETAILS]]


def _draw(orders: Sequence[PictureOrder], spec: DatasetSpec, workers: int) -> dict[str, Pictures]:
    results = map_in_order(partial(draw_pictures, spec=spec), orders, workers)
    pictures = {}
    for drawn in tqdm(results, "draw", len(orders), unit="image", disable=None):
        if isinstance(drawn, str):  # it could be read a moment ago
            raise InputError(f"changed during the audit: {drawn}")
        pictures[drawn.stem] = drawn
    return pictures
