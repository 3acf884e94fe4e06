"""The audit as one JSON document: every number the page shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

import bccd_d2
from bccd_d2.audit.issues import WEIGHTS, ImageIssues, Kind
from bccd_d2.audit.measure import ImageMeasures
from bccd_d2.audit.similar import SimilarPair
from bccd_d2.audit.words import KINDS, cut_cells, issue_sentence, set_findings, summary_sentences
from bccd_d2.errors import InputError
from bccd_d2.structures.cell_size import disc_diameter
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.dataset_files import PARTS

PATTERN = "instances_*.json"
BINS = 40  # of a histogram, at most
UNUSED = "unused"


@dataclass(frozen=True)
class Annotations:
    """The output of a conversion, image by image."""

    parts: dict[str, str]  # part (``train``, ``val``, ``test``, ...) by ``file_name``
    # number of instances by class name, by ``file_name``; without regions to ignore
    classes: dict[str, Counter[str]]
    names: list[str]  # names of all categories, in the order of their ids


def read_annotations(folder: Path | str) -> Annotations:
    """Read the COCO files of a conversion in its output folder, or the folder ``annotations`` there. Raises
    InputError where there are none, one is no valid COCO document, or an image is in two parts.
    """
    folder = Path(folder)
    inner = folder / "annotations"
    files = sorted((inner if inner.is_dir() else folder).glob(PATTERN))
    if not files:
        raise InputError(f"{folder}: no annotations/{PATTERN}, expected the output of tools/convert_bccd.py")
    parts: dict[str, str] = {}
    classes: dict[str, Counter[str]] = {}
    all_names: dict[int, str] = {}
    for path in files:
        part = path.stem.removeprefix("instances_")
        document = read_coco(path)
        names = {category["id"]: category["name"] for category in document["categories"]}
        all_names.update(names)
        images = {image["id"]: image["file_name"] for image in document["images"]}
        for file_name in images.values():
            if file_name in parts:
                raise InputError(f"{path}: {file_name!r} is in {parts[file_name]} too, expected one part")
            parts[file_name], classes[file_name] = part, Counter()
        for annotation in document["annotations"]:
            if not annotation.get("iscrowd"):
                classes[images[annotation["image_id"]]][names[annotation["category_id"]]] += 1
    return Annotations(parts, classes, [all_names[number] for number in sorted(all_names)])


def build_document(
    name: str,
    measures: Sequence[ImageMeasures],
    issues: Sequence[ImageIssues],
    similar: Sequence[SimilarPair],
    groups: Mapping[str, str],
    *,
    mask_classes: Sequence[str] = (),
    annotations: Annotations | None = None,
    faults: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    worst: int = 12,
) -> dict[str, Any]:
    """Put everything together, as valid JSON; docs/audit.md lists its keys.

    ``measures`` and ``issues`` are one per image, in the same order; ``similar`` holds pairs by position among
    them, ``groups`` the stain group by stem, ``mask_classes`` the names of classes that masks hold, numbered from
    1; ``worst`` is the number of images to name.
    """
    if annotations is not None:
        part_of = {m.stem: annotations.parts.get(m.file_name, UNUSED) for m in measures}
    else:
        part_of = {m.stem: m.part for m in measures if m.part is not None}
    images = [
        _image(m, v, part_of.get(m.stem), groups.get(m.stem), _classes(m, mask_classes, annotations))
        for m, v in zip(measures, issues)
    ]
    ranked = sorted((i for i, found in enumerate(issues) if found.score > 0), key=lambda i: -issues[i].score)
    document: dict[str, Any] = {
        "format": "bccd_d2 audit 2",
        "version": bccd_d2.__version__,
        "name": name,
        "options": dict(options or {}),
        "files": _files(measures, annotations),
        "parts": _in_order(Counter(part_of.values())),
        "cells": _cells(measures),
        "findings": [_finding(kind, measures, issues) for kind in KINDS],
        "classes": _class_table(images),
        "similar": {"pairs": [_similar(pair, measures, part_of) for pair in similar]},
        "stains": _stains(images),
        "worst": [images[i]["stem"] for i in ranked[:worst]],
        "images": images,
        "faults": list(faults),
    }
    document["set_findings"] = set_findings(document)
    return {"summary": summary_sentences(document), **document}


def _in_order(parts: Counter[str]) -> dict[str, int]:
    """train, val and test first, any others after them."""
    return {part: parts[part] for part in (*PARTS, *sorted(set(parts) - set(PARTS))) if parts[part]}


def _classes(
    measures: ImageMeasures, mask_classes: Sequence[str], annotations: Annotations | None
) -> dict[str, int]:
    if annotations is not None and len(annotations.names) > 1:
        found = annotations.classes.get(measures.file_name, Counter())
        return {name: found[name] for name in annotations.names}
    if measures.classes is not None:
        counted = Counter(measures.classes)
        return {name: counted[index] for index, name in enumerate(mask_classes, start=1)}
    return {}


def _image(
    measures: ImageMeasures, found: ImageIssues, part: str | None, group: str | None, classes: dict[str, int]
) -> dict[str, Any]:
    colours, solidities = measures.colours, measures.cells.solidities
    return {
        "stem": measures.stem,
        "file": measures.file_name,
        "part": part,
        "stain": group,
        "width": measures.width,
        "height": measures.height,
        "format": measures.image_format,
        "cells": len(measures.cells),
        "border_cells": int(measures.cells.border.sum()),
        "typical_area": _plain(found.typical_area),
        "median_solidity": _plain(np.median(solidities) if len(solidities) else math.nan, 4),
        "classes": classes,
        "found": found.counts,
        "empty": found.empty,
        "misfit": found.misfit,
        "separation": _plain(colours.separation, 4),
        "score": _plain(found.score, 4),
        "why": issue_sentence(found, len(measures.cells)),
        "lab": {
            key: [_plain(value, 2) for value in getattr(colours, key)]
            for key in ("cell_mean", "cell_std", "background_mean", "background_std")
        },
        "issues": [
            {"kind": one.kind, "bbox": list(one.box), "area": one.area, "why": one.why}
            for one in found.issues
        ],
    }


def _files(measures: Sequence[ImageMeasures], annotations: Annotations | None) -> dict[str, Any]:
    kinds = Counter((m.image_format, m.mask_format, m.width, m.height) for m in measures)
    known = {m.file_name for m in measures}
    return {
        "images": len(measures),
        "kinds": [
            {"image_format": image, "mask_format": mask, "width": width, "height": height, "images": found}
            for (image, mask, width, height), found in kinds.most_common()
        ],
        "annotated_but_absent": sorted(set(annotations.parts) - known) if annotations else [],
    }


def _cells(measures: Sequence[ImageMeasures]) -> dict[str, Any]:
    areas = np.concatenate([m.cells.areas for m in measures]) if measures else np.empty(0, np.int64)
    diameters = disc_diameter(areas)
    per_image = np.array([len(m.cells) for m in measures])
    return {
        "total": len(areas),
        "border": int(sum(m.cells.border.sum() for m in measures)),
        "per_image": {**_quantiles(per_image), "histogram": _histogram(per_image)},
        "area": {**_quantiles(areas), "histogram": _histogram(areas)},
        "diameter": {**_quantiles(diameters), "histogram": _histogram(diameters)},
    }


def _finding(kind: Kind, measures: Sequence[ImageMeasures], issues: Sequence[ImageIssues]) -> dict[str, Any]:
    found = sum(v.counts[kind] for v in issues)
    cells = sum(len(m.cells) for m in measures)
    words = KINDS[kind]
    meaning = words.meaning
    if kind == "cut_unlabelled":
        meaning = cut_cells(int(sum(m.cells.border.sum() for m in measures)), found) + meaning
    return {
        "kind": kind,
        "title": words.title,
        "count": found,
        "per_100_cells": _plain(100 * found / cells, 2) if cells else None,
        "images": sum(v.counts[kind] > 0 for v in issues),
        "weight": WEIGHTS[kind],
        "meaning": meaning,
        "advice": words.advice,
    }


def _class_table(images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    table: dict[str, Counter[str]] = {}
    for image in images:
        for name, found in image["classes"].items():
            table.setdefault(name, Counter())[image["part"] or "all"] += found
    return [
        {"name": name, "total": sum(parts.values()), "parts": dict(parts)} for name, parts in table.items()
    ]


def _similar(
    pair: SimilarPair, measures: Sequence[ImageMeasures], part_of: Mapping[str, str]
) -> dict[str, Any]:
    stems = [measures[number].stem for number in (pair.first, pair.second)]
    parts = [part_of.get(stem) for stem in stems]
    return {
        "images": stems,
        "parts": parts,
        "across_parts": None not in parts and parts[0] != parts[1] and UNUSED not in parts,
        "similarity": _plain(pair.similarity, 3),
        "how": pair.how,
        "orientation": pair.orientation,
    }


def _stains(images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for image in images:
        if image["stain"] is not None:
            groups.setdefault(image["stain"], []).append(image)
    return [
        {
            "name": name,
            "images": len(members),
            "cells": sum(image["cells"] for image in members),
            "parts": _in_order(Counter(image["part"] for image in members if image["part"])),
            "cell_lab": _mean_lab(members, "cell_mean"),
            "background_lab": _mean_lab(members, "background_mean"),
            "example": members[0]["stem"],
            "stems": [image["stem"] for image in members],
        }
        for name, members in groups.items()
    ]


def _mean_lab(members: Sequence[Mapping[str, Any]], key: str) -> list[float | None]:
    known = [image["lab"][key] for image in members if None not in image["lab"][key]]
    return [_plain(value, 2) for value in np.mean(known, axis=0)] if known else [None, None, None]


def _quantiles(values: NDArray) -> dict[str, float | None]:
    shares = {"min": 0.0, "p05": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
    if not len(values):
        return dict.fromkeys(shares)
    return {key: _plain(value, 2) for key, value in zip(shares, np.quantile(values, list(shares.values())))}


def _histogram(values: NDArray) -> dict[str, Any]:
    """Counts between round edges; ``beyond`` counts outliers above the last edge."""
    if not len(values):
        return {"edges": [], "counts": [], "beyond": 0}
    high = float(np.quantile(values, 0.998)) if len(values) > 500 else float(values.max())
    edges = MaxNLocator(BINS).tick_values(0, max(high, 1))
    inside = values[values <= edges[-1]]
    return {
        "edges": [round(float(edge), 6) for edge in edges],
        "counts": np.histogram(inside, edges)[0].tolist(),
        "beyond": len(values) - len(inside),
    }


def _plain(value: float, decimals: int = 1) -> float | None:
    """Rounded, and ``None`` for what is not a number, which JSON cannot hold."""
    return round(float(value), decimals) if math.isfinite(value) else None
