"""Sentences of the audit read as English whatever the numbers."""

from bccd_d2.audit.words import summary_sentences


def document(faults=(), pairs=(), parts=None, images=2, **found):
    kinds = ("merged", "unlabelled", "cut_unlabelled", "faint", "fragment", "speck")
    quantiles = {"min": 90, "median": 100, "max": 110}
    return {
        "files": {"images": images},
        "cells": {"total": 200, "per_image": quantiles, "diameter": {"median": 98.4}},
        "findings": [{"kind": kind, "count": found.get(kind, 0)} for kind in kinds],
        "images": [{"empty": index < found.get("empty", 0), "misfit": False} for index in range(images)],
        "similar": {"pairs": [{"across_parts": across} for across in pairs]},
        "parts": parts or {},
        "faults": list(faults),
    }


def test_a_clean_set_and_one_with_an_empty_mask_and_bad_files():
    sentences = summary_sentences(document(empty=1, faults=["a", "b"]))
    assert sentences[2] == "1 mask holds no cell."
    assert sentences[-1] == "2 files could not be used and are listed at the end."
    assert summary_sentences(document()) == [
        "2 images show 200 outlined cells, 90 to 110 per image and 100 on a typical one.",
        "A typical cell is 98 pixels across.",
        "No outline looks wrong, and no cell seems to lack one.",
        "No two images show the same field of view.",
    ]


def test_what_is_doubtful():
    assert summary_sentences(document(merged=2, cut_unlabelled=1))[2] == (
        "2 outlines seem to hold more than one cell; 1 cell cut by the image border has no outline."
    )


def test_copies():
    both = {"train": 1, "test": 1}
    sentence = "2 pairs of images show the same or overlapping fields, "
    assert summary_sentences(document(pairs=[False, False], parts=both))[3] == (
        sentence + "all within one part of the split."
    )
    assert summary_sentences(document(pairs=[True, False], parts=both))[3] == (
        sentence + "1 of them in different parts of the split, which inflates scores."
    )
