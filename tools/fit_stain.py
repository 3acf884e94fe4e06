"""Fit the target of the stain normalization to a data set and write it as YAML that a configuration includes.

The target is the median, over the images, of the mean and standard deviation of each CIELAB channel over the
cells. Include the file beside a model's, later ones winning:

    _BASE_: ["mask_rcnn_R_50_FPN.yaml", "stain.yaml"]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bccd_d2.commands import CommandParser, run_command
from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.stain import ReinhardNormalizer, StainTarget
from bccd_d2.errors import InputError
from bccd_d2.files import replacing
from bccd_d2.io.find_images import find_images
from bccd_d2.io.images import read_image

_TEMPLATE = """\
# Stain target fitted by tools/fit_stain.py: the median over {used} images ({skipped} without cells left out).
# CIELAB of sRGB images, white point D65: L in [0, 100], a and b signed. Statistics over the cells
# that Otsu's threshold finds in green.
INPUT:
  STAIN:
    ENABLED: True
    TARGET_MEAN: {mean}
    TARGET_STD: {std}
"""


def median_target(statistics: Sequence[StainTarget]) -> StainTarget:
    """The median of each value over images, so that a few odd slides do not move it; InputError without any."""
    if not statistics:
        raise InputError("no image shows cells; expected at least one to fit a stain target")
    mean = np.median([one.mean for one in statistics], axis=0)
    std = np.median([one.std for one in statistics], axis=0)
    return StainTarget(tuple(mean.tolist()), tuple(std.tolist()))


def main(arguments: list[str] | None = None) -> None:
    """Measure every image, write the median."""
    parser = CommandParser(__doc__)
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help="images, or folders that are searched for them: the training images, not their masks",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="YAML file to write")
    options = parser.parse_args(arguments)

    cfg = get_bccd_cfg()
    measure = ReinhardNormalizer.from_config(cfg)
    found, empty = [], []
    for path, name in tqdm(find_images(options.input), desc="images", unit="image"):
        statistics = measure.statistics(read_image(str(path), cfg.INPUT.FORMAT))
        if statistics is None:
            empty.append(name)
        else:
            found.append(statistics)
    if empty:
        print(f"{len(empty)} images show no cells and are left out: {', '.join(empty[:5])}")
    target = median_target(found)
    text = _TEMPLATE.format(
        used=len(found),
        skipped=len(empty),
        mean=[round(value, 2) for value in target.mean],
        std=[round(value, 2) for value in target.std],
    )
    with replacing(options.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{text}written to {options.output}")


if __name__ == "__main__":
    run_command(main)
