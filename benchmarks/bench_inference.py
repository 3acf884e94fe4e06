"""How long a prediction takes, against torchvision, and where its time goes.

    python benchmarks/bench_inference.py                                # models, stages, slide
    python benchmarks/bench_inference.py --run output/lite --only stages slide
    python benchmarks/bench_inference.py --only slide --slide-side 20000
    python benchmarks/bench_inference.py --device cuda --only batches slide

The image is a synthetic smear of 1600x1200 with about 80 cells. Runs are interleaved, so that a busy machine slows all
alike, and the ratios are what counts; "CPU s" is what all threads together worked. All tables but the first are of the
default model, or that of --run.

1. models: one image in memory to masks of the image's size (torchvision) or of the cells' (ours). Weights are random,
   which cost what trained ones do: the score threshold is 0, and every network returns its 100 best.
2. stages: decode, prepare, network, pasting, writing. Detectron2's own pasting into the whole image stands beside ours.
3. slide: a tiled TIFF, a share of it empty, against the 1600x1200 image, per megapixel, and the peak memory beyond that
   of the loaded model.
4. batches: the network alone on several images together.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

import cv2  # isort: skip
import numpy as np
import tifffile
import torch
import torchvision
from detectron2.layers import paste_masks_in_image
from detectron2.modeling import build_model
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from bccd_d2.commands import run_command
from bccd_d2.config import load_config
from bccd_d2.inference.exporting.engines import load_predictor
from bccd_d2.inference.model_files import find_model
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.predictor import BCCDPredictor, CpuMode
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers import DEFAULT_FORMATS, write_formats
from bccd_d2.io.images import open_source
from bccd_d2.io.sources import ArraySource
from bccd_d2.synthetic import SyntheticSmear, draw_smear

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
LITE, R50 = "mask_rcnn_R_18_FPN_lite.yaml", "mask_rcnn_R_50_FPN.yaml"
TABLES = ("models", "stages", "slide", "batches")
DETECTIONS = 100
RED_CELL_DIAMETER = 100

Seconds = tuple[float, float]
"""Of the clock, and of all threads of the process."""


def timed(work: Callable[[], object]) -> Seconds:
    """How long one call takes."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cpu


def interleaved(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, Seconds]:
    """Median times of several works that take turns, after each has run once for nothing."""
    for work in works.values():
        work()
    times: dict[str, list[Seconds]] = {name: [] for name in works}
    for _ in tqdm(range(rounds), "rounds", disable=None):
        for name, work in works.items():
            times[name].append(timed(work))
    return {
        name: (statistics.median(c for c, _ in found), statistics.median(p for _, p in found))
        for name, found in times.items()
    }


def random_predictor(name: str, cpu_mode: CpuMode) -> BCCDPredictor:
    """A model of the repository with random weights and 100 detections an image."""
    fixed = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "TEST.DETECTIONS_PER_IMAGE", str(DETECTIONS)]
    cfg = load_config(CONFIGS / name, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *fixed])
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random.pth"
        torch.save({"model": build_model(cfg).state_dict()}, weights)
        return BCCDPredictor(cfg, weights, PredictionOptions(score_threshold=0.0), cpu_mode=cpu_mode)


def torchvision_work(image: NDArray[np.uint8]) -> Callable[[], object]:
    """torchvision's Mask R-CNN R50-FPN on the image at its native size."""
    height, width = image.shape[:2]
    model = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=2,
        min_size=min(height, width),
        max_size=max(height, width),
        box_score_thresh=0.0,
        box_detections_per_img=DETECTIONS,
    ).eval()
    tensor = torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy()).float() / 255

    @torch.no_grad()
    def work() -> object:
        found = model([tensor])[0]
        assert len(found["scores"]) == DETECTIONS
        return found["masks"] >= 0.5

    return work


def models_table(smear: SyntheticSmear, rounds: int) -> None:
    """Seconds an image of each model."""
    works: dict[str, Callable[[], object]] = {
        "torchvision maskrcnn_resnet50_fpn": torchvision_work(smear.image)
    }
    for name in (R50, LITE):
        for mode in get_args(CpuMode)[:2]:
            predict = random_predictor(name, mode).predict_cells
            works[f"{name}, cpu_mode {mode}"] = partial(predict, smear.image)
    seconds = interleaved(works, rounds)
    reference = seconds["torchvision maskrcnn_resnet50_fpn"]
    rows = [[name, clock, cpu, cpu / reference[1]] for name, (clock, cpu) in seconds.items()]
    head = ["1600x1200, 100 detections", "s", "CPU s", "CPU time against torchvision"]
    print("\n" + tabulate(rows, head, tablefmt="pipe", floatfmt=".2f"))


def stages_table(smear: SyntheticSmear, run: Path | None, device: str | None, rounds: int) -> None:
    """What each step of a prediction costs, beside the network."""
    height, width = smear.image.shape[:2]
    predictor = load_predictor(find_model(run), PredictionOptions(), device=device)
    scale = predictor.training_diameter / RED_CELL_DIAMETER
    prepared = predictor.prepare(smear.image, scale)
    found = predictor.network([prepared])[0].resized(height, width)
    found = found[found.scores >= 0.5]
    result = ImageResult("smear", ArraySource(smear.image), found.paste(), predictor.class_names)
    probabilities, boxes = torch.from_numpy(found.masks), torch.from_numpy(found.boxes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cv2.imwrite(str(folder / "smear.png"), smear.image)
        seconds = interleaved(
            {
                "decode PNG": lambda: open_source(folder / "smear.png").read(0, 0, width, height),
                "prepare": lambda: predictor.prepare(smear.image, scale),
                "network": lambda: predictor.network([prepared]),
                "paste masks": found.paste,
                "(Detectron2's pasting)": lambda: paste_masks_in_image(probabilities, boxes, (height, width)),
                f"write {','.join(DEFAULT_FORMATS)}": lambda: write_formats(result, folder, DEFAULT_FORMATS),
            },
            rounds,
        )
    network = seconds["network"][1]
    rows = [[step, clock, cpu, f"{cpu / network:.1%}"] for step, (clock, cpu) in seconds.items()]
    head = [f"{run or 'default model'}, {len(found)} cells", "s", "CPU s", "of the network's"]
    print("\n" + tabulate(rows, head, tablefmt="pipe", floatfmt=".3f"))


def batches_table(
    smear: SyntheticSmear, run: Path | None, device: str | None, sizes: Sequence[int], rounds: int
) -> None:
    """What an image costs the network, by the number of images that go through it together."""
    predictor = load_predictor(find_model(run), PredictionOptions(), device=device)
    prepared = predictor.prepare(smear.image, predictor.training_diameter / RED_CELL_DIAMETER)
    network: Any = predictor.network

    def together(size: int) -> None:
        network.batch_size = size
        network([prepared] * size)  # its results are on the CPU: it waits for the device

    seconds = interleaved({str(size): partial(together, size) for size in sizes}, rounds)
    rows = [[name, clock / int(name)] for name, (clock, _) in seconds.items()]
    print("\n" + tabulate(rows, ["images together", "s per image"], tablefmt="pipe", floatfmt=".4f"))


def write_slide(path: Path, side: int, smear: SyntheticSmear, empty: float) -> None:
    """A tiled TIFF of ``side`` x ``side`` pixels: the smear and its mirror images beside each other, and background.

    ``empty`` is the share of the columns, on the right, that show the smear's background with noise.
    """
    block = 512
    rng = np.random.default_rng(0)
    background = np.median(smear.image[smear.instances == 0], axis=0)[::-1]
    noise = np.clip(background + rng.normal(0, 3, (block, block, 3)), 0, 255).astype(np.uint8)
    double = np.concatenate([smear.image, smear.image[:, ::-1]], axis=1)
    picture = np.concatenate([double, double[::-1]], axis=0)[..., ::-1]

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for y in range(0, side, block):
            rows = np.arange(y, y + block) % picture.shape[0]
            for x in range(0, side, block):
                if x >= (1 - empty) * side:
                    yield noise
                    continue
                yield picture[rows][:, np.arange(x, x + block) % picture.shape[1]]

    tifffile.imwrite(
        path, tiles(), shape=(side, side, 3), dtype=np.uint8, tile=(block, block), photometric="rgb",
        compression="zlib", compressionargs={"level": 1}, bigtiff=True,
    )  # fmt: skip


def predict_slide(
    folder: Path, run: Path | None, options: PredictionOptions, threads: int, device: str | None
) -> tuple[list[Seconds], list[Seconds], float, int]:
    """Times of the image, times of the slide, peak memory in GB beyond the loaded model, and cells of the slide."""
    torch.set_num_threads(threads)
    predictor = load_predictor(find_model(run), options, device=device)
    with open_source(folder / "smear.png") as image, open_source(folder / "slide.tif") as slide:
        work = partial(predictor.predict_source, image)
        loaded = resident_bytes()
        work()
        images, slides, found = [timed(work)], [], 0

        def whole() -> None:
            nonlocal found
            found = len(predictor.predict_source(slide))

        slides.append(timed(whole))
        images.append(timed(work))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return images, slides, (peak - loaded) / 1e9, found


def resident_bytes() -> int:
    """What this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def slide_table(
    smear: SyntheticSmear,
    run: Path | None,
    options: PredictionOptions,
    side: int,
    empty: float,
    device: str | None,
) -> None:
    """Time per megapixel and memory of a slide, in a process of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cv2.imwrite(str(folder / "smear.png"), smear.image)
        write_slide(folder / "slide.tif", side, smear, empty)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            images, slides, memory, found = pool.submit(
                predict_slide, folder, run, options, torch.get_num_threads(), device
            ).result()
    print(
        f"\n{run or 'default model'}, tiles of {options.tile_size}, {100 * empty:.0f} % of the slide empty\n"
    )
    rows = []
    for name, times, megapixels in (
        ("image", images, smear.image.shape[0] * smear.image.shape[1] / 1e6),
        (f"{side}x{side}", slides, side * side / 1e6),
    ):
        clock, cpu = (statistics.mean(column) for column in zip(*times))
        rows.append([name, clock, clock / megapixels, cpu / megapixels])
    print(tabulate(rows, ["", "s", "s/megapixel", "CPU s/megapixel"], tablefmt="pipe", floatfmt=".3f"))
    print(f"\n{found} cells on the slide; peak memory beyond the loaded model {memory:.2f} GB")


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="OUTPUT_DIR of a training run (default: the default model)"
    )
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES[:3])
    parser.add_argument(
        "--rounds", type=int, default=3, help="times that each is measured (default %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of torch (default %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of all tables but models")
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 2, 4, 8), metavar="N")
    parser.add_argument(
        "--image", type=int, nargs=2, default=(1600, 1200), metavar=("WIDTH", "HEIGHT"), help="of the smear"
    )
    parser.add_argument("--slide-empty", type=float, default=0.5, metavar="SHARE", help="default %(default)s")
    parser.add_argument("--slide-side", type=int, default=6000, metavar="PX", help="default %(default)s")
    parser.add_argument("--tile", type=int, default=PredictionOptions().tile_size, metavar="PX")
    parser.add_argument("--overlap", type=int, metavar="PX")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    smear = draw_smear(7, *given.image, cell_diameter=(RED_CELL_DIAMETER - 5, RED_CELL_DIAMETER + 5))
    print(f"{given.threads} threads, torch {torch.__version__}")
    if "models" in given.only:
        models_table(smear, given.rounds)
    if "stages" in given.only:
        stages_table(smear, given.run, given.device, given.rounds)
    if "slide" in given.only:
        options = PredictionOptions(
            score_threshold=0.5, tile_size=given.tile, overlap=given.overlap, diameter=RED_CELL_DIAMETER
        )
        slide_table(smear, given.run, options, given.slide_side, given.slide_empty, given.device)
    if "batches" in given.only:
        batches_table(smear, given.run, given.device, given.batches, given.rounds)


if __name__ == "__main__":
    run_command(main)
