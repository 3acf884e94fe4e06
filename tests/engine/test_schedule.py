import pytest

from bccd_d2.config import get_bccd_cfg
from bccd_d2.engine.schedule import set_iterations, steps_of_shares


@pytest.fixture
def cfg():
    cfg = get_bccd_cfg()
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE = 4, 2
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS = 1000, 200
    return cfg


def test_epochs_are_iterations_over_all_images(cfg):
    cfg.SOLVER.MAX_EPOCHS, cfg.SOLVER.CHECKPOINT_EPOCHS, cfg.TEST.EVAL_EPOCHS = 12, 2, 3
    set_iterations(cfg, images=42)
    # 42 / (4 * 2) = 5.25 iterations an epoch
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD) == (63, 11, 16)
    assert cfg.SOLVER.WARMUP_ITERS == 7
    set_iterations(cfg, images=4200)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS) == (6300, 7)


def test_without_epochs_iterations_stay(cfg):
    before = cfg.clone()
    set_iterations(cfg, images=42)
    assert cfg == before


def test_a_warm_up_that_is_short_enough_stays(cfg):
    cfg.SOLVER.MAX_EPOCHS = 12
    set_iterations(cfg, images=4200)
    assert cfg.SOLVER.WARMUP_ITERS == 200


@pytest.mark.parametrize(
    ("steps", "shares", "iterations", "expected"),
    [
        ((), [0.6, 0.8, 0.9], 1000, (600, 800, 900)),
        ((700,), [0.6], 1000, (700,)),
        ((), [0.6, 0.8, 0.9], 2, ()),
        ((), [], 1000, ()),
    ],
)
def test_steps_are_shares_of_the_iterations(cfg, steps, shares, iterations, expected):
    cfg.SOLVER.STEPS, cfg.SOLVER.STEP_SHARES, cfg.SOLVER.MAX_ITER = steps, shares, iterations
    assert steps_of_shares(cfg) == expected
