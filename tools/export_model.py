"""Write a trained model as one file that runs without Detectron2: ONNX for onnxruntime, or TorchScript.

The file is compared with the model on images of several sizes, and kept only if both agree. Examples:

    python tools/export_model.py --run output --output cells.onnx
    python tools/export_model.py --run output --output cells.ts --check smears/1.png smears/2.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported
from bccd_d2.commands import CommandParser
from bccd_d2.config import load_config
from bccd_d2.errors import InputError, run_command
from bccd_d2.inference.export import export_model
from bccd_d2.io.find_images import find_images
from bccd_d2.io.images import read_image


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    run_help = "OUTPUT_DIR of a training run: its config.yaml and model_final.pth"
    add("--run", type=Path, metavar="DIR", help=run_help)
    add("--config-file", type=Path, metavar="FILE", help="configuration, in place of that of --run")
    add("--weights", metavar="FILE", help="checkpoint, in place of that of --run")
    output_help = "ends with .onnx, or with .ts for TorchScript"
    add("--output", type=Path, required=True, metavar="FILE", help=output_help)
    check_help = (
        "images on which the file must find what the model finds (default: two synthetic smears and an empty "
        "background)"
    )
    add("--check", nargs="+", default=[], metavar="FILE_OR_DIR", help=check_help)
    add("--overwrite", action="store_true", help="replace a file that is there already")
    options = parser.parse_args(arguments)
    if options.run is None and (options.config_file is None or options.weights is None):
        parser.error("give --run, or both --config-file and --weights")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Export, and print the largest differences between file and model."""
    options = parse(arguments)
    if options.output.exists() and not options.overwrite:
        raise InputError(f"{options.output} exists; give --overwrite to replace it, or another --output")
    cfg = load_config(options.config_file or options.run / "config.yaml")
    weights = str(options.weights or options.run / "model_final.pth")
    named = find_images(options.check) if options.check else []
    differences = export_model(cfg, weights, options.output, [read_image(str(path)) for path, _ in named])
    names = [name for _, name in named] or ["synthetic smear", "synthetic smear", "empty background"]
    print("| checked on | cells | largest difference of a box (px) | of a score | of a mask's probability |")
    print("|---|---:|---:|---:|---:|")
    for name, found in zip(names, differences):
        print(f"| {name} | {found.expected} | {found.box:.5f} | {found.score:.1e} | {found.mask:.1e} |")
    print(f"\n{options.output}: {options.output.stat().st_size / 2**20:.0f} MB")


if __name__ == "__main__":
    run_command(main)
