"""Draw what the data of a configuration look like: split, stain step, masks, crops, augmentation, one sample.

Writes step1_split_train.png, step2_reinhard_preview.png, step2_overlay_mask.png, step2_patch_preview.png,
step2_aug_preview.png and step4_dataset_item_0.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure
from tqdm import tqdm

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported

# isort: split
from detectron2.config import CfgNode

from bccd_d2.engine.setup import setup_config
from bccd_d2.errors import run_command
from bccd_d2.files import replacing
from bccd_d2.reporting.previews import DataPreviews


def main(arguments: list[str] | None = None) -> None:
    """Draw and save every figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", type=Path, required=True, metavar="FILE", help="YAML of configs/")
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="folder that tools/convert_bccd.py wrote (default: DATASETS.ROOT of the configuration)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the figures go")
    parser.add_argument("--image", type=int, default=0, help="which training image is shown (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="of random crops and transforms (default 0)")
    parser.add_argument("options", nargs="*", metavar="KEY VALUE", help="win over the configuration file")
    options = parser.parse_args(arguments)
    cfg = setup_config(options.config_file, options.options, options.data_root)
    for name, figure in tqdm(figures(cfg, options.image, options.seed), desc="figures", total=6):
        path = options.output / name
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=110)
        tqdm.write(str(path))


def figures(cfg: CfgNode, image: int, seed: int) -> Iterator[tuple[str, Figure]]:
    """Name and figure, one after the other."""
    previews = DataPreviews(cfg, image, seed)
    yield "step1_split_train.png", previews.split()
    yield "step2_reinhard_preview.png", previews.reinhard()
    yield "step2_overlay_mask.png", previews.mask_overlay()
    yield "step2_patch_preview.png", previews.patches()
    yield "step2_aug_preview.png", previews.augmentations()
    yield "step4_dataset_item_0.png", previews.dataset_item()


if __name__ == "__main__":
    run_command(main)
