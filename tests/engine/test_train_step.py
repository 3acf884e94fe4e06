import math
from pathlib import Path

import bccd_d2  # noqa: F401  in the processes that are started, no conftest.py has done it

# isort: split
import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from bccd_d2.engine.launch import gloo_group
from bccd_d2.engine.train_step import NonFiniteError, TrainStep


class Squares(torch.nn.Module):
    """Loss: the mean over the batch of (w x - 1)^2, and of |w|."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1, bias=False)
        torch.nn.init.constant_(self.layer.weight, 0.5)

    def forward(self, batch):
        x = torch.stack([torch.as_tensor(s["x"]) for s in batch])
        return {"loss_a": ((self.layer(x) - 1) ** 2).mean(), "loss_b": self.layer.weight.abs().sum()}


def samples(*values):
    return [{"x": torch.tensor(v), "file_name": f"{k}.png"} for k, v in enumerate(values)]


DATA = samples((1.0, 2.0), (3.0, -1.0), (0.0, 1.0), (-2.0, 5.0))


def steps(batches, count=1, **options):
    """The model after so many steps, and the storage."""
    model = Squares()
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)
    step.read_from(batches)
    with EventStorage() as storage:
        for _ in range(count):
            step.run_step()
    return model, storage


def test_a_step_is_what_is_computed_by_hand():
    model, storage = steps([DATA[2:3]])
    # w = (0.5, 0.5), x = (0, 1): loss_a = 0.25 with gradient 2 * -0.5 * x, loss_b = 1 with gradient sign(w)
    torch.testing.assert_close(model.layer.weight, torch.tensor([[0.4, 0.5]]))
    latest = {name: value for name, (value, _) in storage.latest().items() if "loss" in name}
    assert latest == {"loss_a": 0.25, "loss_b": 1.0, "total_loss": 1.25}


def test_accumulated_batches_are_one_bigger_batch():
    whole, storage = steps([DATA, DATA], count=2)
    parts, storage_of_parts = steps([DATA[:2], DATA[2:]] * 2, count=2, accumulate=2)
    torch.testing.assert_close(parts.layer.weight, whole.layer.weight)
    for name in ("total_loss", "loss_a"):
        expected = storage.history(name).latest()
        assert storage_of_parts.history(name).latest() == pytest.approx(expected)


def test_a_loss_that_is_not_finite_names_its_image_and_changes_nothing():
    batch = samples((1.0, 2.0), (math.nan, 0.0), (0.0, 1.0))
    model = Squares()
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1))
    step.iter = 7
    step.read_from([batch])
    with EventStorage(), pytest.raises(NonFiniteError) as caught:
        step.run_step()
    assert str(caught.value) == "the loss is not finite at iteration 7 (loss_a nan); images: 1.png"
    assert caught.value.file_names == ["1.png"]
    torch.testing.assert_close(model.layer.weight, torch.full((1, 2), 0.5))


def test_a_gradient_that_is_not_finite_does_not_reach_the_weights():
    model = Squares()
    model.layer.weight.register_hook(lambda gradient: gradient * math.inf)
    step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1))
    step.read_from([DATA[:2]])
    with EventStorage(), pytest.raises(NonFiniteError, match=r"gradient is not finite .* 0\.png, 1\.png"):
        step.run_step()
    torch.testing.assert_close(model.layer.weight, torch.full((1, 2), 0.5))


def _of_two(rank, folder):
    with gloo_group(f"file://{folder}/meet", world_size=2, rank=rank):
        torch.save(_found_by(rank), f"{folder}/{rank}.pth")
    # A thread of gloo's that is left would abort the process now and then, at its very end.
    assert not [name for name in thread_names() if "gloo" in name]


def thread_names():
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def _found_by(rank):
    found = {}
    for accumulate in (1, 2):
        model = Squares()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step = TrainStep(DistributedDataParallel(model), optimizer, accumulate=accumulate)
        # Of each global batch, every second sample.
        mine = DATA[rank::2]
        step.read_from([mine] if accumulate == 1 else [mine[:1], mine[1:]])
        with EventStorage() as storage:
            step.run_step()
        weight = model.layer.weight.detach().clone()
        step.read_from([samples((1.0, 1.0)) if rank == 0 else samples((math.inf, 1.0))] * accumulate)
        with EventStorage():
            try:
                step.run_step()
            except NonFiniteError as error:
                names = error.file_names
        loss = storage.history("total_loss").latest() if rank == 0 else None
        found[accumulate] = weight, loss, names
    return found


def test_two_processes_are_one_with_the_same_batch(tmp_path):
    expected, storage = steps([DATA])
    mp.spawn(_of_two, nprocs=2, args=(str(tmp_path),))
    for rank in (0, 1):
        for weight, loss, names in torch.load(tmp_path / f"{rank}.pth").values():
            torch.testing.assert_close(weight, expected.layer.weight.detach())
            assert names == ["0.png"]  # the second process's, known to both
            if rank == 0:
                assert loss == pytest.approx(storage.history("total_loss").latest())
