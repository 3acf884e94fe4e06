"""Writes everything that an evaluation leaves behind."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bccd_d2 import __version__
from bccd_d2.conversion.staging import staged_output
from bccd_d2.errors import InputError
from bccd_d2.evaluation.evaluate import HEADLINE, headline_table
from bccd_d2.evaluation.options import REGIONS
from bccd_d2.reporting.figures import case_figures, metrics_bar, part_figures, save, svg_uri
from bccd_d2.reporting.overlays import SHOWN, show
from bccd_d2.reporting.page import PagePart, render_page
from bccd_d2.reporting.part import EvaluatedPart
from bccd_d2.reporting.wording import figure as words_of

PAGE_FILE, METRICS_FILE, CELLS_FILE, TABLE_FILE = "report.html", "metrics.json", "cells.csv", "results.md"
FIGURE_FOLDER = "viz"


def write_report(
    parts: Sequence[EvaluatedPart],
    out: Path,
    *,
    title: str,
    config: str | None = None,
    shown: int = SHOWN,
    overwrite: bool = False,
) -> None:
    """Write ``report.html``, ``metrics.json``, ``cells.csv``, ``results.md`` and the figures in ``viz/``.

    Args:
        parts: of one model; the last is what the summary of the page speaks of.
        out: folder; the files appear together at the end, or on any failure not at all.
        title: what was evaluated.
        config: of the model, as text for the page.
        shown: images a part that the page shows.
        overwrite: replace an earlier report.

    Raises:
        InputError: there is no part, two have one name, a report exists, or an image cannot be read.
    """
    keys = [part.key for part in parts]
    if not parts or len(set(keys)) < len(keys):
        raise InputError(
            f"parts to report on: {', '.join(keys) or 'none'}; expected one or more, of different names"
        )
    with staged_output(
        out, [PAGE_FILE, METRICS_FILE, CELLS_FILE, TABLE_FILE], overwrite=overwrite
    ) as staging:
        figures = staging / FIGURE_FOLDER
        figures.mkdir()
        save(metrics_bar(parts), figures / "step5_metrics_bar.png")
        for name, drawn in case_figures(parts):
            save(drawn, figures / f"{name}.png")
        pages = []
        for part in parts:
            charts = []
            for name, (heading, drawn) in part_figures(part).items():
                save(drawn, figures / f"{name}_{part.key}.png")
                charts.append((heading, svg_uri(drawn)))
            pages.append(PagePart(part, charts, show(part, shown)))
        (staging / PAGE_FILE).write_text(render_page(pages, title, config), encoding="utf-8")
        (staging / TABLE_FILE).write_text(results_markdown(parts, title), encoding="utf-8")
        document = metrics_document(parts, title)
        (staging / METRICS_FILE).write_text(json.dumps(document, indent=2, allow_nan=False), encoding="utf-8")
        _write_cells(parts, staging / CELLS_FILE)


def metrics_document(parts: Sequence[EvaluatedPart], title: str) -> dict[str, Any]:
    """What ``metrics.json`` holds: all figures of each part, and what was compared."""
    return {
        "title": title,
        "version": __version__,
        "parts": {
            part.key: {"compared": dict(part.source.facts), **part.evaluation.to_json()} for part in parts
        },
    }


def results_markdown(parts: Sequence[EvaluatedPart], title: str) -> str:
    """Markdown to paste: the table of the headline figures, and their intervals."""
    lines = [
        f"Evaluation of {title}.",
        "",
        headline_table({part.name: part.evaluation for part in parts}).rstrip(),
    ]
    lines += ["", "95 % intervals over images (bootstrap):", ""]
    lines += [f"| | {' | '.join(HEADLINE)} |", "|---|" + "---|" * len(HEADLINE)]
    for part in parts:
        for region in REGIONS:
            found = part.evaluation.intervals[region]
            cells = []
            for name in HEADLINE:
                low, high = (found[name].low, found[name].high) if name in found else (None, None)
                cells.append("" if low is None or high is None else f"{words_of(low)} to {words_of(high)}")
            lines.append(
                f"| {part.name if region == 'all' else f'{part.name}, {region}'} | {' | '.join(cells)} |"
            )
    return "\n".join(lines) + "\n"


def _write_cells(parts: Sequence[EvaluatedPart], path: Path) -> None:
    """One line a true cell and one a prediction that counts; fractions to four digits."""
    records = [{"part": part.key, **record} for part in parts for record in part.evaluation.per_cell]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(records[0]) if records else ["part"])
        table.writeheader()
        for record in records:
            table.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in record.items()})
