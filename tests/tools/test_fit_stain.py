import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import bccd_d2  # noqa: F401  adapts Detectron2 before it is imported
from bccd_d2.config import load_config
from bccd_d2.data.stain import ReinhardNormalizer
from tests.data.shapes import disc, smear

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments):
    command = [sys.executable, str(REPOSITORY / "tools" / "fit_stain.py"), *map(str, arguments)]
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def images(tmp_path):
    masks = [disc(120, 160, x, y, 14) for x in (30, 80, 130) for y in (30, 90)]
    folder = tmp_path / "images"
    folder.mkdir()
    for k, shift in enumerate((-30, 0, 30)):
        shifted = smear(120, 160, masks).astype(int)
        shifted[np.any(masks, axis=0)] += shift
        cv2.imwrite(str(folder / f"{k}.png"), shifted.clip(0, 255).astype(np.uint8))
    cv2.imwrite(str(folder / "glass.png"), np.full((50, 50, 3), 230, np.uint8))
    return folder


def test_the_written_target_is_the_median_and_a_configuration_includes_it(images, tmp_path):
    result = run("--input", images, "--output", tmp_path / "stain.yaml")
    assert result.returncode == 0, result.stderr
    assert "1 images show no cells and are left out: glass.png" in result.stdout

    config = tmp_path / "config.yaml"
    base = REPOSITORY / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"
    config.write_text(f'_BASE_: ["{base}", "stain.yaml"]\n')
    cfg = load_config(config)
    assert cfg.INPUT.STAIN.ENABLED
    middle = ReinhardNormalizer.from_config(cfg).statistics(cv2.imread(str(images / "1.png")))
    np.testing.assert_allclose(cfg.INPUT.STAIN.TARGET_MEAN, middle.mean, atol=0.01)
    np.testing.assert_allclose(cfg.INPUT.STAIN.TARGET_STD, middle.std, atol=0.5)
