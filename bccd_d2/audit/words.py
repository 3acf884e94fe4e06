"""The findings of an audit in plain English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bccd_d2.audit.issues import ImageIssues, Kind
from bccd_d2.drawing.pages import count, join, number


class KindWords(NamedTuple):
    """Words for a kind of issue."""

    title: str  # heading
    one: str  # follows the number 1
    many: str  # follows any other number
    meaning: str  # effect on a model
    advice: str  # what helps


KINDS: Mapping[Kind, KindWords] = {
    "merged": KindWords(
        "Several cells in one outline",
        "outline seems to hold more than one cell",
        "outlines seem to hold more than one cell",
        "Counts come out too low, and a model learns that a pair of cells is one cell.",
        "Separate them by a line of 1 to 3 pixels in the mask, or try --cut-touching when converting.",
    ),
    "unlabelled": KindWords(
        "Cells without an outline",
        "place looks like a cell without an outline",
        "places look like cells without an outline",
        "A model that finds them is told it is wrong; measured precision comes out too low.",
        "Outline them, or convert with --ignore-unlabelled.",
    ),
    "cut_unlabelled": KindWords(
        "Cut cells without an outline",
        "cell cut by the image border has no outline",
        "cells cut by the image border have no outline",
        "Whichever way a model treats cut cells, it is told it is wrong.",
        "Choose one rule for cut cells; --ignore-unlabelled leaves these out of training and scores.",
    ),
    "faint": KindWords(
        "Outlines around nothing",
        "outline lies where the image shows background",
        "outlines lie where the image shows background",
        "A model learns to find cells on the background.",
        "Remove them, or check that the mask belongs to this image.",
    ),
    "fragment": KindWords(
        "Outlines far too small",
        "outline is far too small for a cell",
        "outlines are far too small for a cell",
        "Fragments count as cells and lower the scores of small objects.",
        "Remove them, or raise --min-area-relative to 0.2.",
    ),
    "speck": KindWords(
        "Specks",
        "speck of a few pixels",
        "specks of a few pixels",
        "None, as long as the conversion drops them, which is the default.",
        "Erase them in the mask if other programs use it.",
    ),
}


def issue_sentence(found: ImageIssues, cells: int) -> str:
    """The issues of an image in one or two sentences; ``No issue found.`` if there is none."""
    if found.empty:
        specks = count(found.counts["speck"], "speck", "specks")
        return f"The mask holds {specks} and no cell." if found.counts["speck"] else "The mask is empty."
    sentences = []
    if found.misfit:
        sentences.append("The mask does not follow the image; it may belong to another one.")
    parts = [
        count(found.counts[kind], words.one, words.many)
        for kind, words in KINDS.items()
        if found.counts[kind]
    ]
    if parts:
        sentences.append(f"{join(parts)}, of {count(cells, 'outlined cell', 'outlined cells')}.")
    return " ".join(sentences) or "No issue found."


def cut_cells(outlined: int, missing: int) -> str:
    """Numbers of cut cells with and without an outline; empty if all are alike."""
    if not outlined or not missing:
        return ""
    return f"{number(outlined)} cut cells have an outline, {number(missing)} have none. "


def summary_sentences(document: Mapping[str, Any]) -> list[str]:
    """The audit in a few sentences, from its finished document."""
    images, cells = document["files"]["images"], document["cells"]
    if not cells["total"]:
        return [f"{count(images, 'image', 'images')} without a single outlined cell."]
    low, middle, high = (number(cells["per_image"][key]) for key in ("min", "median", "max"))
    shown = f"{count(images, 'image shows', 'images show')} {count(cells['total'], 'outlined cell', 'outlined cells')}"
    spread = f", {low} to {high} per image and {middle} on a typical one" if images > 1 else ""
    sentences = [
        f"{shown}{spread}.",
        f"A typical cell is {number(cells['diameter']['median'])} pixels across.",
        _masks(document),
        _issues(document),
        _copies(document),
    ]
    faults = len(document["faults"])
    if faults:
        what = count(faults, "file could not be used and is", "files could not be used and are")
        sentences.append(f"{what} listed at the end.")
    return [sentence for sentence in sentences if sentence]


def _masks(document: Mapping[str, Any]) -> str:
    """Masks that are wrong as a whole; empty where there are none."""
    empty = sum(image["empty"] for image in document["images"])
    misfit = sum(image["misfit"] for image in document["images"])
    parts = []
    if empty:
        parts.append(count(empty, "mask holds no cell", "masks hold no cell"))
    if misfit:
        parts.append(count(misfit, "mask does not fit its image", "masks do not fit their images"))
    return f"{join(parts)}." if parts else ""


def _issues(document: Mapping[str, Any]) -> str:
    counts = {finding["kind"]: finding["count"] for finding in document["findings"]}
    parts = [count(counts[kind], words.one, words.many) for kind, words in KINDS.items() if counts[kind]]
    return f"{'; '.join(parts) or 'No outline looks wrong, and no cell seems to lack one'}."


def _copies(document: Mapping[str, Any]) -> str:
    pairs = document["similar"]["pairs"]
    if not pairs:
        return "No two images show the same field of view."
    across = sum(pair["across_parts"] for pair in pairs)
    what = count(len(pairs), "pair of images shows", "pairs of images show")
    split = ""
    if across:
        split = f", {number(across)} of them in different parts of the split, which inflates scores"
    elif document["parts"]:
        split = ", all within one part of the split"
    return f"{what} the same or overlapping fields{split}."


SET_KINDS = {
    "empty": (
        "Masks without a cell",
        "An image full of cells with an empty mask teaches a model to find none.",
        "Outline the cells, or leave the image out.",
    ),
    "misfit": (
        "Masks that do not fit their image",
        "Outlines do not follow the image, as if file names had been mixed up.",
        "Look at the pair; leave it out if it is wrong.",
    ),
    "similar": (
        "Images that show the same field",
        "Copies and overlapping fields make a set look larger than it is.",
        "Keep one of each pair, or keep both in the same part of the split.",
    ),
    "leak": (
        "The same field in several parts of the split",
        "A model is tested on what it was trained on: scores come out too high.",
        "Move both images of a pair to the same part.",
    ),
    "shared_stain": (
        "Stains in several parts of the split",
        "Scores apply to slides that the model knows, not to the next slide.",
        "Convert with --stain-clusters to keep slides together, and report both results.",
    ),
    "fault": (
        "Files that could not be used",
        "They are missing from everything on this page.",
        "See the list at the end.",
    ),
    "absent": (
        "Annotated images that are missing",
        "The COCO files name images that the folder does not hold.",
        "Check that both belong together.",
    ),
}


def set_findings(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Findings about images, files and the split: ``kind``, ``title``, ``count``, ``of`` (the unit of
    the count), ``meaning`` and ``advice`` of each. Findings about the split are left out if there is none.
    """
    images, pairs, groups = document["images"], document["similar"]["pairs"], document["stains"]
    of_images = f"{number(len(images))} images"
    counts = {
        "empty": (sum(image["empty"] for image in images), of_images),
        "misfit": (sum(image["misfit"] for image in images), of_images),
        "similar": (len(pairs), "pairs"),
    }
    if len(document["parts"]) > 1:
        shared = sum(len(set(group["parts"]) - {"unused"}) > 1 for group in groups)
        counts["leak"] = sum(pair["across_parts"] for pair in pairs), "pairs"
        counts["shared_stain"] = shared, f"{number(len(groups))} groups of similar stain"
    counts["fault"] = len(document["faults"]), "files"
    if absent := document["files"]["annotated_but_absent"]:
        counts["absent"] = len(absent), "images"
    return [
        {"kind": kind, "title": SET_KINDS[kind][0], "count": found, "of": unit}
        | {"meaning": SET_KINDS[kind][1], "advice": SET_KINDS[kind][2]}
        for kind, (found, unit) in counts.items()
    ]
