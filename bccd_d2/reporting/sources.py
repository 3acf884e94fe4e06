"""Truth and predictions of one part of a data set, read from files or from a training run, and their evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import EvaluationSet, read_evaluation_set
from bccd_d2.evaluation.evaluate import Evaluation, evaluate
from bccd_d2.evaluation.external import LABEL_SUFFIXES, read_predictions
from bccd_d2.evaluation.joining import ImageIds
from bccd_d2.evaluation.options import EvaluationOptions


@dataclass(frozen=True)
class Source:
    """Truth and predictions of one part of a data set, such as "Val", and file names and their SHA-256 (``facts``)."""

    name: str
    dataset: EvaluationSet
    facts: Mapping[str, str]


@dataclass(frozen=True)
class EvaluatedPart:
    """A source with its evaluation."""

    source: Source
    evaluation: Evaluation

    @property
    def name(self) -> str:
        """Name of the part."""
        return self.source.name

    @property
    def key(self) -> str:
        """Name of the part as it stands in file names."""
        return self.source.name.lower().replace(" ", "_")


def read_source(
    name: str,
    truth_file: Path,
    predictions: Path,
    *,
    image_root: Path | None = None,
    label_suffixes: Sequence[str] = LABEL_SUFFIXES,
    image_ids: ImageIds | None = None,
    class_agnostic: bool = False,
) -> Source:
    """Read truth (COCO instance JSON) and predictions, see :func:`bccd_d2.evaluation.external.read_predictions`.

    ``image_root`` is the folder of the images, if not that which the truth names. Raises :class:`InputError` if one
    cannot be read or they do not belong together.
    """
    truth = read_evaluation_set(truth_file, image_root=image_root)
    dataset = read_predictions(
        predictions, truth, label_suffixes, image_ids=image_ids, class_agnostic=class_agnostic
    )
    facts = {"Ground truth": str(truth_file), "SHA-256 of the ground truth": _sha256(truth_file)}
    info = json.loads(truth_file.read_text(encoding="utf-8")).get("info") or {}
    if "files_sha256" in info:
        facts["SHA-256 of images and masks"] = info["files_sha256"]
    facts["Predictions"] = str(predictions)
    if predictions.is_file():
        facts["SHA-256 of the predictions"] = _sha256(predictions)
    return Source(name, dataset, facts)


def source_name(part: str) -> str:
    """``Val`` for ``val``."""
    return part[:1].upper() + part[1:]


def read_run(
    run: Path,
    data_root: Path | None = None,
    parts: Sequence[str] | None = None,
    *,
    image_root: Path | None = None,
    class_agnostic: bool = False,
) -> tuple[list[Source], EvaluationOptions, str]:
    """Sources, evaluation options and configuration (YAML) of a training run, whose OUTPUT_DIR is ``run``.

    ``data_root`` is the converted data set, if not that of the configuration; ``parts`` some of those that it was
    evaluated on, ``None`` for all. Raises :class:`InputError` if it was not evaluated on such a part, or see
    :func:`bccd_d2.evaluation.evaluator.find_run`.
    """
    # Imported here: the configuration of a run needs Detectron2 and torch, external predictions do not.
    from bccd_d2.evaluation.evaluator import find_run

    files = find_run(run, data_root)
    absent = sorted(set(parts or ()) - set(files.predictions))
    if absent:
        raise InputError(
            f"{run}: not evaluated on {', '.join(absent)}, only on {', '.join(files.predictions)}"
        )
    options = {"image_root": image_root, "class_agnostic": class_agnostic}
    sources = [
        read_source(source_name(part), files.truth[part], predictions, **options)  # type: ignore[arg-type]
        for part, predictions in files.predictions.items()
        if not parts or part in parts
    ]
    return sources, files.options, files.config


def evaluate_sources(sources: Sequence[Source], options: EvaluationOptions) -> list[EvaluatedPart]:
    """Evaluate each source; an error names its part."""
    parts = []
    for source in sources:
        try:
            parts.append(EvaluatedPart(source, evaluate(source.dataset, options)))
        except InputError as error:
            raise InputError(f"{source.name}: {error}") from error
    return parts


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
