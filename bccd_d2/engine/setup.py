"""What every run does first: read the configuration, register the data, check that both agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from bccd_d2.config import load_config
from bccd_d2.data.registration import class_names, median_diameter, register_bccd
from bccd_d2.errors import InputError


def setup_config(
    config_file: str | Path,
    options: Sequence[str] = (),
    data_root: str | None = None,
    *,
    training: bool = True,
) -> CfgNode:
    """Configuration of a run on registered data.

    Args:
        config_file: YAML file.
        options: ``["KEY", "VALUE", ...]``, which win over the file.
        data_root: folder that ``tools/convert_bccd.py`` wrote; wins over ``DATASETS.ROOT``.
        training: whether ``DATASETS.TRAIN`` is needed beside ``DATASETS.TEST``.

    Returns:
        The checked configuration, not frozen, with ``DATASETS.ROOT``, ``DATASETS.CLASS_NAMES`` and, for a training,
        ``INPUT.CELL_DIAMETER`` filled in.

    Raises:
        InputError: see :func:`bccd_d2.config.load_config` and :func:`bccd_d2.data.registration.register_bccd`; or the
            data's classes are not those of the configuration, or a data set it names has no annotations.
    """
    cfg = load_config(config_file, options)
    if data_root is not None:
        cfg.DATASETS.ROOT = data_root
    registered = register_bccd(Path(cfg.DATASETS.ROOT) if cfg.DATASETS.ROOT else None)
    for name in (*(cfg.DATASETS.TRAIN if training else ()), *cfg.DATASETS.TEST):
        if name.startswith("bccd_") and name not in registered:
            raise InputError(
                f"DATASETS: {name} has no annotation file; found {', '.join(sorted(registered))}"
            )
    names = class_names(next(iter(registered.values())))
    if cfg.DATASETS.CLASS_NAMES and list(cfg.DATASETS.CLASS_NAMES) != names:
        raise InputError(
            f"DATASETS.CLASS_NAMES is {list(cfg.DATASETS.CLASS_NAMES)}, but the data's classes are {names}"
        )
    if len(names) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise InputError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {cfg.MODEL.ROI_HEADS.NUM_CLASSES}, but the data has {len(names)} classes "
            f"({', '.join(names)}): add 'MODEL.ROI_HEADS.NUM_CLASSES {len(names)}'"
        )
    cfg.DATASETS.CLASS_NAMES = names
    if training and not cfg.INPUT.CELL_DIAMETER:
        files = [registered[name] for name in cfg.DATASETS.TRAIN if name in registered]
        cfg.INPUT.CELL_DIAMETER = median_diameter(files)
    return cfg
