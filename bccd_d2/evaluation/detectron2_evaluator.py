"""Detectron2's evaluator over :func:`bccd_d2.evaluation.evaluate.evaluate`: what files get, a run gets."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import read_evaluation_set
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.files import write_json
from bccd_d2.structures.cells import Cells

RESULTS_FILE = "coco_instances_results.json"
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
        output_dir: str | None = None,
    ) -> None:
        """``class_names`` are the model's, by class index, joined to those of the data set by name."""
        self._truth_file = Path(MetadataCatalog.get(dataset_name).json_file)
        self._folder = Path(output_dir) if output_dir else None
        self._options = options
        self._class_names = class_names
        self.reset()

    def reset(self) -> None:
        """Forget the predictions."""
        self._predictions: list[dict[str, Any]] = []

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Note the ``cells`` of a batch as entries of a COCO results list, with class indices for ``category_id``."""
        for image, output in zip(inputs, outputs):
            cells: Cells = output["cells"]
            x0, y0, x1, y1 = cells.boxes.T
            boxes = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1).tolist()
            values = zip(cells.classes.tolist(), boxes, cells.scores.tolist(), cells.rles())
            self._predictions += [
                {
                    "image_id": image["image_id"],
                    "category_id": category,
                    "bbox": box,
                    "score": score,
                    "segmentation": rle,
                }
                for category, box, score, rle in values
            ]

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Evaluate the predictions of all processes; nothing in others than the main one."""
        comm.synchronize()
        results = list(itertools.chain.from_iterable(comm.gather(self._predictions, dst=0)))
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
            write_json(self._folder / RESULTS_FILE, results)
        if not results:
            _logger.warning("The model predicted nothing: its AP is 0")
        evaluation = evaluate(truth.with_results(results, class_names=names), self._options)
        if self._folder:
            write_json(self._folder / "metrics.json", evaluation.to_json(), indent=2)
        return evaluation.detectron2_results()
