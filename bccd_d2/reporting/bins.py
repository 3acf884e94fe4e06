"""Colours of the error bins, the same in every figure and on the page."""

from __future__ import annotations

from collections.abc import Mapping

BIN_COLORS: Mapping[str, str] = {
    "correct": "#1fb866",
    "under-segmented": "#e6007e",
    "over-segmented": "#0aa5e0",
    "misclassified": "#7a3fd0",
    "poorly outlined": "#e09600",
    "duplicate": "#8b5a2b",
    "hallucinated": "#ff4a1c",
    "missed": "#111111",
    "border": "#7f8790",
    "ignored": "#aab0b9",
}
"""By the names in :data:`bccd_d2.evaluation.taxonomy.BINS`; strong on pink and purple stain, told apart in greyscale
print by the line: true cells are dashed, predictions solid."""
