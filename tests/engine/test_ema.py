import pytest
import torch

from bccd_d2.engine.hooks import ModelEMA


def set_to(model, weight, mean=0.0):
    with torch.no_grad():
        model.weight.fill_(weight)
    model.running_mean.fill_(mean)


def model_of(weight, mean=0.0):
    model = torch.nn.BatchNorm1d(1)
    set_to(model, weight, mean)
    return model


def test_the_decay_warms_up_and_buffers_are_averaged_too():
    model = model_of(1.0)
    ema = ModelEMA(model, decay=0.2)
    set_to(model, 1.0, mean=10.0)  # pretrained weights, loaded after the model was built
    ema.before_train()
    set_to(model, 2.0, mean=20.0)
    ema.after_step()  # decay min(0.2, 2/11): 2/11 of 1 and 9/11 of 2
    assert ema.module.weight.item() == pytest.approx(20 / 11)
    assert ema.module.running_mean.item() == pytest.approx(200 / 11)
    set_to(model, 3.0, mean=30.0)
    model.num_batches_tracked.fill_(2)
    ema.after_step()  # decay min(0.2, 3/12) = 0.2
    assert ema.module.weight.item() == pytest.approx(0.2 * 20 / 11 + 0.8 * 3)
    assert ema.module.num_batches_tracked.item() == 2  # counts are not averaged
    assert (model.weight.item(), model.running_mean.item()) == (3.0, 30.0)
    assert not ema.module.training
