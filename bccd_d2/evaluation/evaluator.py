"""Detectron2's evaluator over :func:`bccd_d2.evaluation.evaluate.evaluate`: what files get, a run gets."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm

from bccd_d2.config import load_config
from bccd_d2.data.registration import PARTS, annotation_file, default_root
from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import read_evaluation_set
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.files import write_json
from bccd_d2.structures.cells import Cells

_logger = logging.getLogger(__name__)


class CellEvaluator(DatasetEvaluator):
    """Collects predictions and evaluates them by this project's rules.

    Detectron2's COCO evaluator would read the annotations as they are, with all faults that :func:`read_coco` repairs.
    The results are :meth:`bccd_d2.evaluation.evaluate.Evaluation.detectron2_results`, in percent.
    """

    def __init__(
        self,
        dataset_name: str,
        options: EvaluationOptions,
        *,
        class_names: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
    ) -> None:
        """``class_names`` are the model's, by class index, joined to those of the data set by name."""
        self._truth_file = Path(MetadataCatalog.get(dataset_name).json_file)
        self._distributed = distributed
        self._folder = Path(output_dir) if output_dir else None
        self._options = options
        self._class_names = class_names
        self.reset()

    def reset(self) -> None:
        """Forget the predictions."""
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Note the predictions of a batch: ``cells``, or Detectron2's ``instances``, whose full masks take long."""
        for image, output in zip(inputs, outputs):
            if "cells" in output:
                self._predictions += coco_results(output["cells"], image["image_id"])
            else:
                self._predictions += instances_to_coco_json(output["instances"].to("cpu"), image["image_id"])

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Evaluate the predictions of all processes; nothing in others than the main one."""
        results = self._predictions
        if self._distributed:
            comm.synchronize()
            results = list(itertools.chain.from_iterable(comm.gather(results, dst=0)))
            if not comm.is_main_process():
                return {}
        truth = read_evaluation_set(self._truth_file)
        names = self._class_names or truth.class_names
        ids = dict(zip(truth.class_names, truth.category_ids))
        unlisted = max(truth.category_ids) + 1
        for result in results:
            index = result["category_id"]
            if index >= len(names):
                raise InputError(
                    f"{self._truth_file}: a prediction of class {index}, expected one of {len(names)} "
                    f"({', '.join(names)}), counted from 0; MODEL.ROI_HEADS.NUM_CLASSES is that of other data"
                )
            result |= {"category": names[index], "category_id": ids.get(names[index], unlisted + index)}
        if self._folder:
            write_json(self._folder / "coco_instances_results.json", results)
        if not results:
            _logger.warning("The model predicted nothing: its AP is 0")
        evaluation = evaluate(truth.with_results(results, class_names=names), self._options)
        if self._folder:
            write_json(self._folder / "metrics.json", evaluation.to_json(), indent=2)
        return evaluation.detectron2_results()


def coco_results(cells: Cells, image_id: int) -> list[dict[str, Any]]:
    """Entries of a COCO results list: boxes ``[x, y, width, height]``, RLE, class indices for ``category_id``."""
    corners = cells.boxes.tolist()
    return [
        {
            "image_id": image_id,
            "category_id": category,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
            "segmentation": rle,
        }
        for (x0, y0, x1, y1), category, score, rle in zip(
            corners, cells.classes.tolist(), cells.scores.tolist(), cells.rles()
        )
    ]


RESULTS_FILE = "coco_instances_results.json"


@dataclass(frozen=True)
class RunFiles:
    """An evaluated run; parts are in the order train, val, test."""

    options: EvaluationOptions
    truth: Mapping[str, Path]  # COCO JSON by part
    predictions: Mapping[str, Path]  # COCO results by part
    config: str  # YAML


def find_run(run: Path, data_root: Path | None = None) -> RunFiles:
    """Find the files of the run in an ``OUTPUT_DIR``; ``data_root`` is by default that of its configuration.

    Raises InputError where the run holds no configuration or no predictions, or its data are gone.
    """
    config_file = run / "config.yaml"
    if not config_file.is_file():
        raise InputError(f"{config_file} is not there: expected the folder of a tools/train_net.py run")
    cfg = load_config(config_file)
    if data_root is None:
        data_root = Path(cfg.DATASETS.ROOT) if cfg.DATASETS.ROOT else default_root()
    files = {part: run / "inference" / f"bccd_{part}" / RESULTS_FILE for part in PARTS}
    predictions = {part: path for part, path in files.items() if path.is_file()}
    if not predictions:
        raise InputError(
            f"{run / 'inference'}: no bccd_val/{RESULTS_FILE} (or train, test), expected an evaluated run; evaluate it "
            "with 'python tools/train_net.py --config-file RUN/config.yaml --eval-only MODEL.WEIGHTS WEIGHTS'"
        )
    truth = {part: annotation_file(data_root, part) for part in predictions}
    for path in truth.values():
        if not path.is_file():
            raise InputError(f"{path} is not there: give what the run was evaluated on as --data-root")
    return RunFiles(
        EvaluationOptions.from_config(cfg), truth, predictions, config_file.read_text(encoding="utf-8")
    )
