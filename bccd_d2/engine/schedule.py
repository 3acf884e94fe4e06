"""Epochs and shares of a training, as the iterations that Detectron2 counts in."""

from __future__ import annotations

import logging
import math

from detectron2.config import CfgNode

_logger = logging.getLogger(__name__)
# With a schedule in epochs the warm-up takes at most this share of it: how many iterations that is depends on the data.
_LARGEST_WARMUP = 0.1


def set_iterations(cfg: CfgNode, images: int) -> None:
    """Set in ``cfg``, in place, the iterations that its keys in epochs stand for.

    Args:
        cfg: not frozen; ``SOLVER.MAX_EPOCHS``, ``CHECKPOINT_EPOCHS`` and ``TEST.EVAL_EPOCHS`` are read.
        images: how many images an epoch has.
    """
    solver = cfg.SOLVER
    iterations = images / (solver.IMS_PER_BATCH * solver.ACCUMULATE)
    if solver.MAX_EPOCHS:
        solver.MAX_ITER = math.ceil(solver.MAX_EPOCHS * iterations)
        solver.WARMUP_ITERS = min(solver.WARMUP_ITERS, math.ceil(_LARGEST_WARMUP * solver.MAX_ITER))
        _logger.info(
            "%d epochs of %d images are %d iterations, warm-up %d",
            *(solver.MAX_EPOCHS, images, solver.MAX_ITER, solver.WARMUP_ITERS),
        )
    if solver.CHECKPOINT_EPOCHS:
        solver.CHECKPOINT_PERIOD = math.ceil(solver.CHECKPOINT_EPOCHS * iterations)
    if cfg.TEST.EVAL_EPOCHS:
        cfg.TEST.EVAL_PERIOD = math.ceil(cfg.TEST.EVAL_EPOCHS * iterations)


def steps_of_shares(cfg: CfgNode) -> tuple[int, ...]:
    """``SOLVER.STEPS``, or the iterations that ``SOLVER.STEP_SHARES`` of ``SOLVER.MAX_ITER`` are where it is empty."""
    if cfg.SOLVER.STEPS:
        return tuple(cfg.SOLVER.STEPS)
    iterations = cfg.SOLVER.MAX_ITER
    steps = sorted({round(share * iterations) for share in cfg.SOLVER.STEP_SHARES} - {0, iterations})
    # fvcore wants more iterations than rates, which a trial run of two iterations must not fail on.
    return tuple(steps[: max(0, iterations - 2)])
