"""Time and memory of a training step: torchvision's Mask R-CNN R50-FPN, the same of Detectron2, and models of configs/.

    python benchmarks/bench_train_step.py --steps 6
    python benchmarks/bench_train_step.py --side 512 --batch 1 --cells 25 \\
        --models mask_rcnn_R_50_FPN mask_rcnn_R_101_FPN

torchvision and Detectron2 ("bccd_d2") get the same images, boxes and masks, start from random weights with batch norm,
sample the same number of anchors and regions, and are stepped by AdamW. At most a quarter of the regions are cells in
both, and the mask head works on those alone, so there must be enough cells for both to reach it. With --models the
configurations as they are, from random weights, take their place. All take turns, each in a process of its own. On the
CPU with one thread the process's own time counts, so that other work on the machine hardly matters; with more threads
and on a GPU it is wall time. The ratio is of medians, to the first row. Memory is the peak of the process on the CPU
(interpreter and libraries included) and torch's on a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import bccd_d2.modeling  # noqa: F401  adapts Detectron2 and registers the models

# isort: split
import torch
import torchvision
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate

from bccd_d2.commands import run_command
from bccd_d2.config import load_config
from bccd_d2.errors import InputError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
BASE = "Base-BCCD-MaskRCNN-FPN"
PROPOSALS, ANCHORS, REGIONS = 1000, 256, 256
SIZES = (24, 48, 96, 192, 384)
DEFAULT = ("torchvision", "bccd_d2")


def drawn_batch(count: int, side: int, cells: int, device: str) -> list[dict[str, Any]]:
    """Noisy images with discs at random places: image (3, side, side) in [0, 1], masks (cells, side, side)."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    batch = []
    for _ in range(count):
        image = 0.8 + 0.1 * torch.rand(3, side, side, generator=generator)
        centres = torch.rand(cells, 2, generator=generator) * side
        masks = torch.stack([(columns - x) ** 2 + (rows - y) ** 2 < (side / 12) ** 2 for x, y in centres])
        image[:, masks.any(0)] *= 0.6
        batch.append({"image": image.to(device), "masks": masks.to(device)})
    return batch


def torchvision_model(batch: list[dict[str, Any]], side: int) -> tuple[torch.nn.Module, Callable[[], Any]]:
    """The model and its losses on the batch."""
    model = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=2,
        min_size=side,
        max_size=side,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=torchvision.models.detection.anchor_utils.AnchorGenerator(
            tuple((size,) for size in SIZES), ((0.5, 1.0, 2.0),) * len(SIZES)
        ),
        rpn_pre_nms_top_n_train=2 * PROPOSALS,
        rpn_post_nms_top_n_train=PROPOSALS,
        rpn_batch_size_per_image=ANCHORS,
        box_batch_size_per_image=REGIONS,
    )
    targets = []
    for sample in batch:
        boxes = BitMasks(sample["masks"].cpu()).get_bounding_boxes().tensor
        targets.append(
            {
                "boxes": boxes.to(sample["masks"].device),
                "labels": torch.ones(len(boxes), dtype=torch.long, device=sample["masks"].device),
                "masks": sample["masks"].to(torch.uint8),
            }
        )
    images = [sample["image"] for sample in batch]
    return model, lambda: model(images, targets)


def configured_model(
    batch: list[dict[str, Any]], side: int, device: str, name: str
) -> tuple[torch.nn.Module, Callable[[], Any]]:
    """The model of a configuration, or "bccd_d2": the base one with torchvision's blocks; its losses on the batch."""
    options = ["MODEL.DEVICE", device, "MODEL.WEIGHTS", ""]
    if name == "bccd_d2":
        name = BASE
        options += f"""
            MODEL.RESNETS.NORM BN MODEL.BACKBONE.FREEZE_AT 0 MODEL.RESNETS.STRIDE_IN_1X1 False
            MODEL.RPN.PRE_NMS_TOPK_TRAIN {2 * PROPOSALS} MODEL.RPN.POST_NMS_TOPK_TRAIN {PROPOSALS}
            MODEL.RPN.BATCH_SIZE_PER_IMAGE {ANCHORS} MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE {REGIONS}
        """.split()
        options += ["MODEL.ANCHOR_GENERATOR.SIZES", str([[size] for size in SIZES])]
    model = build_model(load_config(CONFIGS / f"{name}.yaml", options))
    if device == "cpu":
        model.to(memory_format=torch.channels_last)  # as the trainer does
    inputs = []
    for sample in batch:
        instances = Instances((side, side))
        instances.gt_masks = BitMasks(sample["masks"])
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes().to(device)
        instances.gt_classes = torch.zeros(len(sample["masks"]), dtype=torch.long, device=device)
        inputs.append({"image": 255 * sample["image"], "instances": instances})
    return model, lambda: model(inputs)


def serve(connection: Connection, name: str, options: argparse.Namespace) -> None:
    """In a process of its own: a step a request, answered with its seconds; then the peak memory in MB."""
    device = options.device
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    batch = drawn_batch(options.batch, options.side, options.cells, device)
    if name == "torchvision":
        build = torchvision_model(batch, options.side)
    else:
        build = configured_model(batch, options.side, device, name)
    model, losses = build[0].to(device).train(), build[1]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    clock = time.process_time if device == "cpu" and options.threads == 1 else time.perf_counter
    amp = torch.autocast(device, dtype=torch.bfloat16) if options.amp else contextlib.nullcontext()
    with EventStorage():
        while connection.recv():
            synchronize()
            start = clock()
            optimizer.zero_grad()
            with amp:
                loss = sum(losses().values())
            loss.backward()
            optimizer.step()
            synchronize()
            connection.send(clock() - start)
    if device == "cuda":
        connection.send(torch.cuda.max_memory_allocated() / 2**20)
    else:
        connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if cuda else "cpu")
    parser.add_argument("--side", type=int, default=256, help="of the square images, pixels (default 256)")
    parser.add_argument("--batch", type=int, default=2, help="images per step (default 2)")
    parser.add_argument(
        "--cells", type=int, default=64, help="cells per image (default 64: both sample 64 cells)"
    )
    parser.add_argument(
        "--steps", type=int, default=8, help="timed steps of each, after two more (default 8)"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch's, on the CPU (default 1)")
    parser.add_argument("--amp", action="store_true", help="bfloat16")
    parser.add_argument(
        "--models", nargs="+", default=DEFAULT, metavar="NAME", help="files of configs/, without .yaml"
    )
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not cuda:
        raise InputError("--device cuda: torch finds no GPU here")
    context = multiprocessing.get_context("spawn")
    times: dict[str, list[float]] = {name: [] for name in options.models}
    memory, workers = {}, {}
    for name in options.models:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, name, options), daemon=True)
        process.start()
        theirs.close()  # so that the end of the process is seen
        workers[name] = ours
    for _ in range(options.steps + 2):
        for name, worker in workers.items():
            worker.send(True)
            times[name].append(worker.recv())
    for name, worker in workers.items():
        worker.send(False)
        memory[name] = worker.recv()
    medians = {name: statistics.median(found[2:]) for name, found in times.items()}
    print(
        f"{options.batch} images of {options.side} px, {options.cells} cells each, {options.device}, "
        f"{options.threads} thread(s), {'bfloat16' if options.amp else 'float32'}; torch {torch.__version__}"
    )
    rows = [
        [
            name,
            f"{medians[name]:.3f}",
            f"{memory[name]:.0f}",
            f"{medians[name] / medians[options.models[0]]:.2f}",
        ]
        for name in options.models
    ]
    headers = ["model", "median s per step", "peak MB", f"time / {options.models[0]}"]
    print(tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    run_command(main)
