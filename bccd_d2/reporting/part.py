"""What a report is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import EvaluationSet, read_evaluation_set
from bccd_d2.evaluation.evaluate import Evaluation, evaluate
from bccd_d2.evaluation.external import LABEL_SUFFIXES, read_predictions, without_classes
from bccd_d2.evaluation.options import EvaluationOptions


@dataclass(frozen=True)
class Source:
    """Truth and predictions of one part of a data set, and where they come from.

    Attributes:
        name: of the part, for example ``"Val"``.
        dataset: both.
        facts: by what they are called: files and their SHA-256.
    """

    name: str
    dataset: EvaluationSet
    facts: Mapping[str, str]


@dataclass(frozen=True)
class EvaluatedPart:
    """A source with everything that is said about it."""

    source: Source
    evaluation: Evaluation

    @property
    def name(self) -> str:
        """Of the part."""
        return self.source.name

    @property
    def key(self) -> str:
        """Of the part, as it is in file names."""
        return self.source.name.lower().replace(" ", "_")


def read_source(
    name: str,
    truth_file: Path,
    predictions: Path,
    *,
    image_root: Path | None = None,
    label_suffixes: Sequence[str] = LABEL_SUFFIXES,
    class_agnostic: bool = False,
) -> Source:
    """Read truth and predictions.

    Args:
        name: of the part.
        truth_file: COCO instance JSON.
        predictions: COCO JSON, or a folder of label images.
        image_root: folder of the images; ``None`` goes by the truth.
        label_suffixes: see :func:`bccd_d2.evaluation.external.read_label_images`.
        class_agnostic: leave the classes of both aside.

    Raises:
        InputError: one of them cannot be read, or they do not belong together.
    """
    truth = read_evaluation_set(truth_file, image_root=image_root)
    if predictions.is_dir() and class_agnostic:
        truth = without_classes(truth)
    dataset = read_predictions(predictions, truth, label_suffixes)
    facts = {"Ground truth": str(truth_file), "SHA-256 of the ground truth": _sha256(truth_file)}
    info = json.loads(truth_file.read_text(encoding="utf-8")).get("info") or {}
    if "files_sha256" in info:
        facts["SHA-256 of images and masks"] = info["files_sha256"]
    facts["Predictions"] = str(predictions)
    if predictions.is_file():
        facts["SHA-256 of the predictions"] = _sha256(predictions)
    return Source(name, without_classes(dataset) if class_agnostic else dataset, facts)


def source_name(part: str) -> str:
    """``Val`` for ``val``."""
    return part[:1].upper() + part[1:]


def evaluate_sources(sources: Sequence[Source], options: EvaluationOptions) -> list[EvaluatedPart]:
    """Judge each; an error says of which part it is."""
    parts = []
    for source in sources:
        try:
            parts.append(EvaluatedPart(source, evaluate(source.dataset, options)))
        except InputError as error:
            raise InputError(f"{source.name}: {error}") from error
    return parts


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
