"""Training samples a second and core, against Detectron2's own DatasetMapper on the same images.

Both crop CROP.SIZE native pixels at scale 1 and flip; Detectron2's does nothing else, ours is also measured with
everything on. One process, one thread. The data set is one that tools/convert_bccd.py wrote.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

# isort: split
import cv2
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.commands import run_command
from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.loader import numpy_seeded
from bccd_d2.data.registration import register_bccd
from bccd_d2.errors import InputError


def base_config(crop: int, dataset: str) -> CfgNode:
    """Crop and horizontal flip, nothing else."""
    cfg = get_bccd_cfg()
    cfg.DATASETS.TRAIN = (dataset,)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)  # Detectron2's mapper: no resizing
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [crop, crop]
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    cfg.INPUT.AUGMENTATION.PRESET = "none"
    return cfg


def variants(crop: int, dataset: str) -> dict[str, CfgNode]:
    """Our mapper, from the least to the most work; then with caches."""
    everything = (
        *("INPUT.RANDOM_FLIP", "both", "INPUT.STAIN.ENABLED", True),
        *("INPUT.STAIN.JITTER_STD", 0.1),
    )
    changes: dict[str, Sequence[Any]] = {
        "same crop and flip": (),
        "+ Reinhard": ("INPUT.STAIN.ENABLED", True),
        "+ stain jitter, flips, rot90, mild": (*everything, "INPUT.AUGMENTATION.PRESET", "mild"),
        "+ strong instead of mild": (*everything, "INPUT.AUGMENTATION.PRESET", "strong"),
        "mild, memory cache": (*everything, "INPUT.AUGMENTATION.PRESET", "mild", "INPUT.CACHE_MB", 1000),
        "mild, copy-paste, memory cache": (
            *(*everything, "INPUT.AUGMENTATION.PRESET", "mild", "INPUT.CACHE_MB", 1000),
            *("INPUT.COPY_PASTE.ENABLED", True),
        ),
    }
    configurations = {}
    for name, options in changes.items():
        configurations[name] = base_config(crop, dataset)
        configurations[name].merge_from_list(list(options))
    return configurations


def seconds_per_sample(
    mapper: Callable[[dict[str, Any]], Any], dicts: Sequence[dict[str, Any]], rounds: int
) -> list[float]:
    """Time of each call, after one untimed round that fills caches."""
    times = []
    for number in range(rounds + 1):
        for index, record in enumerate(dicts):
            with numpy_seeded(number, index):
                start = time.perf_counter()
                mapper(record)
                if number:
                    times.append(time.perf_counter() - start)
    return times


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data-root", type=Path, required=True, metavar="DIR", help="folder that convert_bccd.py wrote"
    )
    parser.add_argument("--dataset", default="bccd_train", help="registered name (default bccd_train)")
    parser.add_argument("--max-images", type=int, default=8, help="images used (default 8)")
    parser.add_argument("--rounds", type=int, default=4, help="timed crops of each image (default 4)")
    parser.add_argument("--crop", type=int, default=512, help="side of the crop (default 512)")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    register_bccd(options.data_root)
    if options.dataset not in DatasetCatalog.list():
        raise InputError(f"--dataset {options.dataset}: not in {options.data_root}")
    dicts = DatasetCatalog.get(options.dataset)[: options.max_images]
    cells = statistics.mean(len(record["annotations"]) for record in dicts)
    print(f"{len(dicts)} images, {dicts[0]['width']}x{dicts[0]['height']}, {cells:.0f} cells each")

    mappers: dict[str, Callable[[dict[str, Any]], Any]] = {
        "Detectron2's DatasetMapper": DatasetMapper(base_config(options.crop, options.dataset), True)
    }
    for name, cfg in variants(options.crop, options.dataset).items():
        mappers[f"bccd_d2: {name}"] = BCCDDatasetMapper(cfg, True)
    times = {
        name: seconds_per_sample(mapper, dicts, options.rounds)
        for name, mapper in tqdm(mappers.items(), desc="mappers", unit="mapper")
    }
    decoding = [_time(partial(cv2.imread, record["file_name"])) for record in dicts]
    stock = statistics.median(times["Detectron2's DatasetMapper"])
    rows = [["(cv2.imread alone)", 1e3 * statistics.median(decoding), 1 / statistics.median(decoding), None]]
    rows += [
        [name, 1e3 * statistics.median(found), 1 / statistics.median(found), stock / statistics.median(found)]
        for name, found in times.items()
    ]
    headers = ["mapper, one core", "median ms a sample", "samples a second", "x Detectron2's"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=".1f"))


def _time(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    run_command(main)
