"""What only a GPU shows: the same cells as on the CPU, alone and in batches, and a training in mixed precision."""

import json

import numpy as np
import pytest
import torch

from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.synthetic import draw_smear
from tests.engine.tiny import tiny_config, write_data
from tests.inference.tiny_network import write_tiny_run

pytestmark = pytest.mark.gpu
OPTIONS = PredictionOptions(score_threshold=0.35, tile_size=128, overlap=40)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return write_tiny_run(folder), folder / "model_final.pth"


def predictor_on(run, device, **keys):
    cfg = run[0].clone()
    cfg.SOLVER.AMP.ENABLED = keys.get("half", False)
    return BCCDPredictor(cfg, run[1], OPTIONS, device=device, cpu_mode="plain")


def test_a_gpu_finds_the_cells_of_the_cpu_tile_by_tile_and_in_batches(run, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # whose convolutions keep 10 bits
    image = draw_smear(3, 400, 300).image
    expected = predictor_on(run, "cpu").predict_cells(image)
    predictor = predictor_on(run, "cuda")
    for batch_size in (1, 3, 8):
        predictor.network.batch_size = batch_size
        found = predictor.predict_cells(image)
        assert len(found) == len(expected) > 5
        assert expected.ious(found).max(axis=1).min() > 0.9


def test_half_precision_stays_close(run):
    image = draw_smear(3, 400, 300).image
    expected, found = (predictor_on(run, "cuda", half=half).predict_cells(image) for half in (False, True))
    assert abs(len(found) - len(expected)) <= 0.2 * len(expected)
    assert np.median(expected.ious(found).max(axis=1)) > 0.9


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_resumes(tmp_path, dtype):
    root = write_data(tmp_path / "data")
    options = [
        "MODEL.DEVICE",
        "cuda",
        "SOLVER.AMP.ENABLED",
        True,
        "SOLVER.AMP.DTYPE",
        dtype,
        "SOLVER.MAX_ITER",
    ]
    cfg = tiny_config(root, tmp_path / "run", *options, 4, "SOLVER.CHECKPOINT_PERIOD", 2)
    (tmp_path / "run").mkdir()
    BCCDTrainer(cfg).train()
    again = BCCDTrainer(tiny_config(root, tmp_path / "run", *options, 6))
    again.resume_or_load(resume=True)
    assert again.start_iter == 4
    again.train()
    last = json.loads((tmp_path / "run" / "metrics.json").read_text().splitlines()[-1])
    assert last["iteration"] == 5 and np.isfinite(last["total_loss"])
    assert all(p.is_cuda and p.dtype == torch.float32 for p in again.model.parameters())
