"""How cost grows with the work: conversion, a training step, evaluation and prediction at 1, 4 and 16 times as much.

    python benchmarks/bench_growth.py [--images 2] [--size 800 600] [--rounds 3]

Two series of synthetic smears: 1, 4 and 16 times as many images of one size ("more images"), and the same number of
images of 1, 4 and 16 times the area and number of cells ("more cells"). The reference is linear growth from the
smallest. A training step takes two crops of 256 px whatever the data, and decodes its images again. Evaluation is of
what Otsu's threshold and a watershed find. Prediction is the shipped model's.

Each figure is of a process of its own, forked from one that has everything loaded, on one thread: the least processor
time of several rounds, and the peak memory beyond that at the start of the first (Linux only).
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import bccd_d2.modeling  # noqa: F401  adapts Detectron2 before it is imported

# isort: split
import cv2
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.commands import run_command
from bccd_d2.conversion.convert import ConversionOptions, convert_dataset
from bccd_d2.conversion.splits import SplitPlan
from bccd_d2.engine.setup import setup_config
from bccd_d2.engine.train_step import TrainStep
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import EvaluationSet, read_evaluation_set
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.inference.model_files import shipped_model
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.io.images import read_image
from bccd_d2.segmentation.otsu_watershed import otsu_watershed
from bccd_d2.structures.dataset_files import annotation_file
from bccd_d2.synthetic import SyntheticSet, write_synthetic_set

FACTORS = (1, 4, 16)
CONFIG = Path(__file__).resolve().parents[1] / "configs" / "mask_rcnn_slim_FPN_lite.yaml"
STEPS = 5
"""Training steps of a round; the figure is that of one."""

Work = Callable[[], object]


def conversion(smears: Path, data: Path) -> Work:
    """Pairs to COCO JSON."""
    return partial(convert_dataset, smears, data, EVERYTHING, overwrite=True)


def training(smears: Path, data: Path) -> Work:
    """Steps of the slim model, in float32."""
    options = [
        *("INPUT.CROP.SIZE", "[256,256]", "INPUT.CACHE_MB", "0", "DATASETS.TEST", "('bccd_train',)"),
        *("SOLVER.AMP.ENABLED", "False"),
    ]
    cfg = setup_config(CONFIG, options, str(data))
    model = build_model(cfg)
    step = TrainStep(model, BCCDTrainer.build_optimizer(cfg, model))
    step.read_from(BCCDTrainer.build_train_loader(cfg))

    def steps() -> None:
        with EventStorage():
            for _ in range(STEPS):
                step.run_step()

    return steps


def evaluation(smears: Path, data: Path) -> Work:
    """Everything that tools/evaluate.py says, 1000 resamples included."""
    truth = read_set(data)
    found = {i.image_id: otsu_watershed(read_image(str(i.path))) for i in truth.images}
    return partial(evaluate, truth.with_predictions(found), EvaluationOptions())


def prediction(smears: Path, data: Path) -> Work:
    """Cells of every image, from the file on."""
    model = shipped_model()
    predictor = BCCDPredictor(model.config, model.weights)
    paths = [str(image.path) for image in read_set(data).images]
    return lambda: [predictor.predict_cells(read_image(path)) for path in paths]


EVERYTHING = ConversionOptions(split=SplitPlan(ratios=(1.0, 0.0, 0.0)))
STAGES = {
    "conversion": conversion,
    "a training step": training,
    "evaluation": evaluation,
    "prediction": prediction,
}


def read_set(data: Path) -> EvaluationSet:
    """All images of a converted set."""
    return read_evaluation_set(annotation_file(data, "train"))


def serve(connection: Connection, stage: str, smears: Path, data: Path, rounds: int) -> None:
    """In a process of its own: send the least seconds of several rounds, and how many MB memory rose during them."""
    work = STAGES[stage](smears, data)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    before = memory("VmRSS")
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    connection.send((min(seconds) / (STEPS if stage == "a training step" else 1), memory("VmHWM") - before))


def memory(name: str) -> float:
    """MB of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 2**10


def measured(stage: str, smears: Path, data: Path, rounds: int) -> tuple[float, float]:
    """Seconds and MB of one stage."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, stage, smears, data, rounds))
    process.start()
    theirs.close()  # so that the end of the process is seen
    try:
        return ours.recv()
    except EOFError as error:
        raise InputError(f"{stage}: its process ended without a result; what it printed says why") from error
    finally:
        process.join()


def draw(folder: Path, images: int, width: int, height: int, seed: int) -> tuple[Path, Path, int]:
    """Folder of the smears, folder of the converted set, number of cells."""
    smears, data = folder / "smears", folder / "data"
    write_synthetic_set(smears, SyntheticSet(images, seed, width, height, test_fraction=0))
    convert_dataset(smears, data, EVERYTHING)
    return smears, data, sum(len(image.truth) for image in read_set(data).images)


def row(stage: str, axis: str, found: dict[int, tuple[float, float]]) -> list[str]:
    """Of the table: seconds, growth against linear growth from the smallest and over the last step, MB."""
    seconds = [found[factor][0] for factor in FACTORS]
    first, before, last = FACTORS[0], FACTORS[-2], FACTORS[-1]
    return [
        stage,
        axis,
        *(f"{value:.3g}" for value in seconds),
        f"{seconds[-1] / (seconds[0] * last / first):.2f}",
        f"{seconds[-1] / (seconds[-2] * last / before):.2f}",
        " / ".join(f"{found[factor][1]:.0f}" for factor in FACTORS),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=2, metavar="N", help="of the smallest set (default %(default)s)"
    )
    parser.add_argument(
        "--size", type=int, nargs=2, default=(800, 600), metavar=("WIDTH", "HEIGHT"), help="of its images"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (default %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="of the smears (default %(default)s)")
    options = parser.parse_args(arguments)
    width, height = options.size
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        sets = {}
        for factor in FACTORS:
            side = round(factor**0.5)
            for axis, images, scale in (
                ("images", factor * options.images, 1),
                ("cells", options.images, side),
            ):
                place = Path(folder) / f"{axis}{factor}"
                sets[axis, factor] = draw(place, images, scale * width, scale * height, options.seed)
        for axis in ("images", "cells"):
            counts = ", ".join(str(sets[axis, factor][2]) for factor in FACTORS)
            print(f"more {axis}: {counts} cells")
        rows = []
        for stage in tqdm(STAGES, unit="stage", disable=None):
            for axis in ("images", "cells"):
                found = {f: measured(stage, *sets[axis, f][:2], options.rounds) for f in FACTORS}
                rows.append(row(stage, f"more {axis}", found))
    headers = [
        *("", "", *(f"{factor}x, s" for factor in FACTORS), "16x against 16 times 1x", "16x against 4 times 4x"),
        "MB above the start, 1x / 4x / 16x",
    ]  # fmt: skip
    print(tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    run_command(main)
