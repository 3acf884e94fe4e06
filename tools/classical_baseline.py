"""Find cells by Otsu's threshold and a watershed, without training, and write them as COCO results.

What comes out is evaluated as any other predictions, by tools/evaluate.py: a trained model has to beat it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bccd_d2.commands import CommandParser, refuse_to_replace, run_command
from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import read_evaluation_set
from bccd_d2.files import write_json
from bccd_d2.io.images import read_image
from bccd_d2.segmentation.otsu_watershed import RULE, SMOOTHING, otsu_watershed
from bccd_d2.structures.dataset_files import dataset_file

EXAMPLES = """examples:
  python tools/classical_baseline.py --data-root datasets/bccd --part val --output output/classical/val.json
  python tools/evaluate.py --predictions output/classical/val.json --data-root datasets/bccd --part val
"""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(__doc__, EXAMPLES)
    add = parser.add_argument
    add(
        "--data-root", type=Path, required=True, metavar="DIR", help="folder that tools/convert_bccd.py wrote"
    )
    add("--part", default="val", help="part of the data set (default val)")
    add("--output", type=Path, required=True, metavar="JSON", help="COCO results file to write")
    add("--min-area", type=int, default=RULE.min_area, metavar="PX", help="drop less (default %(default)s)")
    add(
        "--smoothing",
        type=float,
        default=SMOOTHING,
        metavar="PX",
        help="sigma of the blur (default %(default)s)",
    )
    add("--no-watershed", action="store_true", help="leave touching cells together")
    add("--overwrite", action="store_true", help="replace an earlier file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Find the cells of every image of the part; all get its first category."""
    options = parse(arguments)
    refuse_to_replace(options.output, options.overwrite)
    truth = read_evaluation_set(dataset_file(options.data_root, options.part))
    rule = replace(RULE, min_area=options.min_area, cut=None if options.no_watershed else RULE.cut)
    entries: list[dict[str, Any]] = []
    for image in tqdm(truth.images, unit="image", disable=None):
        if image.path is None:
            raise InputError(f"{options.data_root}: the image {image.file_name} is not there; convert again")
        cells = otsu_watershed(read_image(image.path, "RGB")[..., ::-1], rule, options.smoothing)
        for rle, (x0, y0, x1, y1), score in zip(cells.rles(), cells.boxes.tolist(), cells.scores.tolist()):
            entry = {"image_id": image.image_id, "category_id": truth.category_ids[0], "segmentation": rle}
            entries.append({**entry, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": round(score, 4)})
    write_json(options.output, entries)
    print(f"{len(entries)} cells in {len(truth.images)} images: {options.output}")


if __name__ == "__main__":
    run_command(main)
