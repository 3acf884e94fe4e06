"""Audit a data set: image and mask pairs in, one HTML page and one JSON file out."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bccd_d2.audit.document import build_document, read_annotations
from bccd_d2.audit.issues import find_issues, typical_areas
from bccd_d2.audit.measure import ImageMeasures, measure_pair
from bccd_d2.audit.page import render_page
from bccd_d2.audit.pictures import PictureOrder, Pictures, draw_pictures, picture_orders
from bccd_d2.audit.similar import find_similar
from bccd_d2.conversion.dataset_spec import DatasetSpec, ImageMaskPair, find_pairs
from bccd_d2.conversion.stain_clusters import cluster_stains
from bccd_d2.errors import InputError
from bccd_d2.files import staged_output
from bccd_d2.parallel import map_in_order

PAGE_FILE, JSON_FILE = "audit.html", "audit.json"
STAIN_CLUSTERS = 8
IMAGES_PER_CLUSTER = 4


@dataclass(frozen=True)
class AuditOptions:
    """Options of an audit."""

    # Layout of the data, meaning of the masks, how instances are made.
    spec: DatasetSpec = field(default_factory=DatasetSpec)
    worst: int = 12  # number of images to show
    stain_clusters: int | None = None  # number of groups of similar stain; ``None``: 8, fewer for few images
    max_images: int | None = None  # limit of the number of images, taken at even distances
    name: str | None = None  # of the data set, for the page; ``None``: that of its folder

    def __post_init__(self) -> None:
        for name, least in (("worst", 0), ("stain_clusters", 2), ("max_images", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} {value}, expected at least {least}")


def audit_dataset(
    root: Path | str,
    out: Path | str,
    options: AuditOptions | None = None,
    *,
    coco: Path | str | None = None,
    workers: int = 1,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Audit all pairs below ``root``; write ``out/audit.html`` and ``out/audit.json``, whose content is returned.
    Both appear together at the end or, on any failure, not at all.

    ``coco`` is the output folder of tools/convert_bccd.py, for parts and classes. Raises InputError if there is no
    usable pair, or the output exists; single bad files are listed instead.
    """
    root, out, options = Path(root), Path(out), options or AuditOptions()
    with staged_output(out, [PAGE_FILE, JSON_FILE], overwrite=overwrite) as staging:
        annotations = read_annotations(coco) if coco is not None else None
        faults: list[str] = []
        pairs = find_pairs(root, faults, options.spec.folders)
        if options.max_images is not None and options.max_images < len(pairs):
            pairs = [pairs[int(i)] for i in np.linspace(0, len(pairs) - 1, options.max_images)]
        pairs, measures = _measure(pairs, root, options.spec, workers, faults)
        if not measures:
            raise InputError(f"{root}: no usable pair; first fault: {faults[0]}")
        if annotations is not None and not any(m.file_name in annotations.parts for m in measures):
            raise InputError(
                f"{coco}: lists {next(iter(annotations.parts), 'no image at all')!r}, but none of its images is among "
                f"those found (such as {measures[0].file_name!r}); expected a conversion of the same --root"
            )
        issues = [find_issues(m, area) for m, area in zip(measures, typical_areas(measures))]
        document = build_document(
            options.name or root.resolve().name,
            measures,
            issues,
            find_similar([m.fingerprint for m in measures], progress=True),
            cluster_stains(
                {m.stem: m.stain for m in measures},
                {m.stem: (m.height, m.width) for m in measures},
                options.stain_clusters or min(STAIN_CLUSTERS, max(2, len(measures) // IMAGES_PER_CLUSTER)),
            ),
            mask_classes=options.spec.mask.class_names,
            annotations=annotations,
            faults=[fault.replace(f"{root}{os.sep}", "") for fault in faults],
            options=asdict(options),
            worst=options.worst,
        )
        pictures = _draw(picture_orders(pairs, issues, document), options.spec, workers)
        (staging / PAGE_FILE).write_text(render_page(document, pictures), encoding="utf-8")
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        (staging / JSON_FILE).write_text(text, encoding="utf-8")
    return document


def _measure(
    pairs: Sequence[ImageMaskPair], root: Path, spec: DatasetSpec, workers: int, faults: list[str]
) -> tuple[list[ImageMaskPair], list[ImageMeasures]]:
    """Usable pairs and their measurements; the others are added to ``faults``."""
    results = map_in_order(partial(measure_pair, root=root, spec=spec), pairs, workers)
    usable, measures = [], []
    for pair, result in zip(pairs, tqdm(results, "measure", len(pairs), unit="image", disable=None)):
        if isinstance(result, str):
            faults.append(result)
        else:
            usable.append(pair)
            measures.append(result)
    return usable, measures


def _draw(orders: Sequence[PictureOrder], spec: DatasetSpec, workers: int) -> dict[str, Pictures]:
    results = map_in_order(partial(draw_pictures, spec=spec), orders, workers)
    pictures = {}
    for drawn in tqdm(results, "draw", len(orders), unit="image", disable=None):
        if isinstance(drawn, str):
            raise InputError(f"changed during the audit: {drawn}")
        pictures[drawn.stem] = drawn
    return pictures
