"""Write the report of an evaluation: an HTML page that needs no other file, metrics, cells and figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bccd_d2 import __version__
from bccd_d2.drawing.pages import render, svg_uri
from bccd_d2.errors import InputError
from bccd_d2.evaluation.average_precision import AveragePrecision
from bccd_d2.evaluation.bootstrap import HEADLINE, Interval
from bccd_d2.evaluation.error_bins import BORDER, CORRECT
from bccd_d2.evaluation.evaluate import Evaluation
from bccd_d2.evaluation.options import ALL_CLASSES, REGIONS, in_words
from bccd_d2.files import staged_output
from bccd_d2.reporting.cases import SHOWN, Shown, case_figures, shown_cases
from bccd_d2.reporting.evaluation_figures import metrics_bar, part_figures
from bccd_d2.reporting.run_figures import save_figure
from bccd_d2.reporting.sources import EvaluatedPart, evaluate_sources, read_run
from bccd_d2.reporting.wording import BIN_COLORS, BIN_WORDS, figure, percent, summary_sentences

PAGE_FILE, METRICS_FILE, CELLS_FILE, TABLE_FILE = "report.html", "metrics.json", "cells.csv", "results.md"
FIGURE_FOLDER = "viz"
RUN_FOLDER = "evaluation"
"""In the folder of a run, whose own metrics.json is Detectron2's log of the training."""


def report_run(run: Path) -> list[EvaluatedPart]:
    """Write the report of everything that a run was evaluated on, replacing an earlier one."""
    sources, options, config = read_run(run)
    parts = evaluate_sources(sources, options)
    write_report(parts, run / RUN_FOLDER, title=run.resolve().name, config=config, overwrite=True)
    return parts


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

    The files appear together at the end or, on any failure, not at all. ``parts`` are of one model; the summary of the
    page describes the last, and ``shown`` images of each are on it. Raises :class:`InputError` if there is no part, two
    have one name, a report exists and ``overwrite`` is not set, or an image cannot be read.
    """
    keys = [part.key for part in parts]
    if not parts or len(set(keys)) < len(keys):
        raise InputError(
            f"parts to report on: {', '.join(keys) or 'none'}; expected one or more, of different names"
        )
    targets = [PAGE_FILE, METRICS_FILE, CELLS_FILE, TABLE_FILE]
    with staged_output(out, targets, overwrite=overwrite) as staging:
        figures = staging / FIGURE_FOLDER
        save_figure(metrics_bar(parts), figures / "metrics.png")
        for name, drawn in case_figures(parts):
            save_figure(drawn, figures / f"{name}.png")
        charts: dict[str, list[tuple[str, str]]] = {key: [] for key in keys}
        for part in parts:
            for name, (heading, drawn) in part_figures(part).items():
                save_figure(drawn, figures / f"{name}_{part.key}.png")
                charts[part.key].append((heading, svg_uri(drawn)))
        cases = {part.key: shown_cases(part, shown) for part in parts}
        (staging / PAGE_FILE).write_text(render_page(parts, charts, cases, title, config), encoding="utf-8")
        (staging / TABLE_FILE).write_text(results_markdown(parts, title), encoding="utf-8")
        document = {
            "title": title,
            "version": __version__,
            "parts": {
                part.key: {"compared": dict(part.source.facts), **part.evaluation.to_json()} for part in parts
            },
        }
        (staging / METRICS_FILE).write_text(json.dumps(document, indent=2, allow_nan=False), encoding="utf-8")
        _write_cells(parts, staging / CELLS_FILE)


def results_markdown(parts: Sequence[EvaluatedPart], title: str) -> str:
    """Markdown to paste: the tables of the headline metrics and of their intervals."""
    blocks = [f"Evaluation of {title}.", headline_table(parts)]
    for part in parts:
        if len(part.evaluation.class_names) > 1:
            blocks += [f"{part.name} by class; cells are matched at IoU 0.5 whatever their class:"]
            blocks += [class_table(part.evaluation)]
    rows = [
        [name, *("" if i is None or i.low is None else f"{figure(i.low)} to {figure(i.high)}" for i in found)]
        for name, found in _headline_rows(parts)
    ]
    blocks += [
        "95 % intervals over images (bootstrap):",
        tabulate(rows, ["", *HEADLINE], tablefmt="pipe", disable_numparse=True),
    ]
    return "\n\n".join(block.rstrip() for block in blocks) + "\n"


def headline_table(parts: Sequence[EvaluatedPart]) -> str:
    """Markdown table of the headline figures, two rows per part: with the border and without it."""
    rows = [
        [name, *("" if i is None else in_words(i.value) for i in found)]
        for name, found in _headline_rows(parts)
    ]
    return tabulate(rows, ["", *HEADLINE], tablefmt="pipe", disable_numparse=True)


def _headline_rows(parts: Sequence[EvaluatedPart]) -> list[tuple[str, list[Interval | None]]]:
    return [
        (
            part.name if region == "all" else f"{part.name}, {region}",
            [part.evaluation.intervals[region].get(name) for name in HEADLINE],
        )
        for part in parts
        for region in REGIONS
    ]


def class_table(evaluation: Evaluation) -> str:
    """Markdown table, one row per class: its figures with their intervals, and what its cells are called.

    The figures are those of :class:`bccd_d2.evaluation.bootstrap.ClassStatistics`. The last row holds the predictions
    that match no cell.
    """
    names = evaluation.class_names
    called = [f"called {name}" for name in names]
    figures = ["AP@0.5", "F1", "bias", "mean absolute error", "right class", "calibration error"]
    rows = []
    for name, confused in zip(names, evaluation.confusion):
        found, sure = evaluation.instances["all"][name], evaluation.class_intervals[name]
        rows.append(
            [
                *(name, str(found.cells), str(found.predicted)),
                *(
                    _with_interval(sure[key], 2 if key in ("bias", "mean absolute error") else 3)
                    for key in figures
                ),
                *map(str, confused),
            ]
        )
    rows.append(["no cell", *[""] * (2 + len(figures)), *map(str, evaluation.confusion[-1][:-1]), ""])
    head = ["", "cells", "predicted", *figures, *called, "not found"]
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True)


def _with_interval(found: Interval, decimals: int) -> str:
    value = in_words(found.value, decimals)
    if found.low is None or found.high is None:
        return value
    return f"{value} ({found.low:.{decimals}f} to {found.high:.{decimals}f})"


def _write_cells(parts: Sequence[EvaluatedPart], path: Path) -> None:
    """One row per annotated cell and per prediction above the score threshold; fractions to four digits."""
    records = [{"part": part.key, **record} for part in parts for record in part.evaluation.per_cell]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(records[0]) if records else ["part"])
        table.writeheader()
        for record in records:
            table.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in record.items()})


def render_page(
    parts: Sequence[EvaluatedPart],
    charts: Mapping[str, Sequence[tuple[str, str]]],
    cases: Mapping[str, Sequence[Shown]],
    title: str,
    config: str | None = None,
) -> str:
    """Render the page, an HTML document that refers to no other file; charts (title, data URI) and cases are by key of
    the part.
    """
    main = parts[-1]
    return render(
        "bccd_d2.reporting",
        "report.html",
        {"figure": figure, "percent": percent},
        title=title,
        version=__version__,
        main=main,
        summary=summary_sentences(main.evaluation),
        tiles=_tiles(main.evaluation),
        headline=HEADLINE,
        rows=_headline_rows(parts),
        parts=parts,
        charts=charts,
        cases=cases,
        findings={part.key: _findings(part.evaluation) for part in parts},
        class_rows={part.key: _class_rows(part.evaluation) for part in parts},
        precision_rows={part.key: _precision_rows(part.evaluation) for part in parts},
        bins=BIN_WORDS,
        correct=CORRECT,
        all_classes=ALL_CLASSES,
        colors=BIN_COLORS,
        options=_options(main.evaluation),
        config=config,
    )


def _tiles(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Five numbers with their explanation."""
    found = evaluation.instances["all"][ALL_CLASSES]
    inside = evaluation.instances["interior"][ALL_CLASSES]
    counts = evaluation.counts["all"][ALL_CLASSES]
    return [
        (
            percent(found.recall),
            f"of the annotated cells are found ({percent(inside.recall)} away from the border)",
        ),
        (
            percent(found.precision),
            f"of the predictions are annotated cells ({percent(inside.precision)} away from the border)",
        ),
        (figure(found.sq, 2), "mean overlap (IoU) of a prediction with the cell that it matches"),
        (percent(counts.mean_relative_error), "mean error of the cell count of an image"),
        (figure(evaluation.intervals["all"]["AP"].value, 2), "mask AP, as COCO defines it"),
    ]


def _findings(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The error bins that are not empty, by their cost in AP50, the border last."""
    found = [
        {"bin": name, "words": words, "found": evaluation.errors.bins[name]}
        for name, words in BIN_WORDS.items()
        if evaluation.errors.bins[name].true_cells + evaluation.errors.bins[name].predictions
    ]
    return sorted(
        found, key=lambda f: (f["bin"] == BORDER, -(f["found"].AP50_gain or 0), -f["found"].true_cells)
    )


def _class_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    names = [ALL_CLASSES, *(evaluation.class_names if len(evaluation.class_names) > 1 else [])]
    masks = evaluation.average_precision["segm"]["all"]
    return [
        {
            "name": name,
            "metrics": evaluation.instances["all"][name],
            "precision": masks.overall if name == ALL_CLASSES else masks.by_class[name],
            "counts": evaluation.counts["all"][name],
        }
        for name in names
    ]


def _precision_rows(evaluation: Evaluation) -> list[tuple[str, AveragePrecision, AveragePrecision]]:
    """Group of cells, its mask precision and its box precision."""
    masks, boxes = evaluation.average_precision["segm"], evaluation.average_precision["bbox"]
    rows = [(name, masks[name].overall, boxes[name].overall) for name in REGIONS]
    sizes = masks["all"].by_size
    return rows + [(name, sizes[name], boxes["all"].by_size[name]) for name in sizes]


def _options(evaluation: Evaluation) -> Mapping[str, str]:
    options = evaluation.options
    small, large = options.size_edges
    return {
        "Score threshold": f"{options.score_threshold:g} (counts, F1, PQ, error bins; AP and curves use all scores)",
        "Detections": f"at most {options.max_detections} per image",
        "Sizes": f"small below {small:g} px across, large above {large:g} px",
        "Border": f"a cell touches it within {options.border_margin} px"
        if options.border_margin
        else "a cell touches it with its outermost pixels",
        "Resamples": f"{options.bootstrap_samples} for each interval, seed {options.seed}",
    }
