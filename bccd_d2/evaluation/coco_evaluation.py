"""COCO's average precision with as many detections an image as the model may output."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation import COCOEvaluator
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from bccd_d2.files import write_json

NO_GROUND_TRUTH = "no ground truth"
_TASKS = ("bbox", "segm")


class CellCOCOEvaluator(COCOEvaluator):
    """Detectron2's COCO evaluator, for images that hold hundreds of cells.

    Stock COCO evaluation looks at the 100 best detections of an image, and a smear holds up to 300 cells. Here the
    limit is the model's own, ``TEST.DETECTIONS_PER_IMAGE``. COCO's size bins (32 and 96 px) are left out: they
    sort specks from cells. A class without ground truth has no average precision; it is named in the log and takes
    part in no mean.

    The results are in percent, as everywhere in Detectron2: ``{"bbox": {"AP", "AP50", "AP75", "AR"}, "segm": ...}``,
    with ``"AP-<class>"`` added where there is more than one class. A metric that cannot be computed is left out.
    """

    def __init__(
        self,
        dataset_name: str,
        max_detections: int,
        *,
        distributed: bool = True,
        output_dir: str | None = None,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set with the metadata ``json_file``.
            max_detections: how many detections an image are looked at, best score first.
            distributed: gather the predictions of all processes.
            output_dir: where ``coco_instances_results.json`` is written; ``None`` for nowhere.
        """
        super().__init__(dataset_name, _TASKS, distributed, output_dir, use_fast_impl=False)
        self._max_detections = max_detections

    def _eval_predictions(self, predictions: list[dict[str, Any]], img_ids: list[int] | None = None) -> None:
        coco_results = list(itertools.chain.from_iterable(x["instances"] for x in predictions))
        dataset_id = {v: k for k, v in self._metadata.thing_dataset_id_to_contiguous_id.items()}
        for result in coco_results:
            result["category_id"] = dataset_id[result["category_id"]]
        if self._output_dir:
            write_json(Path(self._output_dir) / "coco_instances_results.json", coco_results)
        for task in self._tasks:
            if not coco_results:
                self._logger.warning("The model predicted nothing: its %s AP is 0", task)
            self._results[task] = average_precision(
                self._coco_api, coco_results, task, self._max_detections, image_ids=img_ids
            )


def average_precision(
    coco_api: Any,
    coco_results: list[dict[str, Any]],
    task: str,
    max_detections: int,
    image_ids: list[int] | None = None,
) -> dict[str, float]:
    """COCO's average precision and recall (Lin et al. 2014), by pycocotools.

    Args:
        coco_api: ground truth, a ``pycocotools.coco.COCO``.
        coco_results: COCO results, boxes ``[x, y, width, height]`` and masks (RLE) in native pixels.
        task: ``"bbox"`` or ``"segm"``.
        max_detections: how many detections an image are looked at, best score first.
        image_ids: the images to look at; ``None`` for all.

    Returns:
        In percent: ``AP`` over IoU 0.50 to 0.95, ``AP50``, ``AP75``, ``AR`` (mean recall over the same IoUs), and
        ``AP-<class>`` where there is more than one class. A class without ground truth has no entry.
    """
    results = [{k: v for k, v in r.items() if not (task == "segm" and k == "bbox")} for r in coco_results]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco_api, coco_api.loadRes(results) if results else _no_results(coco_api), task)
        evaluation.params.maxDets = [max_detections]
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        if image_ids is not None:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
    # precision: (IoUs, recalls, classes, areas, limits); recall: (IoUs, classes, areas, limits); -1 without truth.
    precision = evaluation.eval["precision"][:, :, :, 0, 0]
    recall = evaluation.eval["recall"][:, :, 0, 0]
    names = [category["name"] for category in coco_api.loadCats(evaluation.params.catIds)]
    has_truth = recall[0] > -1
    logger = logging.getLogger(__name__)
    metrics: dict[str, float] = {}
    if has_truth.any():
        known = precision[:, :, has_truth]
        metrics = {
            "AP": 100 * float(known.mean()),
            "AP50": 100 * float(known[np.isclose(evaluation.params.iouThrs, 0.5)].mean()),
            "AP75": 100 * float(known[np.isclose(evaluation.params.iouThrs, 0.75)].mean()),
            "AR": 100 * float(recall[:, has_truth].mean()),
        }
    if len(names) > 1:
        for index, name in enumerate(names):
            if has_truth[index]:
                metrics[f"AP-{name}"] = 100 * float(precision[:, :, index].mean())
    rows = [[key, f"{value:.2f}"] for key, value in metrics.items()]
    rows += [[f"AP-{name}", NO_GROUND_TRUTH] for name, known in zip(names, has_truth) if not known]
    logger.info(
        "%s, at most %d detections an image:\n%s",
        task,
        max_detections,
        tabulate(rows, headers=["metric", "percent"], tablefmt="pipe", disable_numparse=True),
    )
    return metrics


def _no_results(coco_api: Any) -> Any:
    """An empty result set, which ``COCO.loadRes`` cannot make."""
    empty = type(coco_api)()
    empty.dataset = {
        "images": coco_api.dataset["images"],
        "categories": coco_api.dataset["categories"],
        "annotations": [],
    }
    empty.createIndex()
    return empty
