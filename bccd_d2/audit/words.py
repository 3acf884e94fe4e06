"""The findings of an audit in plain English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bccd_d2.audit.issues import ImageIssues, Kind
from bccd_d2.reporting.pages import count, join, number


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
        specks = found.counts["speck"]
        return (
            f"The mask holds {count(specks, 'speck', 'specks')} and no cell."
            if specks
            else "The mask is empty."
        )
    sentences = []
    if found.misfit:
        sentences.append("The mask does not follow the image; it may belong to another one.")
    parts = []
    for kind, words in KINDS.items():
        if found.counts[kind]:
            text = count(found.counts[kind], words.one, words.many)
            if kind in ("merged", "faint"):  # "1 of 14 outlines seems"
                rest = text.split(" ", 1)[1].replace("outline ", "outlines ", 1)
                text = f"{number(found.counts[kind])} of {number(cells)} {rest}"
            parts.append(text)
    if parts:
        sentences.append(f"{join(parts)}.")
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
    merged, missing, cut = counts["merged"], counts["unlabelled"], counts["cut_unlabelled"]
    wrong = merged + counts["faint"] + counts["fragment"]
    share = f"({wrong / document['cells']['total']:.1%} of all)"
    parts = []
    if wrong and merged == wrong:
        parts.append(f"{count(wrong, KINDS['merged'].one, KINDS['merged'].many)} {share}")
    elif wrong:
        why = "it seems to hold" if merged == 1 else "they seem to hold"
        of_them = f", {number(merged)} of them because {why} more than one cell" if merged else ""
        parts.append(f"{count(wrong, 'outline looks', 'outlines look')} wrong {share}{of_them}")
    if missing + cut:
        which = f"{number(cut)} of them" if missing else "all of them"
        at_border = f", {which} cut by the border of the image" if cut else ""
        unlabelled = KINDS["unlabelled"]
        parts.append(f"{count(missing + cut, unlabelled.one, unlabelled.many)}{at_border}")
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


def set_findings(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Findings about images, files and the split, from the document: ``kind``, ``title``, ``count``, ``of`` (the
    unit of the count), ``meaning`` and ``advice`` of each. Findings about the split are left out if there is none.
    """
    images, pairs, groups = document["images"], document["similar"]["pairs"], document["stains"]
    of_images = f"{number(len(images))} images"
    rows = [
        (
            "empty",
            "Masks without a cell",
            sum(image["empty"] for image in images),
            of_images,
            "An image full of cells with an empty mask teaches a model to find none.",
            "Outline the cells, or leave the image out.",
        ),
        (
            "misfit",
            "Masks that do not fit their image",
            sum(image["misfit"] for image in images),
            of_images,
            "Outlines do not follow the image, as if file names had been mixed up.",
            "Look at the pair; leave it out if it is wrong.",
        ),
        (
            "similar",
            "Images that show the same field",
            len(pairs),
            "pairs",
            "Copies and overlapping fields make a set look larger than it is.",
            "Keep one of each pair, or keep both in the same part of the split.",
        ),
    ]
    if len(document["parts"]) > 1:
        rows += [
            (
                "leak",
                "The same field in several parts of the split",
                sum(pair["across_parts"] for pair in pairs),
                "pairs",
                "A model is tested on what it was trained on: scores come out too high.",
                "Move both images of a pair to the same part.",
            ),
            (
                "shared_stain",
                "Stains in several parts of the split",
                sum(len(set(group["parts"]) - {"unused"}) > 1 for group in groups),
                f"{number(len(groups))} groups of similar stain",
                "Scores apply to slides that the model knows, not to the next slide.",
                "Convert with --stain-clusters to keep slides together, and report both results.",
            ),
        ]
    rows += [
        (
            "fault",
            "Files that could not be used",
            len(document["faults"]),
            "files",
            "They are missing from everything on this page.",
            "See the list at the end.",
        ),
        (
            "absent",
            "Annotated images that are missing",
            len(document["files"]["annotated_but_absent"]),
            "images",
            "The COCO files name images that the folder does not hold.",
            "Check that both belong together.",
        ),
    ]
    keys = ("kind", "title", "count", "of", "meaning", "advice")
    return [dict(zip(keys, row)) for row in rows if row[0] != "absent" or row[2]]
