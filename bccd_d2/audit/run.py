"""Audit a data set: image and mask pairs in, one HTML page and one JSON file out."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bccd_d2.audit.document import build_document, read_annotations
from bccd_d2.audit.issues import find_issues, typical_areas
from bccd_d2.audit.measure import measure_pair
from bccd_d2.audit.page import render_page
from bccd_d2.audit.pictures import draw_pictures, picture_orders
from bccd_d2.audit.similar import find_similar
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.pairs import find_pairs
from bccd_d2.conversion.stain_clusters import cluster_stains
from bccd_d2.errors import InputError
from bccd_d2.files import staged_output
from bccd_d2.parallel import map_files

PAGE_FILE, JSON_FILE = "audit.html", "audit.json"
STAIN_CLUSTERS = 8
IMAGES_PER_CLUSTER = 4


def audit_dataset(
    root: Path,
    out: Path,
    spec: DatasetSpec = DatasetSpec(),  # noqa: B008  frozen
    *,
    worst: int = 12,
    stain_clusters: int | None = None,
    max_images: int | None = None,
    coco: Path | None = None,
    workers: int = 1,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Audit all pairs below ``root``; write ``out/audit.html`` and ``out/audit.json``, whose content is returned. Both
    appear together at the end or, on any failure, not at all.

    ``worst`` is the number of images to show, ``max_images`` of those audited, spread evenly; ``coco`` the output
    folder of tools/convert_bccd.py, for parts and classes. Raises InputError if there is no usable pair, or the output
    exists; single bad files are listed instead.
    """
    for name, value, least in (
        ("worst", worst, 0),
        ("stain_clusters", stain_clusters, 2),
        ("max_images", max_images, 1),
    ):
        if value is not None and value < least:
            raise InputError(f"{name} {value}, expected at least {least}")
    if spec.mask.kind == "none":
        raise InputError(
            f"{root}: the dataset spec knows no masks, which are what is audited; expected another --spec"
        )
    with staged_output(out, [PAGE_FILE, JSON_FILE], overwrite=overwrite) as staging:
        annotations = read_annotations(coco) if coco is not None else None
        faults: list[str] = []
        pairs = find_pairs(root, faults, spec.folders)
        if max_images is not None and max_images < len(pairs):
            pairs = [pairs[int(i)] for i in np.linspace(0, len(pairs) - 1, max_images)]
        measure = partial(measure_pair, root=root, spec=spec)
        usable = list(map_files(measure, pairs, workers, "measure", faults))
        pairs, measures = [pair for pair, _ in usable], [measured for _, measured in usable]
        if not measures:
            raise InputError(f"{root}: no usable pair; first fault: {faults[0]}")
        if annotations is not None and not any(m.file_name in annotations.parts for m in measures):
            raise InputError(
                f"{coco}: lists {next(iter(annotations.parts), 'no image at all')!r}, but none of its images is among "
                f"those found (such as {measures[0].file_name!r}); expected a conversion of the same --root"
            )
        issues = [find_issues(m, area) for m, area in zip(measures, typical_areas(measures))]
        document = build_document(
            root.resolve().name,
            measures,
            issues,
            find_similar([m.fingerprint for m in measures]),
            cluster_stains(
                {m.stem: m.stain for m in measures},
                {m.stem: (m.height, m.width) for m in measures},
                stain_clusters or min(STAIN_CLUSTERS, max(2, len(measures) // IMAGES_PER_CLUSTER)),
            ),
            mask_classes=spec.mask.class_names,
            annotations=annotations,
            faults=[fault.replace(f"{root}{os.sep}", "") for fault in faults],
            options={"spec": asdict(spec), "max_images": max_images},
            worst=worst,
        )
        orders = picture_orders(pairs, issues, document)
        drawn = map_files(partial(draw_pictures, spec=spec), orders, workers, "draw")
        pictures = {order.pair.stem: picture for order, picture in drawn}
        (staging / PAGE_FILE).write_text(render_page(document, pictures), encoding="utf-8")
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        (staging / JSON_FILE).write_text(text, encoding="utf-8")
    return document
