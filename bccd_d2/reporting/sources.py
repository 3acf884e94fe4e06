"""Truth and predictions of one part of a data set, read from files or from a training run, and their evaluation."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import EvaluationSet
from bccd_d2.evaluation.evaluate import Evaluation, evaluate
from bccd_d2.evaluation.external import read_predictions, read_truth
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.dataset_files import ROOT_SOURCE, dataset_files, default_root

_logger = logging.getLogger(__name__)


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
    part: str, truth_file: Path, predictions: Path, image_root: Path | None = None, **options: Any
) -> Source:
    """Read truth (see :func:`bccd_d2.evaluation.external.read_truth`) and predictions of a part, such as ``val``.

    ``image_root`` is the folder of the images, if not that which the truth names; ``options`` are those of
    :func:`bccd_d2.evaluation.external.read_predictions`. Raises :class:`InputError` if one cannot be read or they do
    not belong together.
    """
    dataset = read_predictions(predictions, read_truth(truth_file, image_root), **options)
    facts = {"Ground truth": str(truth_file)}
    if truth_file.is_file():
        facts["SHA-256 of the ground truth"] = _sha256(truth_file)
        with suppress(InputError):  # which annotations of other tools are
            info = read_coco(truth_file).get("info") or {}
            if "files_sha256" in info:
                facts["SHA-256 of images and masks"] = info["files_sha256"]
    facts["Predictions"] = str(predictions)
    if predictions.is_file():
        facts["SHA-256 of the predictions"] = _sha256(predictions)
    return Source((part[:1].upper() + part[1:]).replace("_", " "), dataset, facts)


def read_run(
    run: Path, data_root: Path | None = None, parts: Sequence[str] | None = None, **options: Any
) -> tuple[list[Source], EvaluationOptions, str]:
    """Sources (in the order train, val, test), evaluation options and configuration (YAML) of a training run.

    ``run`` is its OUTPUT_DIR, ``data_root`` the converted data set, if not that of the configuration; ``parts`` some of
    those that it was evaluated on, such as ``val`` (of ``bccd_val``) or ``pairs_val``, ``None`` for all; ``options`` as
    for :func:`read_source`. Raises InputError if the run holds no configuration or no predictions of such a part, or
    its data are gone.
    """
    # Imported here: the configuration of a run needs Detectron2 and torch, external predictions do not.
    from bccd_d2.config import load_config
    from bccd_d2.evaluation.detectron2_evaluator import RESULTS_FILE

    config_file = run / "config.yaml"
    if not config_file.is_file():
        raise InputError(f"{config_file} is not there: expected the folder of a tools/train_net.py run")
    cfg = load_config(config_file)
    known = dataset_files(data_root or Path(cfg.DATASETS.ROOT or default_root()))
    predicted = {path.parent.name: path for path in (run / "inference").glob(f"*/{RESULTS_FILE}")}
    names = {name.removeprefix(f"{ROOT_SOURCE}_"): name for name in known if name in predicted}
    others = ", ".join(sorted(predicted.keys() - known.keys()))
    if not names:
        raise InputError(
            f"{run / 'inference'}: found predictions for {others or 'no data set'}, expected {', '.join(known)}; give "
            "what it was evaluated on as --data-root, or evaluate it with 'python tools/train_net.py --config-file "
            "RUN/config.yaml --eval-only MODEL.WEIGHTS WEIGHTS'"
        )
    if others:
        _logger.warning("%s: no data set for the predictions for %s, which are left out", run, others)
    absent = sorted(set(parts or ()) - {*names, *names.values()})
    if absent:
        raise InputError(f"{run}: not evaluated on {', '.join(absent)}, only on {', '.join(names)}")
    sources = [
        read_source(part, known[name], predicted[name], **options)
        for part, name in names.items()
        if not parts or {part, name} & set(parts)
    ]
    return sources, EvaluationOptions.from_config(cfg), config_file.read_text(encoding="utf-8")


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
