"""The report of a training run, as tools/evaluate.py and train_net.py --eval-only write it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bccd_d2.errors import InputError
from bccd_d2.evaluation.evaluator import find_run
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.reporting.part import EvaluatedPart, Source, evaluate_sources, read_source, source_name
from bccd_d2.reporting.write import write_report

FOLDER = "evaluation"
"""Below the run's folder; its own metrics.json is Detectron2's log of the training."""


def read_run(
    run: Path,
    data_root: Path | None = None,
    parts: Sequence[str] | None = None,
    *,
    image_root: Path | None = None,
    class_agnostic: bool = False,
) -> tuple[list[Source], EvaluationOptions, str]:
    """Parts, rules and configuration of a run.

    Args:
        run: ``OUTPUT_DIR`` of tools/train_net.py.
        data_root: folder that tools/convert_bccd.py wrote; ``None`` goes by the run's configuration.
        parts: of those that it was evaluated on; ``None`` for all.
        image_root: see :func:`bccd_d2.reporting.part.read_source`.
        class_agnostic: likewise.

    Raises:
        InputError: the run was not evaluated on such a part, or see :func:`bccd_d2.evaluation.evaluator.find_run`.
    """
    files = find_run(run, data_root)
    absent = sorted(set(parts or ()) - set(files.predictions))
    if absent:
        raise InputError(
            f"{run}: not evaluated on {', '.join(absent)}, only on {', '.join(files.predictions)}"
        )
    sources = [
        read_source(
            source_name(part),
            files.truth[part],
            predictions,
            image_root=image_root,
            class_agnostic=class_agnostic,
        )
        for part, predictions in files.predictions.items()
        if not parts or part in parts
    ]
    return sources, files.options, files.config


def report_run(run: Path) -> list[EvaluatedPart]:
    """Write the report of all that a run was evaluated on, in place of an earlier one."""
    sources, options, config = read_run(run)
    parts = evaluate_sources(sources, options)
    write_report(parts, run / FOLDER, title=run.resolve().name, config=config, overwrite=True)
    return parts
