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
from bccd_d2.data.registration import (
    class_names,
    default_root,
    median_diameter,
    register_bccd,
    use_classes,
)
from bccd_d2.engine.data_check import check_data
from bccd_d2.engine.fast_dev_run import FAST_OPTIONS, reduced_data
from bccd_d2.engine.progress import quiet_console
from bccd_d2.errors import InputError
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.files import LOCK_FILE, replacing


def output_folder(config_file: str | Path, options: Sequence[str], *, fast: bool) -> Path:
    """``OUTPUT_DIR`` of a run, or ``fast_dev_run`` in it; known before the run, which needs it to itself.

    Raises:
        InputError: see :func:`bccd_d2.config.load_config`.
    """
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
    """Configuration of a run on registered data.

    Args:
        config_file: YAML file.
        options: ``["KEY", "VALUE", ...]``, which win over the file.
        data_root: folder that ``tools/convert_bccd.py`` wrote; wins over ``DATASETS.ROOT``.
        training: whether ``DATASETS.TRAIN`` is needed beside ``DATASETS.TEST``.
        fast: two iterations on two images of each part, see :mod:`bccd_d2.engine.fast_dev_run`; they go to
            ``fast_dev_run`` in ``OUTPUT_DIR``, which is emptied.

    Returns:
        The checked configuration, not frozen, with ``DATASETS.ROOT`` and ``DATASETS.CLASS_NAMES`` filled in, and for a
        training ``INPUT.CELL_DIAMETER``.

    Raises:
        InputError: see :func:`bccd_d2.config.load_config` and :func:`bccd_d2.data.registration.register_bccd`; or the
            data's classes are not those of the configuration, or a data set it names has no annotations.
    """
    cfg = load_config(config_file, [*options, *(FAST_OPTIONS if fast else ())], training=training)
    EvaluationOptions.from_config(cfg)  # refuses what the evaluation at the end would refuse
    if data_root is not None:
        cfg.DATASETS.ROOT = data_root
    if fast:
        cfg.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / "fast_dev_run")
        if comm.is_main_process():
            _empty(Path(cfg.OUTPUT_DIR))
            reduced_data(Path(cfg.DATASETS.ROOT or default_root()), Path(cfg.OUTPUT_DIR) / "data")
        comm.synchronize()
        cfg.DATASETS.ROOT = str(Path(cfg.OUTPUT_DIR) / "data")
    registered = register_bccd(Path(cfg.DATASETS.ROOT) if cfg.DATASETS.ROOT else None)
    wanted = (*(cfg.DATASETS.TRAIN if training else ()), *cfg.DATASETS.TEST)
    for name in wanted:
        if name not in registered and name not in DatasetCatalog.list():
            hint = "" if name in cfg.DATASETS.TRAIN else "; 'DATASETS.TEST ()' trains without an evaluation"
            raise InputError(
                f"DATASETS: {name} has no annotation file; found {', '.join(sorted(registered))}{hint}"
            )
    used = [name for name in wanted if name in registered]
    names = list(cfg.DATASETS.CLASS_NAMES) or class_names(
        registered[used[0]] if used else next(iter(registered.values()))
    )
    if len(names) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise InputError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {cfg.MODEL.ROI_HEADS.NUM_CLASSES}, but there are {len(names)} classes "
            f"({', '.join(names)}): add 'MODEL.ROI_HEADS.NUM_CLASSES {len(names)}'"
        )
    cfg.DATASETS.CLASS_NAMES = names
    use_classes(
        {name: registered[name] for name in used}, names, training=cfg.DATASETS.TRAIN if training else ()
    )
    check_data(cfg, training=training)
    if training and not cfg.INPUT.CELL_DIAMETER:
        dicts = [record for name in cfg.DATASETS.TRAIN for record in DatasetCatalog.get(name)]
        cfg.INPUT.CELL_DIAMETER = median_diameter(dicts)
    return cfg


def start_run(cfg: CfgNode, arguments: Namespace) -> None:
    """What Detectron2's ``default_setup`` does, with our log messages, a console for people, and config.yaml whole.

    Detectron2 writes config.yaml in place: a run that goes on when the disk is full would leave an empty one, and
    the checkpoints beside it could not be loaded.

    Args:
        cfg: of the run.
        arguments: of the command line, to be logged.
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
