"""Copy a part of a converted data set with the stain and the light of every image changed on purpose.

By Beer and Lambert's law a stain's optical density grows with its amount, so each colour channel's density is
multiplied by a factor of its own, and the light by a gain of its own. The change is not of the kind that Reinhard's
normalization undoes exactly. Masks stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from bccd_d2.data.registration import annotation_file
from bccd_d2.errors import run_command
from bccd_d2.files import replacing
from bccd_d2.io.images import read_image
from bccd_d2.structures.coco import read_coco, write_coco

LOG_DENSITY = (np.log(0.6), np.log(1.6))  # ranges that the changes are drawn from
LIGHT_GAIN = (0.85, 1.0)


def change_stain(image: np.ndarray, density: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Multiply each channel's optical density and light.

    Args:
        image: (H, W, 3) uint8.
        density: (3,) factors of the optical density; 1 changes nothing.
        light: (3,) factors of the light, at most 1.

    Returns:
        (H, W, 3) uint8.
    """
    transmitted = (np.arange(256)[:, None] / 255.0) ** density * light
    table = np.rint(255 * transmitted).astype(np.uint8)
    return cv2.LUT(image, table[None])


def main(arguments: list[str] | None = None) -> None:
    """Write the changed images and their annotations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="what tools/convert_bccd.py wrote"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="for annotations/ and images/"
    )
    parser.add_argument("--part", default="val", choices=("train", "val", "test"), help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default %(default)s)")
    options = parser.parse_args(arguments)
    document = read_coco(annotation_file(options.data, options.part))
    source = options.data / document["info"]["image_root"]
    generator = np.random.default_rng(options.seed)
    for record in tqdm(document["images"], unit="image"):
        density = np.exp(generator.uniform(LOG_DENSITY[0], LOG_DENSITY[1], size=3))
        light = generator.uniform(LIGHT_GAIN[0], LIGHT_GAIN[1], size=3)
        image = change_stain(read_image(str(source / record["file_name"])), density, light)
        record["file_name"] = f"{Path(record['file_name']).stem}.png"
        with replacing(options.output / "images" / record["file_name"]) as temporary:
            cv2.imwrite(str(temporary), image)
    document["info"] |= {"image_root": "images", "stain_changed_seed": options.seed}
    write_coco(annotation_file(options.output, options.part), document)


if __name__ == "__main__":
    run_command(main)
