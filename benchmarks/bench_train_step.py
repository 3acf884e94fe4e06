"""Time and memory of a training step of Mask R-CNN R50-FPN: Detectron2's, as configured here, against torchvision's.

Both get the same images, boxes and masks, start from random weights with batch norm, sample the same number of
anchors and regions, and are stepped by AdamW. A quarter of the regions are cells at most in both; the
mask head works on those alone, so there must be enough cells for both to reach it. The two take
turns, and on the CPU with one thread the process's own time counts, so that other work on the machine hardly matters;
with more threads and on a GPU it is the wall's. The ratio is of medians. Each is measured in a process of
its own for its peak memory: the process's peak on the CPU (interpreter and libraries included), torch's on a GPU.
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

from bccd_d2.config import load_config
from bccd_d2.errors import InputError, run_command

BASE = Path(__file__).resolve().parents[1] / "configs" / "Base-BCCD-MaskRCNN-FPN.yaml"
PROPOSALS, ANCHORS, REGIONS = 1000, 256, 256
SIZES = (24, 48, 96, 192, 384)
NAMES = ("torchvision", "bccd_d2", "bccd_d2, POOLER_SAMPLING_RATIO 2 as torchvision")


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


def own_model(
    batch: list[dict[str, Any]], side: int, device: str, sampling_ratio: int
) -> tuple[torch.nn.Module, Callable[[], Any]]:
    """The model of the base configuration with torchvision's blocks, and its losses on the batch."""
    options = [
        *("MODEL.DEVICE", device, "MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", "0"),
        *("MODEL.RESNETS.STRIDE_IN_1X1", "False", "MODEL.RPN.PRE_NMS_TOPK_TRAIN", str(2 * PROPOSALS)),
        *("MODEL.RPN.POST_NMS_TOPK_TRAIN", str(PROPOSALS), "MODEL.RPN.BATCH_SIZE_PER_IMAGE", str(ANCHORS)),
        *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", str(REGIONS), "MODEL.ANCHOR_GENERATOR.SIZES"),
        str([[size] for size in SIZES]),
        *("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", str(sampling_ratio)),
        *("MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", str(sampling_ratio)),
    ]  # fmt: skip
    model = build_model(load_config(BASE, options))
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
    if name == NAMES[0]:
        build = torchvision_model(batch, options.side)
    else:
        build = own_model(batch, options.side, device, sampling_ratio=0 if name == NAMES[1] else 2)
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
    parser = argparse.ArgumentParser(description=__doc__)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if cuda else "cpu")
    parser.add_argument("--side", type=int, default=256, help="of the square images, pixels (default 256)")
    parser.add_argument("--batch", type=int, default=2, help="images a step (default 2)")
    parser.add_argument(
        "--cells", type=int, default=64, help="cells an image (default 64: both sample 64 cells)"
    )
    parser.add_argument(
        "--steps", type=int, default=8, help="timed steps of each, after two more (default 8)"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch's, on the CPU (default 1)")
    parser.add_argument("--amp", action="store_true", help="bfloat16")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not cuda:
        raise InputError("--device cuda: torch finds no GPU here")
    context = multiprocessing.get_context("spawn")
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    memory, workers = {}, {}
    for name in NAMES:
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
        [name, f"{medians[name]:.3f}", f"{memory[name]:.0f}", f"{medians[NAMES[0]] / medians[name]:.2f}"]
        for name in NAMES
    ]
    headers = ["model", "median s a step", "peak MB", "x torchvision's speed"]
    print(tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    run_command(main)
