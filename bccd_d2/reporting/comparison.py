"""Two runs side by side, and whether the difference is real, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bccd_d2.evaluation.bootstrap import Difference
from bccd_d2.evaluation.options import plain
from bccd_d2.reporting.part import Source
from bccd_d2.reporting.wording import figure

SIGNIFICANT = 0.05
"""Two-sided p value below which a difference is called real."""


def verdict(found: Difference) -> str:
    """Whether B differs from A: both the interval and the permutation test have to say so."""
    if found.difference is None:
        return "nothing to compare"
    if found.low is None or found.high is None or found.p_value is None:
        return "too few images or no resamples to tell"
    if found.p_value < SIGNIFICANT and not found.low <= 0 <= found.high:
        return "B is better" if found.difference > 0 else "A is better"
    return "no clear difference"


def comparison_table(found: Mapping[str, Mapping[str, Difference]]) -> str:
    """A Markdown table, one line a figure, those without the border below.

    Args:
        found: by region and name, see :func:`bccd_d2.evaluation.bootstrap.compare_runs`.
    """
    headers = ("figure", "A", "B", "B - A", "95 % interval", "p", "verdict")
    lines = [f"| {' | '.join(headers)} |", "|---" * len(headers) + "|"]
    for region, figures in found.items():
        for name, one in figures.items():
            span = "" if one.low is None or one.high is None else f"{one.low:+.3f} to {one.high:+.3f}"
            change = "" if one.difference is None else f"{one.difference:+.3f}"
            p_value = "" if one.p_value is None else f"{one.p_value:.3f}"
            title = name if region == "all" else f"{name}, {region}"
            row = (title, figure(one.a), figure(one.b), change, span, p_value, verdict(one))
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def comparison_document(
    found: Mapping[str, Mapping[str, Difference]], a: Source, b: Source
) -> dict[str, Any]:
    """The same as what JSON knows, with what was compared."""
    return {
        "a": dict(a.facts),
        "b": dict(b.facts),
        "figures": {
            region: {name: {**plain(one), "verdict": verdict(one)} for name, one in figures.items()}
            for region, figures in found.items()
        },
    }
