import pytest
import torch

from bccd_d2.engine.ema import ModelEMA


def model_of(weight, mean=0.0, batches=0):
    model = torch.nn.BatchNorm1d(1)
    set_to(model, weight, mean)
    model.num_batches_tracked.fill_(batches)
    return model


def set_to(model, weight, mean=0.0):
    with torch.no_grad():
        model.weight.fill_(weight)
    model.running_mean.fill_(mean)


def test_the_decay_warms_up_and_buffers_are_averaged_too():
    model = model_of(1.0, mean=10.0)
    ema = ModelEMA(model, decay=0.2)
    ema.before_train()
    set_to(model, 2.0, mean=20.0)
    ema.after_step()  # decay min(0.2, 2/11): 2/11 of 1 and 9/11 of 2
    with ema.applied():
        assert model.weight.item() == pytest.approx(20 / 11)
        assert model.running_mean.item() == pytest.approx(200 / 11)
    set_to(model, 3.0, mean=30.0)
    ema.after_step()  # decay min(0.2, 3/12) = 0.2
    with ema.applied():
        assert model.weight.item() == pytest.approx(0.2 * 20 / 11 + 0.8 * 3)
        model.num_batches_tracked += 1  # no average of counts
    assert (model.weight.item(), model.running_mean.item()) == (3.0, 30.0)
    assert model.num_batches_tracked.item() == 1


def test_the_weights_come_back_after_an_error():
    model = model_of(1.0)
    ema = ModelEMA(model, decay=0.5)
    ema.before_train()
    set_to(model, 2.0)
    with pytest.raises(RuntimeError), ema.applied():
        assert model.weight.item() == 1.0
        raise RuntimeError
    assert model.weight.item() == 2.0


def test_it_starts_from_the_weights_that_were_loaded_last():
    model = model_of(1.0)
    ema = ModelEMA(model, decay=0.5)
    set_to(model, 7.0)  # pretrained weights
    ema.before_train()
    with ema.applied():
        assert model.weight.item() == 7.0


def test_both_kinds_of_weights_survive_a_checkpoint():
    model = model_of(1.0)
    ema = ModelEMA(model, decay=0.1)
    ema.before_train()
    set_to(model, 2.0)
    ema.after_step()
    with ema.applied():
        average, saved = model.weight.item(), {k: v.clone() for k, v in model.state_dict().items()}
        state = {"updates": ema.state_dict()["updates"], "tensors": dict(ema.state_dict()["tensors"])}
        state["tensors"] = {name: tensor.clone() for name, tensor in state["tensors"].items()}
    other = model_of(-1.0)
    other.load_state_dict(saved)
    again = ModelEMA(other, decay=0.1)
    again.load_state_dict(state)
    again.before_train()
    assert other.weight.item() == 2.0
    with again.applied():
        assert other.weight.item() == average == pytest.approx(0.1 * 1 + 0.9 * 2)
