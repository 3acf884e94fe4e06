"""What is doubtful about the set as a whole, beside its cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bccd_d2.reporting.pages import number


def set_findings(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Findings about images, files and the split, from the document.

    Returns:
        For each: ``kind``, ``title``, ``count``, ``of`` (what was counted, in words), ``meaning`` and ``advice``.
        Findings that cannot be made (of a split where there is none) are left out.
    """
    images = document["images"]
    found = [
        _row(
            "empty",
            "Masks without a cell",
            sum(image["empty"] for image in images),
            f"{number(len(images))} images",
            "An image full of cells with an empty mask teaches a model to find none.",
            "Outline the cells, or leave the image out.",
        ),
        _row(
            "misfit",
            "Masks that do not fit their image",
            sum(image["misfit"] for image in images),
            f"{number(len(images))} images",
            "Outlines lie where the image shows something else, as if file names had been mixed up.",
            "Look at the pair; leave it out if it is wrong.",
        ),
        _row(
            "similar",
            "Images that show the same field",
            len(document["similar"]["pairs"]),
            "pairs",
            "Copies and overlapping fields make a set look larger than it is.",
            "Keep one of each pair, or keep both in the same part of the split.",
        ),
    ]
    if len(document["parts"]) > 1:
        across = sum(pair["across_parts"] for pair in document["similar"]["pairs"])
        groups = document["stains"]
        shared = sum(len(set(group["parts"]) - {"unused"}) > 1 for group in groups)
        found += [
            _row(
                "leak",
                "The same field on both sides of the split",
                across,
                "pairs",
                "A model is tested on what it was trained on: scores come out too high.",
                "Move both images of a pair to the same part.",
            ),
            _row(
                "shared_stain",
                "Stains on both sides of the split",
                shared,
                f"{number(len(groups))} groups of alike stain",
                "Scores say how a model does on slides it knows, not on the next slide.",
                "Convert with --stain-clusters to keep slides together, and report both figures.",
            ),
        ]
    found.append(
        _row(
            "fault",
            "Files that could not be used",
            len(document["faults"]),
            "files",
            "They are missing from everything on this page.",
            "See the list at the end.",
        )
    )
    absent = len(document["files"]["annotated_but_absent"])
    if absent:
        found.append(
            _row(
                "absent",
                "Annotated images that are not here",
                absent,
                "images",
                "The COCO files name images that the folder does not hold.",
                "Check that both belong together.",
            )
        )
    return found


def _row(kind: str, title: str, count: int, of: str, meaning: str, advice: str) -> dict[str, Any]:
    return {"kind": kind, "title": title, "count": count, "of": of, "meaning": meaning, "advice": advice}
