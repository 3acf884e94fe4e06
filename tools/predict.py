"""Find the cells in images and write a COCO results JSON and an overlay PNG an image."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
from tqdm import tqdm

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported
from bccd_d2.data.preprocessing import read_image
from bccd_d2.errors import InputError, run_command
from bccd_d2.files import replacing, write_json
from bccd_d2.inference.images import find_images
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.inference.writers import coco_results
from bccd_d2.visualization.overlay import draw_cells


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="FILE_OR_DIR", help="images, or folders of them"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for predictions.json and overlays"
    )
    parser.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        help="OUTPUT_DIR of a training run: its config.yaml and model_final.pth",
    )
    parser.add_argument("--config-file", type=Path, help="configuration, in place of that of --run")
    parser.add_argument("--weights", help="checkpoint, in place of that of --run")
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, help="leave out cells below this score (default 0.5)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace predictions that are there already")
    options = parser.parse_args(arguments)
    if options.run is None and (options.config_file is None or options.weights is None):
        parser.error("give --run, or both --config-file and --weights")
    if not 0 <= options.score_threshold <= 1:
        parser.error(f"--score-threshold: expected a number from 0 to 1, found {options.score_threshold}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Predict every image; images that cannot be read are listed at the end and make the status 1."""
    options = parse(arguments)
    result_file = options.output / "predictions.json"
    if result_file.exists() and not options.overwrite:
        raise InputError(f"{result_file} exists; give --overwrite to replace it, or another --output")
    images = find_images(options.input)
    predictor = BCCDPredictor(
        options.config_file or options.run / "config.yaml", options.weights or options.run / "model_final.pth"
    )
    entries, unreadable = [], []
    for image_id, (path, name) in enumerate(tqdm(images, unit="image"), start=1):
        try:
            image = read_image(str(path))
        except InputError as error:
            unreadable.append(str(error))
            continue
        cells = predictor(image)
        cells = cells[cells.scores >= options.score_threshold]
        entries += coco_results(cells, image_id, name, predictor.class_names)
        overlay = draw_cells(
            image, cells.pred_masks.numpy(), cells.pred_classes.tolist(), predictor.class_names
        )
        with replacing(options.output / "overlays" / f"{name}.png") as temporary:
            cv2.imwrite(str(temporary), overlay)
    write_json(result_file, entries)
    print(
        f"{len(entries)} cells in {len(images) - len(unreadable)} images: {result_file}, {options.output / 'overlays'}"
    )
    for line in unreadable:
        print(f"skipped: {line}", file=sys.stderr)
    return 1 if unreadable else 0


if __name__ == "__main__":
    run_command(main)
