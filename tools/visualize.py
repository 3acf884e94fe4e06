"""Draw the figures of a data set, or of a training run with its data set and its evaluation.

  python tools/visualize.py --config-file configs/mask_rcnn_R_18_FPN_lite.yaml --data-root datasets/bccd --output viz
  python tools/visualize.py --run output/model

The data: training_images, stain_normalization, annotated_cells, training_crops, augmentations, anchors, dataset_item.
A run has also training_loss, metrics, best_images and worst_images, and its metrics are printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

# isort: split
from tqdm import tqdm

from bccd_d2.commands import CommandParser, run_command
from bccd_d2.engine.setup import setup_config
from bccd_d2.reporting.previews import DataPreviews
from bccd_d2.reporting.report import headline_table
from bccd_d2.reporting.run_figures import run_figures, save_figure
from bccd_d2.reporting.sources import EvaluatedPart, evaluate_sources, read_run


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config-file", type=Path, metavar="FILE", help="YAML of configs/")
    what.add_argument("--run", type=Path, metavar="DIR", help="OUTPUT_DIR of tools/train_net.py, evaluated")
    root_help = "folder that tools/convert_bccd.py wrote (default: DATASETS.ROOT of the configuration)"
    add("--data-root", type=Path, metavar="DIR", help=root_help)
    add("--output", type=Path, metavar="DIR", help="folder for the figures (default: viz in the run)")
    add("--image", type=int, default=0, metavar="N", help="index of the training image (default 0)")
    add("--seed", type=int, default=0, help="of random crops and transforms (default 0)")
    add("options", nargs="*", metavar="KEY VALUE", help="override the configuration file")
    options = parser.parse_args(arguments)
    if options.run is None and options.output is None:
        parser.error("--config-file needs --output")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Draw and save every figure."""
    options = parse(arguments)
    output = options.output or options.run / "viz"
    parts: list[EvaluatedPart] = []
    if options.run is not None:
        sources, rules, _ = read_run(options.run, options.data_root)
        parts = evaluate_sources(sources, rules)
    config_file = options.config_file or options.run / "config.yaml"
    root = str(options.data_root) if options.data_root else None
    previews = DataPreviews(setup_config(config_file, options.options, root), options.image, options.seed)
    for name, draw in tqdm(previews.figures().items(), desc="figures"):
        tqdm.write(str(save_figure(draw(), output / f"{name}.png")))
    if options.run is not None:
        for name, figure in run_figures(options.run, parts):
            print(save_figure(figure, output / f"{name}.png"))
        print(f"\n{headline_table(parts)}")


if __name__ == "__main__":
    run_command(main)
