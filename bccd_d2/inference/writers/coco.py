"""COCO JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bccd_d2.inference.results import ImageResult


def coco_dataset(result: ImageResult) -> dict[str, Any]:
    """A COCO data set of one image whose annotations have scores; what reads annotations reads it.

    Holds ``images`` (one, with id 1), ``categories`` (ids from 1 on, in the order of the class names) and
    ``annotations``: ``id``, ``image_id``, ``category_id``, ``bbox`` (xywh, native pixels, the detector's), ``area``
    (pixels of the mask), ``iscrowd`` (0), ``score``, ``segmentation`` (compressed RLE at native size), and for cells
    that have a type ``attributes``: ``type``, ``type_probability``, ``subtype``.
    """
    cells = result.cells
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": category + 1,
            "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
            "area": area,
            "iscrowd": 0,
            "score": round(score, 4),
            "segmentation": rle,
        }
        for number, (category, (x0, y0, x1, y1), area, score, rle) in enumerate(
            zip(
                cells.classes.tolist(),
                cells.boxes.tolist(),
                cells.areas.tolist(),
                cells.scores.tolist(),
                cells.rles(),
            ),
            start=1,
        )
    ]
    if (types := result.types) is not None:
        for annotation, name, probability, subtype in zip(
            annotations, types.names, types.probabilities.tolist(), types.subtypes
        ):
            if name:
                attributes = {"type": name, "type_probability": round(probability, 4), "subtype": subtype}
                annotation["attributes"] = attributes
    image = {"id": 1, "file_name": result.name, "height": cells.height, "width": cells.width}
    categories = [{"id": number, "name": name} for number, name in enumerate(result.class_names, start=1)]
    return {"images": [image], "categories": categories, "annotations": annotations}


def write_coco(result: ImageResult, path: Path) -> None:
    """Write :func:`coco_dataset`."""
    path.write_text(json.dumps(coco_dataset(result), ensure_ascii=False), encoding="utf-8")


def results_entries(dataset: Mapping[str, Any], image_id: int) -> Iterator[dict[str, Any]]:
    """Entries of a COCO results list from a :func:`coco_dataset`, with ``file_name`` and ``category`` (name) added."""
    names = {category["id"]: category["name"] for category in dataset["categories"]}
    for annotation in dataset["annotations"]:
        yield {
            "image_id": image_id,
            "file_name": dataset["images"][0]["file_name"],
            "category_id": annotation["category_id"],
            "category": names[annotation["category_id"]],
            **{
                key: annotation[key]
                for key in ("bbox", "score", "segmentation", "attributes")
                if key in annotation
            },
        }
