"""Train other methods and this project's for the same time on the same data, and evaluate all alike.

Methods: classical (Otsu and watershed, no training), detectron2-tutorial (R50-FPN as Detectron2's tutorial trains it),
detectron2-r18 (Detectron2's R18-FPN, its own keys alone), torchvision (its Mask R-CNN on this project's samples:
R18-FPN from random weights, R50-FPN with --torchvision-weights), bccd_d2 (--config-file). Each trains on the train part
until its budget is used up and is evaluated on whole images, with at most 500 cells each. The budget is CPU time of the
process, all threads together, so that other work on the machine does not count; on a GPU it is wall time. Building a
model and evaluating it do not count. Learning rates follow the share of the budget that is used.

Written to --output: one folder per method, RESULTS.md with the table, quality_over_time.png. Finished methods are not
measured again; an interrupted one starts again. How many steps fit into the budget differs from run to run, and with it
the figures, even with --seed.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

# isort: split
import cv2
import torch
from baselines.detectron2_methods import build_own, build_small_stock, build_tutorial
from baselines.evaluator import Evaluator
from baselines.method import Budget, Classical, Method, Setting
from baselines.results import Result, quality_over_time, results_table
from baselines.torchvision_method import TorchvisionMaskRCNN
from detectron2.utils.env import seed_all_rng
from tqdm import tqdm

from bccd_d2.commands import run_command
from bccd_d2.errors import InputError
from bccd_d2.files import replacing
from bccd_d2.structures.dataset_files import annotation_file

METHODS: dict[str, tuple[str, Callable[[Setting, Path], Method]]] = {
    "classical": ("Otsu and watershed", Classical),
    "detectron2-tutorial": ("Detectron2's tutorial, R50-FPN", build_tutorial),
    "detectron2-r18": ("Detectron2 R18-FPN", build_small_stock),
    "torchvision": ("torchvision Mask R-CNN", TorchvisionMaskRCNN),
    "bccd_d2": ("bccd_d2", build_own),
}
OWN = Path(__file__).resolve().parents[1] / "configs" / "mask_rcnn_slim_FPN_lite.yaml"
EXAMPLES = """examples:
  python benchmarks/side_by_side.py --data-root datasets/bccd --output output/side_by_side --minutes 10
  python benchmarks/side_by_side.py --data-root datasets/bccd --output output/side_by_side --methods classical bccd_d2
  python benchmarks/side_by_side.py --data-root datasets/bccd --output output/pretrained --minutes 30 \\
      --detectron2-weights model_final_f10217.pkl --torchvision-weights maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth
"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    root_help = "folder that tools/convert_bccd.py wrote"
    add("--data-root", type=Path, required=True, metavar="DIR", help=root_help)
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the results")
    add("--minutes", type=float, default=10, help="budget of each training (default %(default)s)")
    moments_help = "percent of the budget after which a training is evaluated (default 25 50 100)"
    add("--moments", type=float, nargs="+", default=[25, 50, 100], metavar="PERCENT", help=moments_help)
    add("--methods", nargs="+", choices=METHODS, default=[*METHODS], help="which (default: all)")
    add("--part", default="val", choices=("val", "test"), help="that is evaluated (default %(default)s)")
    own_help = "this project's model (default configs/mask_rcnn_slim_FPN_lite.yaml)"
    add("--config-file", type=Path, default=OWN, metavar="YAML", help=own_help)
    d2_help = (
        "what the tutorial's model starts from: COCO or ImageNet weights of Detectron2's zoo (default: noise)"
    )
    add("--detectron2-weights", type=Path, metavar="FILE", help=d2_help)
    tv_help = "the same for torchvision: of its maskrcnn_resnet50_fpn or resnet50 (default: noise)"
    add("--torchvision-weights", type=Path, metavar="FILE", help=tv_help)
    add("--threads", type=int, default=1, help="torch's and OpenCV's (default %(default)s)")
    add("--seed", type=int, default=42, help="of weights, crops and augmentations (default %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure what is not measured yet, and write table and plot of all."""
    args = parse(arguments)
    if args.threads < 1:
        raise InputError(f"--threads: expected a number from 1 on, found {args.threads}")
    for option in ("detectron2_weights", "torchvision_weights"):
        if getattr(args, option) is not None and not getattr(args, option).is_file():
            raise InputError(f"--{option.replace('_', '-')}: {getattr(args, option)} is not there")
    logging.getLogger("detectron2").setLevel(logging.INFO)  # else its trainer prints all that it logs
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    cuda = torch.cuda.is_available()
    clock = time.perf_counter if cuda else time.process_time
    evaluator = Evaluator(args.data_root, args.part, clock)
    settings = settings_of(args, torch.cuda.get_device_name() if cuda else "CPU")
    folders = {name: args.output / name for name in METHODS if name in args.methods}
    results = {name: Result.read(folder, settings) for name, folder in folders.items()}
    for name, folder in folders.items():
        if results[name] is None:
            results[name] = measure(*METHODS[name], folder, args, settings, evaluator, clock)
    finished = [result for result in results.values() if result is not None]
    time_name = "training, minutes" if cuda else "training, minutes of CPU time"
    text = results_table(finished)
    with replacing(args.output / "RESULTS.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    with replacing(args.output / "quality_over_time.png") as temporary:
        quality_over_time(finished, time_name).savefig(temporary, dpi=110)
    print(f"\n{text}\nwritten to {args.output}")


def measure(
    title: str,
    build: Callable[[Setting, Path], Method],
    folder: Path,
    args: argparse.Namespace,
    settings: dict[str, Any],
    evaluator: Evaluator,
    clock: Callable[[], float],
) -> Result:
    """Train and evaluate one method."""
    shutil.rmtree(folder, ignore_errors=True)  # an interrupted one's
    folder.mkdir(parents=True)
    seed_all_rng(args.seed)
    method = build(
        Setting(
            *(args.data_root, args.part, args.seed, args.config_file),
            detectron2_weights=args.detectron2_weights,
            torchvision_weights=args.torchvision_weights,
        ),
        folder,
    )
    diverged = None
    with tqdm(total=round(60 * args.minutes), desc=title, unit="s", disable=None) as bar:
        budget = Budget(
            60 * args.minutes,
            [percent / 100 for percent in args.moments],
            clock,
            lambda used: bar.update(used - bar.n),
        )
        try:
            method.train(budget, evaluator)
        except FloatingPointError as error:
            diverged = str(error)
            logging.warning("%s diverged after %d iterations: %s", title, budget.iterations, error)
    result = Result(title, method.recipe, method.parameters, settings, budget.points, diverged)
    result.write(folder)
    return result


def settings_of(args: argparse.Namespace, device: str) -> dict[str, Any]:
    """What a result depends on, to be compared when a run goes on."""

    def digest(path: Path | None) -> str | None:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path is not None else None

    return {
        **{name: getattr(args, name) for name in ("minutes", "moments", "part", "threads", "seed")},
        "device": device,
        "config": digest(args.config_file),
        **{part: digest(annotation_file(args.data_root, part)) for part in ("train", args.part)},
        "detectron2 weights": digest(args.detectron2_weights),
        "torchvision weights": digest(args.torchvision_weights),
    }


if __name__ == "__main__":
    run_command(main)
