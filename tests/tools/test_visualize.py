import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from bccd_d2.conversion.convert import convert_dataset
from tests.data.shapes import disc, smear

REPOSITORY = Path(__file__).resolve().parents[2]
FIGURES = (
    "step1_split_train.png",
    "step2_reinhard_preview.png",
    "step2_overlay_mask.png",
    "step2_patch_preview.png",
    "step2_aug_preview.png",
    "step3_anchor_preview.png",
    "step4_dataset_item_0.png",
)


def run(*arguments):
    command = [sys.executable, str(REPOSITORY / "tools" / "visualize.py"), *map(str, arguments)]
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_every_figure_of_a_converted_data_set_is_drawn(tmp_path):
    for k in range(8):
        masks = [disc(160, 200, x, y, 13) for x in (30 + k, 90, 150) for y in (30, 90, 140)]
        for kind, picture in (
            ("original", smear(160, 200, masks)),
            ("mask", np.any(masks, axis=0).astype(np.uint8) * 255),
        ):
            folder = tmp_path / "pairs" / "train" / kind
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{k}.png"), picture)
    convert_dataset(tmp_path / "pairs", tmp_path / "dataset")

    config = REPOSITORY / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"
    common = ("--config-file", config, "--data-root", tmp_path / "dataset", "--output", tmp_path / "viz")
    result = run(*common, "INPUT.CROP.SIZE", "[96,96]")
    assert result.returncode == 0, result.stderr[-3000:]
    for name in FIGURES:
        picture = cv2.imread(str(tmp_path / "viz" / name))
        assert picture is not None, name
        assert picture.std() > 10, name

    result = run(*common, "--image", "99")
    assert result.returncode == 1
    assert "--image 99: bccd_train has images 0 to" in result.stderr
    assert "Traceback" not in result.stderr
