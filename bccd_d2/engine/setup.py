"""What every run does first: read the configuration, register the data, check that both agree."""

from __future__ import annotations

import logging
import shutil
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from bccd_d2.config import load_config
from bccd_d2.data.registration import class_names, dataset_dicts, register_bccd, use_classes
from bccd_d2.engine.data_check import check_data
from bccd_d2.engine.progress import quiet_console
from bccd_d2.errors import InputError
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.files import LOCK_FILE, replacing, write_json
from bccd_d2.io.coco_images import image_root
from bccd_d2.structures.cell_size import annotated_diameter
from bccd_d2.structures.coco import read_coco, subset
from bccd_d2.structures.dataset_files import dataset_file, default_root

_FAST_IMAGES = 2
# Two iterations, after each of which everything is due that a long run does now and then.
FAST_OPTIONS: Sequence[str] = (
    *("SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "1", "SOLVER.CHECKPOINT_PERIOD", "1"),
    *("TEST.EVAL_PERIOD", "1", "TEST.VALIDATION_LOSS_PERIOD", "2"),
)


def output_folder(config_file: str | Path, options: Sequence[str], *, fast: bool) -> Path:
    """``OUTPUT_DIR`` of a run, or ``fast_dev_run`` in it; known before the run, which needs it to itself."""
    folder = Path(load_config(config_file, options).OUTPUT_DIR)
    return folder / "fast_dev_run" if fast else folder


def setup_config(
    config_file: str | Path,
    options: Sequence[str] = (),
    data_root: str | None = None,
    *,
    training: bool = True,
    fast: bool = False,
) -> CfgNode:
    """Checked configuration of a run on registered data, not frozen.

    ``DATASETS.ROOT`` and ``DATASETS.CLASS_NAMES`` are filled in, and for a training ``INPUT.CELL_DIAMETER``.
    ``options`` win over the file, ``data_root``, a folder that ``tools/convert_bccd.py`` wrote, over ``DATASETS.ROOT``.
    With ``fast`` two iterations on two images of each part go to ``fast_dev_run`` in ``OUTPUT_DIR``, which is emptied.
    Raises InputError as :func:`bccd_d2.config.load_config` and :func:`bccd_d2.data.registration.register_bccd`; or
    where the data's classes are not those of the configuration, or a data set has no annotations.
    """
    cfg = load_config(config_file, [*options, *(FAST_OPTIONS if fast else ())], training=training)
    EvaluationOptions.from_config(cfg)  # refuses what the evaluation at the end would refuse
    if data_root is not None:
        cfg.DATASETS.ROOT = data_root
    root = Path(cfg.DATASETS.ROOT or default_root())
    registered = register_bccd(root)
    wanted = tuple(dict.fromkeys((*(cfg.DATASETS.TRAIN if training else ()), *cfg.DATASETS.TEST)))
    for name in wanted:
        if name not in registered and name not in DatasetCatalog.list():
            hint = "" if name in cfg.DATASETS.TRAIN else "; 'DATASETS.TEST ()' trains without an evaluation"
            raise InputError(
                f"DATASETS: {name} has no annotation file; found {', '.join(sorted(registered))}{hint}"
            )
    used = [name for name in wanted if name in registered]
    if fast:
        folder = Path(cfg.OUTPUT_DIR) / "fast_dev_run"
        if comm.is_main_process():
            _empty(folder)
            reduced_data(root, folder / "data", used)
        comm.synchronize()
        cfg.OUTPUT_DIR, cfg.DATASETS.ROOT = str(folder), str(folder / "data")
        registered = register_bccd(folder / "data")
    first = registered[used[0]] if used else next(iter(registered.values()))
    names = list(cfg.DATASETS.CLASS_NAMES) or class_names(read_coco(first))
    if len(names) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise InputError(
            f"MODEL.ROI_HEADS.NUM_CLASSES: found {cfg.MODEL.ROI_HEADS.NUM_CLASSES}, expected {len(names)}, for the "
            f"data have {', '.join(names)}"
        )
    cfg.DATASETS.CLASS_NAMES = names
    use_classes(
        {name: registered[name] for name in used}, names, training=cfg.DATASETS.TRAIN if training else ()
    )
    check_data(cfg, training=training)
    if training and not cfg.INPUT.CELL_DIAMETER:
        cells = (one for record in dataset_dicts(cfg.DATASETS.TRAIN) for one in record["annotations"])
        cfg.INPUT.CELL_DIAMETER = round(annotated_diameter(cells, dict(enumerate(names)), fewest=1), 1)
    return cfg


def reduced_data(root: Path, out: Path, names: Sequence[str]) -> None:
    """Write the annotations of the first two images of the data sets ``names`` of ``root`` to ``out``."""
    for name in names:
        file = dataset_file(root, name)
        content = read_coco(file)
        annotated = {annotation["image_id"] for annotation in content["annotations"]}
        # Images with cells first: training leaves out the others.
        images = sorted(content["images"], key=lambda image: image["id"] not in annotated)[:_FAST_IMAGES]
        write_json(out / file.relative_to(root), subset(content, images, image_root(content, file)))


def start_run(cfg: CfgNode, arguments: Namespace) -> None:
    """What Detectron2's ``default_setup`` does, with our log messages, a short console and config.yaml written whole.

    Detectron2 writes config.yaml in place: a run that resumes when the disk is full would leave an empty one, and the
    checkpoints beside it could not be loaded.
    """
    logging.raiseExceptions = False  # a log that cannot be written is no reason for a traceback a line
    for name in ("fvcore", "bccd_d2"):
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name=name)
    logger = setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank())
    quiet_console()
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", arguments)
    logger.info("Full config:\n%s", cfg.dump())
    if comm.is_main_process():
        with replacing(Path(cfg.OUTPUT_DIR) / "config.yaml") as temporary:
            temporary.write_text(cfg.dump(), encoding="utf-8")
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
    if not arguments.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


def _empty(folder: Path) -> None:
    """Delete what is in a folder, but for the lock that this run holds."""
    for path in folder.glob("*"):
        if path.name == LOCK_FILE:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
