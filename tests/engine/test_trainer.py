import math
import signal

import pytest
import torch
from detectron2.engine import HookBase

from bccd_d2.config import get_bccd_cfg
from bccd_d2.engine.hooks import StopTraining
from bccd_d2.engine.train_step import NonFiniteError
from bccd_d2.engine.trainer import BCCDTrainer
from tests.engine.tiny import tiny_config


@pytest.fixture
def model():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))


def config(**solver):
    cfg = get_bccd_cfg()
    cfg.SOLVER.WEIGHT_DECAY = 0.01
    cfg.SOLVER.WEIGHT_DECAY_NORM = cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.0
    for key, value in solver.items():
        cfg.SOLVER[key] = value
    return cfg


@pytest.mark.parametrize(("name", "kind"), [("AdamW", torch.optim.AdamW), ("SGD", torch.optim.SGD)])
@pytest.mark.parametrize("clip", [False, True])
def test_optimizer_decays_weights_but_neither_norms_nor_biases(model, name, kind, clip):
    cfg = config(OPTIMIZER=name)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = clip
    optimizer = BCCDTrainer.build_optimizer(cfg, model)
    assert isinstance(optimizer, kind)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: decay[id(p)] for name, p in model.named_parameters()}
    assert found == {"0.weight": 0.01, "0.bias": 0, "1.weight": 0, "1.bias": 0}


@pytest.mark.parametrize(("steps", "halved_at"), [((), [6, 8, 9]), ((3,), [3])])
def test_the_rate_is_halved_at_the_steps_or_at_their_shares(model, steps, halved_at):
    cfg = config(MAX_ITER=10, STEPS=steps, GAMMA=0.5, WARMUP_ITERS=0, BASE_LR=1.0)
    optimizer = BCCDTrainer.build_optimizer(cfg, model)
    scheduler = BCCDTrainer.build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [i for i in range(1, 10) if rates[i] == rates[i - 1] / 2] == halved_at
    assert rates[-1] == 0.5 ** len(halved_at)


def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint_alone(tiny_root, tmp_path, capsys):
    options = ("SOLVER.MAX_ITER", 5, "SOLVER.CHECKPOINT_PERIOD", 1, "MODEL_EMA.ENABLED", True)
    trainer = BCCDTrainer(tiny_config(tiny_root, tmp_path, *options))

    class Spoil(HookBase):
        def before_step(self):
            if self.trainer.iter == 2:
                self.trainer.model.proposal_generator.rpn_head.conv.bias.data.fill_(math.nan)

    trainer.register_hooks([Spoil()])
    with pytest.raises(NonFiniteError, match=r"iteration 2 \(predicted boxes nan\); images: .*\.png"):
        trainer.train()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    kept = torch.load(tmp_path / "model_0000001.pth", weights_only=True)["model"]
    assert all(tensor.isfinite().all() for tensor in kept.values())
    diagnostic = torch.load(tmp_path / "diagnostic.pth", weights_only=True)
    assert diagnostic["iteration"] == 2
    assert diagnostic["file_names"] and all(name.endswith(".png") for name in diagnostic["file_names"])
    assert diagnostic["model"]["proposal_generator.rpn_head.conv.bias"].isnan().all()
    assert not (tmp_path / "results.json").exists()


def test_an_early_stopped_training_is_finished_and_stays_so(tiny_root, tmp_path, monkeypatch):
    values = iter([5.0, 4.0, 3.0, 9.0])
    monkeypatch.setattr(BCCDTrainer, "test", classmethod(lambda *_: {"segm": {"AP": next(values)}}))
    options = ("SOLVER.MAX_ITER", 9, "TEST.EVAL_PERIOD", 1, "TEST.PATIENCE", 2, "MODEL_EMA.ENABLED", True)
    cfg = tiny_config(tiny_root, tmp_path, *options)
    BCCDTrainer(cfg).train()
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert (best["iteration"], best["metric"], best["value"]) == (0, "segm/AP", 5.0)
    for name in ("model_final", "model_final_raw"):
        assert torch.load(tmp_path / f"{name}.pth", weights_only=True)["iteration"] == 2
    again = BCCDTrainer(cfg)
    again.resume_or_load(resume=True)
    again.train()
    assert next(values) == 9.0


@pytest.mark.parametrize(("exhausted_at", "patience"), [(1, 1), (2, 2), (3, 1)])
def test_patience_that_ends_with_an_interrupted_evaluation_still_ends_in_a_final_checkpoint(
    tiny_root, tmp_path, monkeypatch, exhausted_at, patience
):
    """Ctrl-C during the evaluation that would have stopped the training, then --resume."""
    best_at = exhausted_at - patience
    evaluated = []

    def evaluate(interrupted):
        def test(*_):
            number = len(evaluated)
            if interrupted and number == exhausted_at:
                raise StopTraining(signal.SIGINT)
            evaluated.append(number)
            return {"segm": {"AP": float(number) if number <= best_at else 0.0}}

        return classmethod(test)

    options = f"SOLVER.MAX_ITER 9 TEST.EVAL_PERIOD 1 TEST.PATIENCE {patience} MODEL_EMA.ENABLED True"
    cfg = tiny_config(tiny_root, tmp_path, *options.split(), "SOLVER.CHECKPOINT_PERIOD", 1)
    monkeypatch.setattr(BCCDTrainer, "test", evaluate(interrupted=True))
    with pytest.raises(SystemExit):
        BCCDTrainer(cfg).train()
    assert not (tmp_path / "model_final.pth").exists()
    monkeypatch.setattr(BCCDTrainer, "test", evaluate(interrupted=False))
    for _ in range(2):  # the second one finds everything done
        again = BCCDTrainer(cfg)
        again.resume_or_load(resume=True)
        again.train()
    assert evaluated == list(range(exhausted_at + 1))
    for name in ("model_final", "model_final_raw"):
        assert torch.load(tmp_path / f"{name}.pth", weights_only=True)["iteration"] == exhausted_at
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
