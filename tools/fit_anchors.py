"""Fit the sizes of the anchors to the training boxes and write them as YAML that a configuration includes.

Prints which share of the boxes the best anchor overlaps at the region proposal network's IoU thresholds, with the
configuration's anchors and with the fitted ones, by class and size, and draws both on an image. Sizes are in pixels of
the image as INPUT.SCALE resizes it, so fit again when that changes. Include the file beside a model's, later ones
winning:

    _BASE_: ["mask_rcnn_R_50_FPN.yaml", "anchors.yaml"]

example:
  python tools/fit_anchors.py --config-file configs/mask_rcnn_R_50_FPN.yaml --data-root datasets/bccd --output anchors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

# isort: split
from detectron2.data import DatasetCatalog
from tabulate import tabulate

from bccd_d2.data.preprocessing import resize_image, scaled_size
from bccd_d2.engine.setup import setup_config
from bccd_d2.errors import InputError, run_command
from bccd_d2.files import replacing
from bccd_d2.io.images import read_image
from bccd_d2.modeling.anchors import Anchors, ScaledBoxes, recall_table
from bccd_d2.reporting.data_figures import anchor_preview


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", type=Path, required=True, metavar="FILE", help="YAML of configs/")
    parser.add_argument("--data-root", metavar="DIR", help="folder of tools/convert_bccd.py")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="gets anchors.yaml and viz/"
    )
    parser.add_argument(
        "--sizes-per-level", type=int, default=1, metavar="N", help="anchor sizes on each level (default 1)"
    )
    parser.add_argument(
        "--aspect-ratios", type=float, nargs="+", default=[], help="height / width (default: as configured)"
    )
    parser.add_argument("--image", type=int, default=0, help="which training image is drawn (default 0)")
    parser.add_argument("options", nargs="*", metavar="KEY VALUE", help="win over the configuration file")
    options = parser.parse_intermixed_args(arguments)
    if options.sizes_per_level < 1 or min(options.aspect_ratios + [1]) <= 0:
        parser.error("--sizes-per-level and --aspect-ratios: expected numbers above 0")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Fit, print, write and draw."""
    options = parse(arguments)
    cfg = setup_config(options.config_file, options.options, options.data_root)
    scale, thresholds = cfg.INPUT.SCALE, cfg.MODEL.RPN.IOU_THRESHOLDS
    parts = {part: DatasetCatalog.get(part) for part in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)}
    dicts = [record for part in cfg.DATASETS.TRAIN for record in parts[part]]
    if not 0 <= options.image < len(dicts):
        raise InputError(f"--image: expected 0 to {len(dicts) - 1}, found {options.image}")
    boxes = ScaledBoxes.from_dicts(dicts, scale)
    current = Anchors.from_config(cfg)
    fitted = current.fitted(boxes.shapes, options.sizes_per_level, options.aspect_ratios)
    both = {"current": current, "fitted": fitted}

    print("Share of the boxes whose best anchor reaches an IoU, in %, and the mean of these IoU.")
    for part, records in parts.items():
        one = ScaledBoxes.from_dicts(records, scale)
        print(f"{part} ({one.crowds} boxes of crowds left out):")
        rows = recall_table(one, cfg.DATASETS.CLASS_NAMES, both, thresholds)
        print(tabulate(rows, headers="keys", floatfmt=("", ".0f", *(*[".1f"] * len(thresholds), ".3f") * 2)))
    text = fitted.yaml(
        f"Anchors fitted by tools/fit_anchors.py to {len(boxes.boxes)} boxes of {', '.join(cfg.DATASETS.TRAIN)} at "
        f"INPUT.SCALE {scale}."
    )
    with replacing(options.output / "anchors.yaml") as temporary:
        temporary.write_text(text, encoding="utf-8")

    native = read_image(dicts[options.image]["file_name"])
    image = resize_image(native, *scaled_size(native.shape[0], native.shape[1], scale))
    figure = anchor_preview(image, boxes.boxes[boxes.images == options.image], both, max(thresholds))
    with replacing(options.output / "viz" / "step3_anchor_preview.png") as temporary:
        figure.savefig(temporary, dpi=110)
    print(f"{text}written to {options.output}")


if __name__ == "__main__":
    run_command(main)
