"""One evaluator for all methods: whole images, at most 500 detections each, this project's metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import read_evaluation_set
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.io.images import read_image
from bccd_d2.structures.cells import Cells
from bccd_d2.structures.dataset_files import dataset_file

DETECTIONS = 500
"""Most cells an image may have; every method is set to it."""

Predict = Callable[[NDArray[np.uint8]], Cells]
"""From an image, (height, width, 3) uint8 BGR, to its cells in native pixels."""


class Evaluator:
    """Predicts every image of a part ("train", "val" or "test") of a converted data set and evaluates the cells.

    ``clock`` times the predictions. Raises InputError where the part or an image is not there, or no cell is annotated.
    """

    def __init__(
        self, data_root: Path, part: str = "val", clock: Callable[[], float] = time.process_time
    ) -> None:
        file = dataset_file(data_root, part)
        self._truth = read_evaluation_set(file)
        self._clock = clock
        missing = [image.file_name for image in self._truth.images if image.path is None]
        if missing:
            raise InputError(f"{file}: the image {missing[0]} is not there; convert again")
        if not any(len(image.truth) for image in self._truth.images):
            raise InputError(f"{file}: no annotated cell, so there is nothing to evaluate by")

    def __call__(self, predict: Predict) -> dict[str, Any]:
        """Fractions in [0, 1]: AP and AP50 of masks, F1 at IoU and score 0.5, Dice, AP and F1 of the interior.

        ``AP low`` and ``AP high`` are the 95 % interval over images, None for one image.
        """
        found, seconds = {}, 0.0
        for image in tqdm(self._truth.images, desc="predicting", unit="image", disable=None, leave=False):
            pixels = read_image(str(image.path))
            start = self._clock()
            found[image.image_id] = predict(pixels)
            seconds += self._clock() - start
        evaluated = evaluate(
            self._truth.with_predictions(found), EvaluationOptions(max_detections=DETECTIONS)
        ).intervals
        whole, interior = evaluated["all"], evaluated["interior"]
        return {
            **{name: whole[name].value for name in ("AP", "AP50", "F1", "Dice")},
            **{f"interior {name}": interior[name].value for name in ("AP", "F1")},
            "AP low": whole["AP"].low,
            "AP high": whole["AP"].high,
            "seconds an image": seconds / len(found),
        }
