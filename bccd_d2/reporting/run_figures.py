"""Figures of a training run: losses, metrics, best and worst cases."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bccd_d2.drawing.charts import with_grid
from bccd_d2.errors import InputError
from bccd_d2.files import replacing
from bccd_d2.reporting.cases import case_figures
from bccd_d2.reporting.evaluation_figures import metrics_bar
from bccd_d2.reporting.sources import EvaluatedPart, evaluate_sources, read_run

DPI = 110


def draw_run(run: Path) -> list[Path]:
    """Evaluate a run and draw its figures into ``run/viz``; an InputError if it was not evaluated or its data are
    missing.
    """
    sources, options, _ = read_run(run)
    parts = evaluate_sources(sources, options)
    return [save_figure(figure, run / "viz" / f"{name}.png") for name, figure in run_figures(run, parts)]


def run_figures(run: Path, parts: Sequence[EvaluatedPart]) -> Iterator[tuple[str, Figure]]:
    """Name and figure of the losses (if the run has a log), of the metrics and of the best and worst images."""
    log = run / "metrics.json"
    if log.is_file():
        validation = read_records(log, "validation/total_loss")
        yield "training_loss", training_loss(read_records(log, "total_loss"), validation)
    yield "metrics", metrics_bar(parts)
    yield from case_figures(parts)


def read_records(metrics_file: Path, key: str) -> list[dict[str, Any]]:
    """Records of Detectron2's metrics.json that hold ``key``, one per iteration, in order.

    After a resumed run the later record of an iteration counts; an unfinished last line is ignored. Raises
    :class:`InputError` if a line is no such record.
    """
    by_iteration = {}
    try:
        text = metrics_file.read_text(encoding="utf-8")
        for line in text[: text.rfind("\n") + 1].splitlines():
            record = json.loads(line)
            if key in record:
                by_iteration[int(record["iteration"])] = record
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{metrics_file}: expected one JSON object with an iteration per line ({error})"
        ) from error
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def training_loss(
    records: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]] = ()
) -> Figure:
    """Total training loss, its parts and the validation loss over the iterations; below, the learning rate.

    ``records`` are those of metrics.json with ``total_loss``, ``validation`` those with ``validation/total_loss``.
    """
    iterations = [record["iteration"] for record in records]
    names = sorted({key for record in records for key in record if key.startswith("loss_")})
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    loss_axes, rate_axes = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    loss_axes.plot(iterations, [r["total_loss"] for r in records], color="black", linewidth=2, label="total")
    if validation:
        steps, losses = zip(*((r["iteration"], r["validation/total_loss"]) for r in validation))
        style = {"color": "tab:red", "linewidth": 2, "markersize": 4}
        loss_axes.plot(steps, losses, "o--", label="total, validation", **style)
    for name in names:
        label = name.removeprefix("loss_").replace("rpn_", "RPN ").replace("_", " ")
        loss_axes.plot(iterations, [r.get(name, np.nan) for r in records], linewidth=1.2, label=label)
    loss_axes.set(ylabel="loss (median of 20 iterations)", yscale="log", title="Training loss")
    loss_axes.legend(ncols=3, frameon=False)
    rate_axes.plot(iterations, [r.get("lr", np.nan) for r in records], color="tab:gray")
    rate_axes.set(xlabel="iteration", ylabel="learning rate")
    with_grid(loss_axes)
    with_grid(rate_axes)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
    return path
