"""The audit's findings in plain English, for people who did not write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bccd_d2.audit.verdicts import Kind, Verdict
from bccd_d2.reporting.pages import count, join, number


class KindWords(NamedTuple):
    """How a kind of finding is spoken of.

    Attributes:
        title: heading.
        one: what one is, after the number 1.
        many: what several are, after their number.
        meaning: what it does to a model.
        advice: what helps.
    """

    title: str
    one: str
    many: str
    meaning: str
    advice: str


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
        "outline lies where the image shows glass",
        "outlines lie where the image shows glass",
        "A model learns to find cells on empty glass.",
        "Remove them, or check that the mask belongs to this image.",
    ),
    "fragment": KindWords(
        "Outlines far too small",
        "outline is far too small for a cell",
        "outlines are far too small for a cell",
        "Scraps count as cells and pull down the scores of small objects.",
        "Remove them, or raise --min-area-relative to 0.2.",
    ),
    "speck": KindWords(
        "Specks",
        "speck of a few pixels",
        "specks of a few pixels",
        "Nothing, as long as they are dropped, as the conversion does by default.",
        "Erase them in the mask if it is used by other programs.",
    ),
}


def verdict_sentence(verdict: Verdict, cells: int) -> str:
    """Why an image is doubtful, in one or two sentences; says so where it is not."""
    if verdict.empty:
        found = verdict.counts["speck"]
        return (
            f"The mask holds {count(found, 'speck', 'specks')} and no cell."
            if found
            else "The mask is empty."
        )
    sentences = []
    if verdict.misfit:
        sentences.append("The mask does not follow what the image shows; it may belong to another image.")
    parts = []
    for kind, words in KINDS.items():
        found = verdict.counts[kind]
        if found:
            text = count(found, words.one, words.many)
            if kind in ("merged", "faint"):  # "1 of 14 outlines seems"
                text = f"{number(found)} of {number(cells)} " + text.split(" ", 1)[1].replace(
                    "outline ", "outlines ", 1
                )
            parts.append(text)
    if parts:
        sentences.append(f"{join(parts)}.")
    return " ".join(sentences) or "Nothing doubtful."


def cut_cells(outlined: int, missing: int) -> str:
    """How cells that the border cuts were treated; empty where all were treated alike."""
    if not outlined or not missing:
        return ""
    return f"{number(outlined)} cut cells have an outline, {number(missing)} have none. "


def summary_sentences(document: Mapping[str, Any]) -> list[str]:
    """The audit in a few sentences, from its finished document."""
    images, cells = document["files"]["images"], document["cells"]
    if not cells["total"]:
        return [f"{count(images, 'image', 'images')}, and not one cell is outlined."]
    low, middle, high = (cells["per_image"][key] for key in ("min", "median", "max"))
    spread = f"between {number(low)} and {number(high)} on an image and {number(middle)} on a typical one"
    sentences = [
        f"{count(images, 'image shows', 'images show')} {count(cells['total'], 'outlined cell', 'outlined cells')}"
        + (f", {spread}." if images > 1 else "."),
        f"A typical cell is {number(cells['diameter']['median'])} pixels across.",
        _masks(document),
        _doubtful(document),
        _copies(document),
    ]
    if document["faults"]:
        sentences.append(
            f"{count(len(document['faults']), 'file could not be used and is', 'files could not be used and are')} "
            "listed at the end."
        )
    return [sentence for sentence in sentences if sentence]


def _masks(document: Mapping[str, Any]) -> str:
    """Masks that are wrong as a whole; empty where there are none."""
    empty = sum(image["empty"] for image in document["images"])
    misfit = sum(image["misfit"] for image in document["images"])
    parts = [
        count(empty, "mask holds no cell", "masks hold no cell") if empty else "",
        count(misfit, "mask does not fit its image", "masks do not fit their images") if misfit else "",
    ]
    parts = [part for part in parts if part]
    return f"{join(parts)}." if parts else ""


def _doubtful(document: Mapping[str, Any]) -> str:
    counts = {finding["kind"]: finding["count"] for finding in document["findings"]}
    wrong = counts["merged"] + counts["faint"] + counts["fragment"]
    missing, cut = counts["unlabelled"], counts["cut_unlabelled"]
    parts = []
    merged = counts["merged"]
    if wrong:
        share = f"({wrong / document['cells']['total']:.1%} of all)"
        if merged == wrong:
            parts.append(f"{count(wrong, KINDS['merged'].one, KINDS['merged'].many)} {share}")
        else:
            why = "it seems to hold" if merged == 1 else "they seem to hold"
            parts.append(
                f"{count(wrong, 'outline looks', 'outlines look')} wrong {share}"
                + (f", {number(merged)} of them because {why} more than one cell" if merged else "")
            )
    if missing + cut:
        where = "all of them" if not missing else f"{number(cut)} of them"
        parts.append(
            f"{count(missing + cut, 'place looks like a cell', 'places look like cells')} without an outline"
            + (f", {where} cut by the border of the image" if cut else "")
        )
    if not parts:
        return "No outline looks wrong, and no cell seems to lack one."
    return "; ".join(parts) + "."


def _copies(document: Mapping[str, Any]) -> str:
    pairs = document["similar"]["pairs"]
    if not pairs:
        return "No two images show the same field of view."
    across = sum(pair["across_parts"] for pair in pairs)
    sentence = (
        f"{count(len(pairs), 'pair of images shows', 'pairs of images show')} the same or overlapping fields"
    )
    if across:
        return f"{sentence}, {number(across)} of them on both sides of the split, so that scores come out too high."
    return f"{sentence}, none of them on both sides of the split." if document["parts"] else f"{sentence}."
