"""Detectron2's evaluator over :func:`bccd_d2.evaluation.evaluate.evaluate`: what files get, a run gets."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.evaluation import COCOEvaluator

from bccd_d2.evaluation.dataset import read_evaluation_set
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.files import write_json
from bccd_d2.structures.cells import Cells


class CellEvaluator(COCOEvaluator):
    """Collects predictions as Detectron2's COCO evaluator does, and judges them by this project's rules.

    The results are in percent, as everywhere in Detectron2, in the groups ``"bbox"``, ``"segm"``, ``"bbox_interior"``,
    ``"segm_interior"``, ``"overlap"``, ``"instances"`` and ``"instances_interior"``; see
    :meth:`bccd_d2.evaluation.evaluate.Evaluation.detectron2_results`.
    """

    def __init__(
        self,
        dataset_name: str,
        options: EvaluationOptions,
        *,
        distributed: bool = True,
        output_dir: str | None = None,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set with the metadata ``json_file``.
            options: ``max_detections`` is that of the model.
            distributed: gather the predictions of all processes.
            output_dir: where ``coco_instances_results.json`` and ``metrics.json`` are written; ``None`` for nowhere.
        """
        # Detectron2 would write the predictions once more, in place, where a killed process leaves half a file.
        super().__init__(dataset_name, ("bbox", "segm"), distributed, None, use_fast_impl=False)
        self._folder = Path(output_dir) if output_dir else None
        self._options = options

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Note the predictions of a batch.

        Args:
            inputs: dataset dicts with ``image_id``.
            outputs: with ``cells`` (``Cells``), or with Detectron2's ``instances``, whose masks of
                the image's size take many times as long.
        """
        for image, output in zip(inputs, outputs):
            if "cells" in output:
                found = coco_results(output["cells"], image["image_id"])
                self._predictions.append({"image_id": image["image_id"], "instances": found})
            else:
                super().process([image], [output])

    def _eval_predictions(self, predictions: list[dict[str, Any]], img_ids: list[int] | None = None) -> None:
        results = list(itertools.chain.from_iterable(x["instances"] for x in predictions))
        truth = read_evaluation_set(Path(self._metadata.json_file))
        for result in results:
            result["category_id"] = truth.category_ids[result["category_id"]]
        if self._folder:
            write_json(self._folder / "coco_instances_results.json", results)
        if not results:
            self._logger.warning("The model predicted nothing: its AP is 0")
        evaluation = evaluate(truth.with_results(results), self._options)
        if self._folder:
            write_json(self._folder / "metrics.json", evaluation.to_json(), indent=2)
        self._results.update(evaluation.detectron2_results())


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
