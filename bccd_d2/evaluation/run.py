"""Reads back what a run was evaluated on and what it predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bccd_d2.config import load_config
from bccd_d2.data.preprocessing import read_image
from bccd_d2.data.registration import PARTS, annotation_file, default_root
from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import read_evaluation_set
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.structures.cells import Cells

RESULTS_FILE = "coco_instances_results.json"


@dataclass(frozen=True)
class RunFiles:
    """An evaluated run.

    Attributes:
        options: of its evaluation, from its configuration.
        truth: COCO JSON by part (``"val"``, ``"test"``), the parts in the order train, val, test.
        predictions: COCO results of the same parts.
        config: its configuration, YAML.
    """

    options: EvaluationOptions
    truth: Mapping[str, Path]
    predictions: Mapping[str, Path]
    config: str


def find_run(run: Path, data_root: Path | None = None) -> RunFiles:
    """Find the files of a run.

    Args:
        run: ``OUTPUT_DIR`` of tools/train_net.py.
        data_root: folder that tools/convert_bccd.py wrote; ``None`` goes by the run's configuration.

    Raises:
        InputError: the run holds no configuration or no predictions, or its data are gone.
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
            raise InputError(
                f"{path} is not there: expected what the run {run} was evaluated on; give --data-root"
            )
    return RunFiles(
        EvaluationOptions.from_config(cfg.TEST), truth, predictions, config_file.read_text(encoding="utf-8")
    )


def load_predictions(run: Path, dataset: str, score_threshold: float) -> dict[str, Any]:
    """Truth and predictions of one image of an evaluated data set: the one whose number of true cells is the median.

    Args:
        run: ``OUTPUT_DIR`` of the run.
        dataset: a name such as ``"bccd_val"``.
        score_threshold: leaves out predictions below it.

    Returns:
        ``image`` (height, width, 3) uint8 BGR, ``true_masks`` and ``predicted_masks`` (lists of (height, width)
        bool), ``true_classes`` and ``predicted_classes`` (lists of class indices), ``class_names``.

    Raises:
        InputError: see :func:`find_run`; or the run was not evaluated on the data set, or the image is gone.
    """
    files, part = find_run(run), dataset.rpartition("_")[2]
    if part not in files.predictions:
        raise InputError(f"{run}: no predictions for {dataset}, only for {', '.join(files.predictions)}")
    found = read_evaluation_set(files.truth[part], files.predictions[part])
    image = sorted(found.images, key=lambda i: (len(i.truth), i.image_id))[len(found.images) // 2]
    if image.path is None:
        raise InputError(f"{files.truth[part]}: the image {image.file_name} is not there; convert again")
    predicted = image.predictions[image.predictions.scores >= score_threshold]

    def masks(cells: Cells) -> list[Any]:
        return [cells.full_mask(index) for index in range(len(cells))]

    return {
        "image": read_image(str(image.path)),
        "true_masks": masks(image.truth),
        "true_classes": image.truth.classes.tolist(),
        "predicted_masks": masks(predicted),
        "predicted_classes": predicted.classes.tolist(),
        "class_names": list(found.class_names),
    }
