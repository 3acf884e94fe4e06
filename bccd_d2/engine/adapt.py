"""Adapts a trained model to images of another laboratory, with a few corrected annotations."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import ResNet

from bccd_d2.config import load_config
from bccd_d2.conversion.convert import ConversionOptions, convert_dataset
from bccd_d2.conversion.dataset_spec import DatasetSpec
from bccd_d2.conversion.import_annotations import convert_annotations
from bccd_d2.conversion.split_plans import SplitPlan
from bccd_d2.conversion.splits import SEED, deal_order
from bccd_d2.data.registration import annotation_file, median_diameter
from bccd_d2.engine.run_folder import record_run, refuse_mixing, run_folder
from bccd_d2.engine.setup import setup_config, start_run
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.errors import InputError
from bccd_d2.files import replacing, write_json
from bccd_d2.inference.model_zoo import ModelFiles
from bccd_d2.modeling.checkpoint_files import read_checkpoint
from bccd_d2.modeling.weights import load_weights, weights_errors
from bccd_d2.structures.coco import image_root, read_coco, unlabeled_categories
from bccd_d2.structures.names import match_classes

_logger = logging.getLogger(__name__)
METRICS = {
    "F1": ("instances", "F1"),
    "mask mAP@0.5": ("segm", "AP50"),
    "mask AP": ("segm", "AP"),
    "recall": ("instances", "recall"),
    "precision": ("instances", "precision"),
}
"""Names of the figures in the table, and where Detectron2's results hold them."""
FEWEST_TO_HOLD_BACK = 3
MOST_HELD_BACK = 20
_HELD_BACK_SHARE = 0.2
# Crops of replay data among those of corrected images, and how many replay images are enough for that.
_CORRECTED_PER_REPLAY = 2
_FROZEN_STAGES = 2
"""As MODEL.BACKBONE.FREEZE_AT: stem and first stage."""
# Tensors with rows per class: of the box head, (classes + background), 4 per class, and of the mask head.
_PER_CLASS = (".cls_score.", ".bbox_pred.", ".mask_head.predictor.")


@dataclass(frozen=True)
class Adaptation:
    """What an adaptation did.

    Attributes:
        classes: of the adapted model.
        images: number of corrected images that were trained on.
        held_back: number of images that were not; 0 if the figures are those of the images that were trained on.
        before: figures of the start model, in percent, by the names of :data:`METRICS`.
        after: of the adapted model.
        diameter: median of the corrected cells in native pixels.
        seconds: that the training took, evaluations included.
    """

    classes: tuple[str, ...]
    images: int
    held_back: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    diameter: float
    seconds: float

    def table(self) -> str:
        """The figures as a table in Markdown."""
        where = (
            f"{self.held_back} held-back images"
            if self.held_back
            else f"the {self.images} training images (too few to hold one back, so this flatters)"
        )
        rows = [f"| on {where} | before | after |", "|---|---|---|"]
        rows += [f"| {name} | {self.before[name] / 100:.3f} | {self.after[name] / 100:.3f} |" for name in METRICS]
        return "\n".join(rows)


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

    Args:
        corrected: annotations, see :func:`bccd_d2.conversion.import_annotations.convert_annotations`.
        output: gets the data as COCO JSON, and what a training writes: ``config.yaml``, ``model_final.pth``.
        start: model that the training starts from.
        kind: format of the annotations; recognised where not given.
        images: folder of the images, where they are not beside the annotations.
        spec: of masks or label images, in place of annotations.
        replay: data set of ``tools/convert_bccd.py`` whose train part is mixed in.
        options: ``["KEY", "VALUE", ...]``, which win over the start model's configuration and over the schedule.
        resume: continue an interrupted adaptation.

    Raises:
        InputError: bad input, see the message; or ``output`` holds a training.
    """
    with run_folder(output) as folder:
        refuse_mixing(folder, resume)
        before = load_config(start.config)
        names = list(before.DATASETS.CLASS_NAMES)
        if not names:
            raise InputError(f"{start.config}: DATASETS.CLASS_NAMES is [], expected the classes of the model")
        document, root = _read_corrected(corrected, kind, images, spec)
        classes = _classes(document, names, str(corrected))
        held_back, trained_on = write_data(document, root, classes, folder / "data")
        replays = 0 if replay is None else _write_replay(replay, classes, len(trained_on), folder / "data")
        chosen = _options(before, start, classes, folder, len(trained_on), len(held_back), replays)
        cfg = setup_config(start.config, [*chosen, *options], str(folder / "data"))
        cfg.freeze()
        start_run(cfg, Namespace(eval_only=False, corrected=str(corrected), start=start.weights))
        _logger.info(
            "%d corrected images to train on, %d held back; classes %s; %d iterations",
            len(trained_on), len(held_back), ", ".join(classes), cfg.SOLVER.MAX_ITER,
        )  # fmt: skip
        trainer = AdaptationTrainer(cfg)
        _load_start(trainer.model, start.weights, names, classes)
        first = _figures(trainer.test(cfg, trainer.model))
        if resume and trainer.checkpointer.has_checkpoint():
            trainer.resume_or_load(resume=True)
        files = {name: annotation_file(folder / "data", name.split("_")[1]) for name in ("bccd_train", "bccd_val")}
        record_run(folder, cfg.SEED, files, resumed=trainer.start_iter > 0)
        began = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - began
        _take_best(folder, trainer._last_eval_results.get("segm", {}).get("AP", 0.0))
        load_weights(trainer.evaluated_model, str(folder / "model_final.pth"))
        last = _figures(trainer.test(cfg, trainer.evaluated_model))
        diameter = median_diameter([files["bccd_train"]])
        result = Adaptation(tuple(classes), len(trained_on), len(held_back), first, last, diameter, seconds)
        write_json(folder / "adaptation.json", vars(result), indent=2)
        return result


def _read_corrected(
    corrected: Path, kind: str | None, images: Path | None, spec: DatasetSpec | None
) -> tuple[dict[str, Any], Path]:
    """The annotations as one COCO document, and the folder that its file names are relative to."""
    everything = SplitPlan("random", ratios=(1.0, 0.0, 0.0))
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "data"
        if spec is None:
            convert_annotations(corrected, out, ConversionOptions(split=everything), kind=kind, images=images)
        else:
            convert_dataset(corrected, out, ConversionOptions(spec, split=everything))
        document = read_coco(annotation_file(out, "train"))
        return document, image_root(document, annotation_file(out, "train")).resolve()


def _classes(document: Mapping[str, Any], names: Sequence[str], where: str) -> list[str]:
    """Classes of the adapted model: the start model's where they have all of the annotations', else the annotations'.

    Categories of ``document`` are renamed to the start model's.
    """
    known = dict(enumerate(names))
    matches = match_classes(
        {c["id"]: c["name"] for c in document["categories"]}, known, where=where, required=False
    )
    for category in document["categories"]:
        category["name"] = known.get(matches.get(category["id"], -1), category["name"])
    if len(matches) == len(document["categories"]):
        return list(names)
    classes = [category["name"] for category in document["categories"]]
    _logger.warning(
        "%s: classes %s, the start model has %s: the adapted model has those of the annotations, and what is new "
        "starts from the mean of the old ones",
        where, ", ".join(classes), ", ".join(names),
    )  # fmt: skip
    return classes


def write_data(
    document: Mapping[str, Any], root: Path, classes: Sequence[str], out: Path
) -> tuple[list[str], list[str]]:
    """Divide corrected images and write them as a data set of ``bccd_train`` and ``bccd_val``.

    Args:
        document: COCO, with categories that are among ``classes``. Classes that none of its cells has are taken for not
            annotated: they are no negatives, neither in training nor in the evaluation.
        root: folder of the images.
        classes: of the model.
        out: folder of the data set.

    Returns:
        File names of the images that are held back, none of fewer than :data:`FEWEST_TO_HOLD_BACK`, and of the others.
    """
    ids = {c["id"]: c["name"] for c in document["categories"]}
    with_cells = {a["image_id"] for a in document["annotations"] if not a["iscrowd"]}
    ordered = deal_order([i["file_name"] for i in document["images"] if i["id"] in with_cells], SEED)
    if not ordered:
        raise InputError(f"{root}: found no image with a cell, expected corrected cells to train on")
    number = 0
    if len(ordered) >= FEWEST_TO_HOLD_BACK:
        number = min(MOST_HELD_BACK, max(1, round(_HELD_BACK_SHARE * len(ordered))))
    held_back = ordered[:number]
    trained_on = sorted({i["file_name"] for i in document["images"]} - set(held_back))
    absent = set(classes) - {ids[a["category_id"]] for a in document["annotations"] if not a["iscrowd"]}
    for part, chosen in (("train", trained_on), ("val", held_back)):
        _write_part(document, root, classes, absent, chosen, annotation_file(out, part))
    return held_back, trained_on


def _write_replay(replay: Path, classes: Sequence[str], corrected: int, out: Path) -> int:
    """Write some images of a data set below ``out``; how often corrected images come for each of them to be half."""
    file = annotation_file(replay, "train")
    if not file.is_file():
        raise InputError(f"--replay: {file} is not there; expected a folder that tools/convert_bccd.py wrote")
    document = read_coco(file)
    known = dict(enumerate(classes))
    listed = {c["id"]: c["name"] for c in document["categories"]}
    matches = match_classes(listed, known, where=str(file))
    for category in document["categories"]:
        category["name"] = known[matches[category["id"]]]
    chosen = deal_order([i["file_name"] for i in document["images"]], SEED)[: max(10, 2 * corrected)]
    absent = set(classes) - {c["name"] for c in document["categories"]}
    root = image_root(document, file).resolve()
    _write_part(document, root, classes, absent, chosen, annotation_file(out / "replay", "train"))
    return -(-_CORRECTED_PER_REPLAY * len(chosen) // corrected)


def _write_part(
    document: Mapping[str, Any],
    root: Path,
    classes: Sequence[str],
    absent: set[str],
    chosen: Sequence[str],
    file: Path,
) -> None:
    """Write the images of ``chosen`` with all classes, those of ``absent`` as not annotated."""
    categories = list(document["categories"])
    free = 1 + max(c["id"] for c in categories)
    missing = [name for name in classes if name not in {c["name"] for c in categories}]
    categories += [{"id": number, "name": name} for number, name in enumerate(missing, free)]
    images = []
    for image in document["images"]:
        if image["file_name"] in chosen:
            unlabeled = {*unlabeled_categories(document, image, str(file)), *absent}
            images.append({**image, "unlabeled_categories": sorted(unlabeled)})
    kept = {image["id"] for image in images}
    content = {
        "info": {**document.get("info", {}), "image_root": str(root)},
        "images": images,
        "annotations": [a for a in document["annotations"] if a["image_id"] in kept],
        "categories": categories,
    }
    write_json(file, content)


def _options(
    before: CfgNode,
    start: ModelFiles,
    classes: Sequence[str],
    folder: Path,
    images: int,
    held_back: int,
    replays: int,
) -> list[str]:
    """What the configuration of the start model does not say: data, classes, magnification and schedule."""
    iterations = min(400, 125 + 25 * images)
    values: dict[str, Any] = {
        "OUTPUT_DIR": folder,
        "MODEL.WEIGHTS": start.weights,
        "MODEL.ROI_HEADS.NUM_CLASSES": len(classes),
        "DATASETS.CLASS_NAMES": list(classes),
        "DATASETS.TRAIN": ("bccd_train",) * max(1, replays) + ("replay_train",) * bool(replays),
        "DATASETS.TEST": ("bccd_val",) if held_back else ("bccd_train",),
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.MAX_ITER": iterations,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.OPTIMIZER": "AdamW",
        "SOLVER.BASE_LR": 0.0003,
        "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR",
        "SOLVER.WARMUP_ITERS": 20,
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
    diameter = median_diameter([annotation_file(folder / "data", "train")])
    if before.INPUT.CELL_DIAMETER and diameter and not before.INPUT.AUGMENTATION.CELL_DIAMETERS:
        # Cells get the size in network pixels that the start model knows; prediction needs no --diameter.
        scale = before.INPUT.SCALE * before.INPUT.CELL_DIAMETER / diameter
        values |= {"INPUT.SCALE": round(scale, 4), "INPUT.CELL_DIAMETER": diameter}
    return [str(word) for pair in values.items() for word in pair]


def _load_start(model: torch.nn.Module, weights: str, old: Sequence[str], new: Sequence[str]) -> None:
    """Load the start model, the rows of its heads joined by the names of the classes."""
    with weights_errors(weights):
        tensors = join_heads(read_checkpoint(Path(weights))["model"], model.state_dict(), old, new)
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / Path(weights).with_suffix(".pth").name
            torch.save({"model": tensors}, path)
            load_weights(model, str(path))


def join_heads(
    tensors: Mapping[str, torch.Tensor],
    shapes: Mapping[str, torch.Tensor],
    old: Sequence[str],
    new: Sequence[str],
) -> dict[str, torch.Tensor]:
    """Weights for a model of other classes: rows of the same class stay, new classes get the mean of the old ones.

    Args:
        tensors: of a model of the classes ``old``.
        shapes: a state dict of the model of the classes ``new``.
        old: names of classes by index.
        new: likewise.
    """
    joined = dict(tensors)
    if list(old) == list(new):
        return joined
    for name, tensor in tensors.items():
        if not any(part in name for part in _PER_CLASS):
            continue
        classes = tensor[:-1] if ".cls_score." in name else tensor  # the background's row is the last one
        rows = classes.reshape(len(old), -1, *tensor.shape[1:])
        if name in shapes and len(shapes[name]) != len(new) * rows.shape[1] + len(tensor) - len(classes):
            continue  # one for all classes
        mean = rows.float().mean(0).to(rows.dtype)
        chosen = torch.stack([rows[list(old).index(one)] if one in old else mean for one in new])
        joined[name] = torch.cat([chosen.flatten(0, 1), tensor[len(classes) :]])
    return joined


def _figures(results: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(results.get(group, {}).get(key, 0.0)) for name, (group, key) in METRICS.items()}


def _take_best(folder: Path, last: float) -> None:
    """Make the best evaluated weights the final ones."""
    best = folder / "model_best.pth"
    if best.is_file() and read_checkpoint(best)["value"] > last:
        with replacing(folder / "model_final.pth") as temporary:
            shutil.copyfile(best, temporary)
