import pytest
import torch
from detectron2.engine import DefaultTrainer
from detectron2.structures import Boxes, Instances

from bccd_d2.config import get_bccd_cfg
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.errors import InputError


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
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.01,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }


def test_gradients_are_clipped_to_the_norm(model):
    cfg = config(OPTIMIZER="SGD", BASE_LR=1.0, MOMENTUM=0.0, WEIGHT_DECAY=0.0)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    weight = model[0].weight
    before = weight.detach().clone()
    optimizer = BCCDTrainer.build_optimizer(cfg, model)
    weight.grad = torch.full_like(weight, 100.0)
    optimizer.step()
    assert (weight - before).norm().item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(("steps", "halved_at"), [((), [5, 8]), ((3,), [3])])
def test_the_rate_is_halved_at_the_steps_or_at_their_shares(model, steps, halved_at):
    cfg = config(MAX_ITER=10, STEPS=steps, STEP_SHARES=[0.5, 0.8], GAMMA=0.5, WARMUP_ITERS=0, BASE_LR=1.0)
    optimizer = BCCDTrainer.build_optimizer(cfg, model)
    scheduler = BCCDTrainer.build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [i for i in range(1, 10) if rates[i] == rates[i - 1] / 2] == halved_at
    assert rates[-1] == 0.5 ** len(halved_at)


def test_an_unknown_optimizer_is_named(model):
    with pytest.raises(InputError, match="expected 'AdamW' or 'SGD', found 'Adamax'"):
        BCCDTrainer.build_optimizer(config(OPTIMIZER="Adamax"), model)


def test_evaluation_predicts_the_views_that_the_configuration_asks_for(monkeypatch, tmp_path, model):
    cfg = get_bccd_cfg()
    cfg.DATASETS.TEST = ("some_val",)
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.TEST.TTA.ENABLED = True
    cfg.TEST.TTA.SCALES = [1.0, 0.5]
    model.device = torch.device("cpu")
    shown = []

    def inference(inputs, do_postprocess):
        shown.append(tuple(inputs[0]["image"].shape))
        found = Instances(inputs[0]["image"].shape[1:], pred_boxes=Boxes(torch.zeros(0, 4)))
        found.scores, found.pred_classes = torch.zeros(0), torch.zeros(0, dtype=torch.long)
        found.pred_masks = torch.zeros(0, 1, 28, 28)
        return [found]

    def stock_test(cfg, model, evaluators):
        image = torch.zeros(3, 20, 30, dtype=torch.uint8)
        (output,) = model([{"image": image, "height": 40, "width": 60}])
        return {"size": output["instances"].image_size, "cells": len(output["cells"])}

    model.inference = inference
    monkeypatch.setattr(DefaultTrainer, "test", stock_test)
    assert BCCDTrainer.test(cfg, model) == {"size": (40, 60), "cells": 0}
    assert sorted(shown) == sorted([(3, 20, 30), (3, 30, 20), (3, 10, 15), (3, 15, 10)] * 4)
