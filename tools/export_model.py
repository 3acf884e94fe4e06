"""Write a trained model as one file that runs without Detectron2: ONNX for onnxruntime, TorchScript, or a zip for
Fiji, ilastik, QuPath and others, which is a package of the BioImage Model Zoo and gives a label image.

The file is compared with the model on images of several sizes, and kept only if both agree. Examples:

    python tools/export_model.py --output smear.zip                         # the shipped model
    python tools/export_model.py --run output --output cells.onnx
    python tools/export_model.py --run output --output cells.ts --check smears/1.png smears/2.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from numpy.typing import NDArray
from tabulate import tabulate

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported
from bccd_d2.commands import CommandParser, refuse_to_replace, run_command
from bccd_d2.config import load_config
from bccd_d2.files import read_lines
from bccd_d2.inference.arguments import add_model_arguments, model_from
from bccd_d2.inference.exporting.bioimageio_package import PackageTexts, export_package, read_citation
from bccd_d2.inference.exporting.export import export_model
from bccd_d2.inference.model_files import SHIPPED_LICENSE, WEIGHTS_FOLDER
from bccd_d2.inference.options import DEFAULT_SCORE_THRESHOLD
from bccd_d2.io.find_images import find_images
from bccd_d2.io.images import read_image


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    add_model_arguments(parser, device=False)
    output_help = (
        "ends with .onnx, with .ts for TorchScript, or with .zip for a package of the BioImage Model Zoo"
    )
    add("--output", type=Path, required=True, metavar="FILE", help=output_help)
    check_help = (
        "images on which the file must find what the model finds (default: two synthetic smears and an empty "
        "background); the first becomes the sample of a package"
    )
    add("--check", nargs="+", default=[], metavar="FILE_OR_DIR", help=check_help)
    add("--overwrite", action="store_true", help="replace a file that is there already")
    add = parser.add_argument_group("packages of the BioImage Model Zoo (.zip)").add_argument
    score_help = f"leave out cells below this score (default {DEFAULT_SCORE_THRESHOLD})"
    add("--score-threshold", type=float, metavar="S", help=score_help)
    add("--license", metavar="SPDX", help=f"of the weights (default {SHIPPED_LICENSE} for the shipped model)")
    citation_help = "CITATION.cff with the authors of the model and what to cite (default: that of bccd_d2)"
    add("--citation", type=Path, metavar="FILE", help=citation_help)
    add("--card", type=Path, metavar="FILE", help="Markdown (default for the shipped model: its model card)")
    options = parser.parse_args(arguments)
    if options.output.suffix == ".zip":
        if options.license is None and not is_shipped(options):
            parser.error("give the --license of the weights, an SPDX identifier such as CC-BY-4.0")
    else:
        for name in ("score_threshold", "license", "citation", "card"):
            if getattr(options, name) is not None:
                parser.error(f"--{name.replace('_', '-')}: only for an --output that ends with .zip")
    return options


def is_shipped(options: argparse.Namespace) -> bool:
    """Whether the model is one that comes with bccd_d2."""
    return (options.run, options.config_file, options.weights) == (None, None, None)


def main(arguments: list[str] | None = None) -> None:
    """Export, and print how far file and model agree."""
    options = parse(arguments)
    refuse_to_replace(options.output, options.overwrite)
    model = model_from(options)
    cfg = load_config(model.config)
    named = find_images(options.check) if options.check else []
    images = [read_image(str(path)) for path, _ in named]
    names = [name for _, name in named] or ["synthetic smear", "synthetic smear", "empty background"]
    if options.output.suffix == ".zip":
        export_zip(options, cfg, model.weights, images, names)
    else:
        differences = export_model(cfg, model.weights, options.output, images)
        head = [
            "checked on",
            "cells",
            "largest difference of a box (px)",
            "of a score",
            "of a mask's probability",
        ]
        rows = [[n, f.expected, f.box, f.score, f.mask] for n, f in zip(names, differences)]
        print(tabulate(rows, head, tablefmt="pipe", floatfmt=("", "", ".5f", ".1e", ".1e")))
    print(f"\n{options.output}: {options.output.stat().st_size / 2**20:.0f} MB")


def export_zip(
    options: argparse.Namespace,
    cfg: CfgNode,
    weights: str,
    images: list[NDArray[np.uint8]],
    names: list[str],
) -> None:
    """Export a package of the BioImage Model Zoo."""
    card = options.card or (WEIGHTS_FOLDER / "README.md" if is_shipped(options) else None)
    authors, cite = read_citation(options.citation or WEIGHTS_FOLDER.parent / "CITATION.cff")
    text = "" if card is None else "\n".join(read_lines(card, "the model card"))
    texts = PackageTexts(options.license or SHIPPED_LICENSE, authors, cite, text)
    threshold = DEFAULT_SCORE_THRESHOLD if options.score_threshold is None else options.score_threshold
    agreements = export_package(cfg, weights, options.output, texts, images, score_threshold=threshold)
    rows = [[n, f.cells, *map("{:.4%}".format, f.equal.values())] for n, f in zip(names, agreements)]
    print(tabulate(rows, ["checked on", "cells", "pixels with the same label: TorchScript", "ONNX"], "pipe"))


if __name__ == "__main__":
    run_command(main)
