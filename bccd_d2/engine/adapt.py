"""Adapts a trained model to the images of another laboratory, with a few corrected annotations."""

from __future__ import annotations

import logging
import shutil
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import ResNet
from tabulate import tabulate

from bccd_d2.config import load_config
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.engine.corrected import join_classes, read_corrected, write_data, write_replay
from bccd_d2.engine.run_folder import record_run, refuse_mixing, run_folder
from bccd_d2.engine.setup import setup_config, start_run
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.errors import InputError
from bccd_d2.files import replacing, write_json
from bccd_d2.inference.model_files import ModelFiles
from bccd_d2.modeling.checkpoint_files import read_checkpoint
from bccd_d2.modeling.weights import BCCDCheckpointer, join_rows, load_weights, weights_errors
from bccd_d2.structures.cell_size import annotated_diameter
from bccd_d2.structures.dataset_files import annotation_file

_logger = logging.getLogger(__name__)
METRICS = {"F1": ("instances", "F1"), "mask mAP@0.5": ("segm", "AP50"), "mask AP": ("segm", "AP")}
"""Names of the figures in the table, and where Detectron2's results hold them."""
# As MODEL.BACKBONE.FREEZE_AT: stem and first stage.
_FROZEN_STAGES = 2
# Parts of the names of tensors with rows per class.
_PER_CLASS = (".cls_score.", ".bbox_pred.", ".mask_head.predictor.")


@dataclass(frozen=True)
class Adaptation:
    """What an adaptation did; figures are in percent, by the names of :data:`METRICS`."""

    images: int  # that were trained on
    held_back: int  # that were not; 0: the figures are of those trained on
    before: Mapping[str, float]  # figures of the start model
    after: Mapping[str, float]  # of the adapted model
    diameter: float  # median of the corrected cells, native pixels
    seconds: float  # of the training, evaluations included
    kept_start: bool = False  # the adapted model was worse, so the folder holds the start weights

    def table(self) -> str:
        """The figures as a table in Markdown."""
        where = f"{self.held_back} held-back images"
        if not self.held_back:
            where = f"the {self.images} training images: too few to hold one back, so this flatters"
        rows = [[name, self.before[name] / 100, self.after[name] / 100] for name in METRICS]
        return tabulate(rows, [where, "before", "after"], tablefmt="pipe", floatfmt=".3f")


class AdaptationTrainer(BCCDTrainer):
    """Trains what few images can teach: batch norms, stem and first stage stay as they are."""

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """The model with its first layers and all its batch norms frozen."""
        model = super().build_model(cfg)
        FrozenBatchNorm2d.convert_frozen_batchnorm(model)
        bottom_up = getattr(model.backbone, "bottom_up", model.backbone)
        if isinstance(bottom_up, ResNet):
            bottom_up.freeze(_FROZEN_STAGES)
        return model


def adapt(
    corrected: Path,
    output: Path,
    start: ModelFiles,
    *,
    kind: str | None = None,
    images: Path | None = None,
    spec: DatasetSpec | None = None,
    replay: Path | None = None,
    options: Sequence[str] = (),
    resume: bool = False,
) -> Adaptation:
    """Train a model further on corrected annotations and compare it with what it was on images held back.

    ``corrected`` are annotations as :func:`bccd_d2.conversion.convert.convert_annotations` reads them
    (``kind``, ``images``), or masks or label images with a ``spec``. ``replay`` is a data set of
    ``tools/convert_bccd.py`` whose train part is mixed in. ``options`` win over the start model's configuration and
    over the schedule. ``output`` gets the data as COCO JSON, and what a training writes. Raises InputError for bad
    input, or where ``output`` holds a training and ``resume`` is false.
    """
    with run_folder(output) as folder:
        refuse_mixing(folder, resume)
        before, data = load_config(start.config), folder / "data"
        names = list(before.DATASETS.CLASS_NAMES)
        if not names:
            raise InputError(f"{start.config}: DATASETS.CLASS_NAMES is [], expected the classes of the model")
        document, root = read_corrected(corrected, kind, images, spec)
        classes = join_classes(document, names, str(corrected))
        held_back, trained_on = write_data(document, root, classes, data)
        repeats = 0 if replay is None else write_replay(replay, classes, len(trained_on), data)
        named = {category["id"]: category["name"] for category in document["categories"]}
        diameter = round(annotated_diameter(document["annotations"], named, fewest=1), 1)
        chosen = _options(before, diameter, classes, len(trained_on), bool(held_back), repeats)
        paths = ["OUTPUT_DIR", str(folder), "MODEL.WEIGHTS", start.weights]
        cfg = setup_config(start.config, [*chosen, *options, *paths], str(data))
        cfg.freeze()
        start_run(cfg, Namespace(eval_only=False, corrected=str(corrected), start=start.weights))
        _logger.info(
            f"{len(trained_on)} corrected images to train on, {len(held_back)} held back; classes {', '.join(classes)}"
        )
        trainer = AdaptationTrainer(cfg)
        with weights_errors(start.weights):
            _JoinedCheckpointer(trainer.model, cfg, names).load(start.weights)
        first = _figures(trainer.test(cfg, trainer.model))
        if resume and trainer.checkpointer.has_checkpoint():
            trainer.resume_or_load(resume=True)
        files = {f"bccd_{part}": annotation_file(data, part) for part in ("train", "val")}
        record_run(folder, cfg.SEED, files, resumed=trainer.start_iter > 0)
        began = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - began
        results = _evaluate_final(trainer, folder)
        if _take_best(folder, results):
            results = _evaluate_final(trainer, folder)
        last = _figures(results)
        kept_start = bool(held_back) and last["F1"] < first["F1"]
        if kept_start:
            with weights_errors(start.weights):
                _JoinedCheckpointer(trainer.evaluated_model, cfg, names).load(start.weights)
            with replacing(folder / "model_final.pth") as temporary:
                torch.save({"model": trainer.evaluated_model.state_dict()}, temporary)
        result = Adaptation(len(trained_on), len(held_back), first, last, diameter, seconds, kept_start)
        write_json(folder / "adaptation.json", asdict(result), indent=2)
        return result


def _options(
    before: CfgNode, diameter: float, classes: Sequence[str], images: int, held_back: bool, repeats: int
) -> list[str]:
    """What the start model's configuration does not say: data, classes, magnification and schedule."""
    iterations = min(400, 125 + 25 * images)
    values: dict[str, Any] = {
        "MODEL.ROI_HEADS.NUM_CLASSES": len(classes),
        "DATASETS.CLASS_NAMES": list(classes),
        "DATASETS.TRAIN": ("bccd_train",) * max(1, repeats) + ("replay_train",) * bool(repeats),
        "DATASETS.TEST": ("bccd_val",) if held_back else ("bccd_train",),
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.OPTIMIZER": "AdamW",
        "SOLVER.BASE_LR": 0.0003,
        "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR",
        "SOLVER.WARMUP_ITERS": 20,
        "SOLVER.MAX_ITER": iterations,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.CHECKPOINT_PERIOD": iterations,
        "MODEL_EMA.ENABLED": True,
        "MODEL_EMA.DECAY": 0.98,
        "TEST.VALIDATION_LOSS_PERIOD": 0,
        # Images that are trained on must not choose when to stop.
        "TEST.EVAL_PERIOD": 50 if held_back else 0,
        "TEST.PATIENCE": 3 if held_back else 0,
    }
    if list(classes) != list(before.DATASETS.CLASS_NAMES):  # these may name classes that are gone
        values |= {"MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS": [], "MODEL.ROI_BOX_HEAD.CLASS_WEIGHTS": []}
    if before.INPUT.CELL_DIAMETER and diameter and not before.INPUT.AUGMENTATION.CELL_DIAMETERS:
        # Cells get the size in network pixels that the start model knows; prediction needs no --diameter.
        scale = before.INPUT.SCALE * before.INPUT.CELL_DIAMETER / diameter
        values |= {"INPUT.SCALE": round(scale, 4), "INPUT.CELL_DIAMETER": diameter}
    return [str(word) for pair in values.items() for word in pair]


class _JoinedCheckpointer(BCCDCheckpointer):
    """Loads a model of the classes ``old``, see :func:`join_heads`."""

    def __init__(self, model: torch.nn.Module, cfg: CfgNode, old: Sequence[str]) -> None:
        super().__init__(model)
        self._old, self._new = old, cfg.DATASETS.CLASS_NAMES

    def _load_file(self, filename: str) -> dict[str, Any]:
        content = super()._load_file(filename)
        return {
            **content,
            "model": join_heads(content["model"], self.model.state_dict(), self._old, self._new),
        }


def join_heads(
    tensors: Mapping[str, torch.Tensor],
    target: Mapping[str, torch.Tensor],
    old: Sequence[str],
    new: Sequence[str],
) -> dict[str, torch.Tensor]:
    """Weights for a model of other classes: rows of the same class stay, new classes get the mean of the old ones.

    ``target`` are tensors of the shapes that are wanted, ``old`` and ``new`` the names of classes by index.
    """
    joined = dict(tensors)
    for key, tensor in tensors.items():
        if list(old) == list(new) or not any(part in key for part in _PER_CLASS):
            continue
        per_class = tensor[:-1] if ".cls_score." in key else tensor  # the background's row is the last one
        size = 4 if ".bbox_pred." in key else 1
        wanted = size * len(new) + len(tensor) - len(per_class)
        if len(per_class) != size * len(old) or len(target[key]) != wanted:
            continue  # one for all classes
        rows = per_class.reshape(len(old), size, *tensor.shape[1:])
        chosen = join_rows(rows, [[index for index, one in enumerate(old) if one == name] for name in new])
        joined[key] = torch.cat([chosen.flatten(0, 1), tensor[len(per_class) :]])
    return joined


def _figures(results: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(results.get(group, {}).get(key, 0.0)) for name, (group, key) in METRICS.items()}


def _evaluate_final(trainer: BCCDTrainer, folder: Path) -> Mapping[str, Any]:
    load_weights(trainer.evaluated_model, str(folder / "model_final.pth"))
    results: Mapping[str, Any] = trainer.test(trainer.cfg, trainer.evaluated_model)
    return results


def _take_best(folder: Path, final: Mapping[str, Any]) -> bool:
    """Make the best evaluated weights the final ones, where they are better by their metric; whether they were."""
    best = folder / "model_best.pth"
    if not best.is_file():
        return False
    content = read_checkpoint(best)
    group, _, metric = content["metric"].partition("/")
    if content["value"] <= final[group][metric]:
        return False
    with replacing(folder / "model_final.pth") as temporary:
        shutil.copyfile(best, temporary)
    return True
