"""Arguments of the commands that predict."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Literal

from bccd_d2.inference.exporting.engines import EAGER, ENGINES, FLOAT32, PRECISIONS
from bccd_d2.inference.model_files import SHIPPED_MODEL, ModelFiles, find_model
from bccd_d2.inference.options import AUTO, DEFAULT_OPTIONS, DEFAULT_SCORE_THRESHOLD, PredictionOptions
from bccd_d2.inference.tta import TestTimeAugmentation
from bccd_d2.io.images import MAX_PIXELS


def add_model_arguments(parser: ArgumentParser, device: bool = True) -> None:
    """Add the options that choose the model, and with ``device`` where it runs."""
    group = parser.add_argument_group(f"model (default: the shipped model {SHIPPED_MODEL})")
    add = group.add_argument
    add("--model", metavar="NAME", help=f"a shipped model, such as {SHIPPED_MODEL}")
    run_help = "OUTPUT_DIR of a training run: its config.yaml and model_final.pth"
    add("--run", type=Path, metavar="DIR", help=run_help)
    add("--config-file", metavar="FILE", help="configuration, in place of that of --run")
    add("--weights", metavar="FILE", help="checkpoint, in place of that of --run")
    if device:
        add("--device", help="cpu, cuda, cuda:1 (default: the configuration's MODEL.DEVICE)")


def add_engine_argument(parser: ArgumentParser) -> None:
    """Add the options that choose what runs the network, and how."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=EAGER,
        help="what runs the network: eager (PyTorch, default); onnx (onnxruntime) and openvino, faster on a CPU, for "
        "which the network is exported once into a cache folder. --weights FILE.onnx is one that is exported already",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=FLOAT32,
        help="of the network on a CPU (default %(default)s); bfloat16, for eager and openvino where the CPU has it, is "
        "faster and finds almost the same cells",
    )


def add_prediction_arguments(parser: ArgumentParser) -> None:
    """Add what :class:`bccd_d2.inference.options.PredictionOptions` holds."""
    add, defaults = parser.add_argument_group("prediction").add_argument, DEFAULT_OPTIONS
    score_help = "leave out cells below this score (default %(default)s)"
    add("--score-threshold", type=float, default=DEFAULT_SCORE_THRESHOLD, metavar="S", help=score_help)
    diameter_help = (
        "diameter of a typical red cell in the images, which are resized to the size the model was trained at "
        "(default auto: estimated per folder and image size, unless microns per pixel are known)"
    )
    add("--diameter", type=diameter, default=AUTO, metavar="PX", help=diameter_help)
    microns_help = (
        "microns per pixel of the images, in place of what their files say: they are resized to what the model was "
        "trained at, and measures are given in microns too"
    )
    add("--mpp", type=float, metavar="UM", help=microns_help)
    scale_help = "factor to resize the images by, in place of --diameter and --mpp; 1 keeps them as they are"
    add("--scale", type=float, metavar="F", help=scale_help)
    tile_help = "side of the tiles of large images (default %(default)s)"
    add("--tile", type=int, default=defaults.tile_size, metavar="PX", help=tile_help)
    overlap_help = "overlap of the tiles, more than most cells (default: two diameters of a typical cell)"
    add("--overlap", type=int, metavar="PX", help=overlap_help)
    most_help = "most cells in one image or tile (default: the configuration's TEST.DETECTIONS_PER_IMAGE)"
    add("--max-detections", type=int, metavar="N", help=most_help)
    batch_help = "tiles that go through the network together (default: what fits the memory)"
    add("--batch-size", type=int, default=defaults.batch_size, metavar="N", help=batch_help)
    pixel_help = "refuse images of more pixels that must be decoded whole (default %(default)s)"
    add("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help=pixel_help)
    add(
        "--tta", action="store_true", help="predict flipped and turned images too and merge the masks; slower"
    )
    add("--split-touching", action="store_true", help="cut masks that look like several touching cells")
    add("--no-overlap", action="store_true", help="give each pixel to the cell with the best score alone")


def diameter(text: str) -> float | Literal["auto"]:
    """A number of pixels, or "auto"."""
    if text == AUTO:
        return AUTO
    try:
        return float(text)
    except ValueError as error:
        raise ArgumentTypeError(f"expected a number of pixels or {AUTO}, found {text!r}") from error


def add_process_arguments(parser: ArgumentParser) -> None:
    """Add the options that distribute the images."""
    add = parser.add_argument_group("several processes").add_argument
    add("--num-gpus", type=int, default=1, metavar="N", help="one process per GPU (default 1)")
    add("--ray", action="store_true", help="by the workers of a Ray cluster")
    address_help = "of a running cluster, such as auto (default: one is started here)"
    add("--ray-address", metavar="ADDRESS", help=address_help)
    worker_help = "each with a model of its own (default: as many as fit)"
    add("--ray-workers", type=int, default=0, metavar="N", help=worker_help)
    gpu_help = "GPUs, or share of one, that a worker takes (default 0)"
    add("--ray-gpus", type=float, default=0, metavar="G", help=gpu_help)


def check_processes(given: Namespace, parser: ArgumentParser) -> None:
    """End the command if these arguments contradict each other."""
    ray = [name for name in ("ray_address", "ray_workers", "ray_gpus") if getattr(given, name)]
    if given.num_gpus < 1:
        parser.error(f"--num-gpus: expected 1 or more, found {given.num_gpus}")
    if given.num_gpus > 1 and given.device is not None:
        parser.error("--device: not together with --num-gpus, which takes the first N GPUs")
    if given.ray and given.num_gpus > 1:
        parser.error("--num-gpus: not together with --ray, whose workers take --ray-gpus each")
    if not given.ray and ray:
        parser.error(f"--{ray[0].replace('_', '-')}: needs --ray")
    if given.engine != EAGER and (given.num_gpus > 1 or given.ray_gpus):
        parser.error(f"--engine {given.engine}: runs on CPUs, not together with --num-gpus or --ray-gpus")
    if given.precision != FLOAT32 and (given.num_gpus > 1 or given.ray_gpus):
        parser.error(f"--precision {given.precision}: for CPUs, not together with --num-gpus or --ray-gpus")
    if given.ray_workers < 0 or given.ray_gpus < 0:
        parser.error("--ray-workers and --ray-gpus: expected 0 or more")


def model_from(given: Namespace) -> ModelFiles:
    """The files of the model that was asked for."""
    return find_model(given.run, given.config_file, given.weights, given.model)


def options_from(given: Namespace) -> PredictionOptions:
    """The options that were asked for; an InputError if a value is out of range."""
    return PredictionOptions(
        score_threshold=given.score_threshold,
        tile_size=given.tile,
        overlap=given.overlap,
        batch_size=given.batch_size,
        augmentation=TestTimeAugmentation() if given.tta else None,
        diameter=given.diameter,
        microns_per_pixel=given.mpp,
        scale=given.scale,
        split_touching=given.split_touching,
        no_overlap=given.no_overlap,
    )
