import math
import os
import signal
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage

from bccd_d2.engine.hooks import EvaluationHook, StopOnSignal, StopTraining
from bccd_d2.errors import InputError


def evaluate_all(values, *, period=1, patience=0, start=0, state=None, max_iter=None):
    """Run the hook over one evaluation a value; what it saved, whether it stopped, the hook."""
    saved, stopped = [], False
    values = iter(values)
    hook = EvaluationHook(
        period,
        lambda: {"segm": {"AP": next(values)}},
        "segm/AP",
        lambda iteration, value: saved.append((iteration, value)),
        patience,
    )
    if state:
        hook.load_state_dict(state)
    with EventStorage(start) as storage:
        trainer = SimpleNamespace(storage=storage, start_iter=start, iter=start, max_iter=max_iter or 100)
        hook.trainer = trainer
        try:
            hook.before_train()
            for iteration in range(start, trainer.max_iter):
                storage.iter = trainer.iter = iteration
                hook.after_step()
        except StopTraining as stop:
            assert stop.signum is None
            stopped = True
        except StopIteration:
            pass
    return saved, stopped, hook


def test_each_new_best_is_saved_and_nan_is_none():
    saved, stopped, _ = evaluate_all([10.0, math.nan, 9.0, 12.0, 12.0])
    assert saved == [(0, 10.0), (3, 12.0)]
    assert not stopped


def test_training_stops_when_patience_is_at_its_end():
    saved, stopped, hook = evaluate_all([10.0, 9.0, 11.0, 8.0, 11.0, 50.0], patience=2)
    assert saved == [(0, 10.0), (2, 11.0)]
    assert stopped and hook.is_exhausted
    assert hook.state_dict() == {"best": 11.0, "since_best": 2, "last_iteration": 4}


def test_a_resumed_training_makes_up_for_an_evaluation_once():
    # A checkpoint of iteration 3, where one was due, saved before it.
    state = {"best": 10.0, "since_best": 1, "last_iteration": 1}
    saved, _, hook = evaluate_all([20.0], period=2, start=4, state=state, max_iter=5)
    assert saved == [(3, 20.0)]
    assert hook.trainer.storage.latest()["segm/AP"] == (20.0, 3)
    saved, _, _ = evaluate_all([20.0], period=2, start=4, state={**state, "last_iteration": 3}, max_iter=6)
    assert saved == [(5, 20.0)]


def test_a_metric_that_is_none_is_named_with_those_that_are():
    hook = EvaluationHook(1, lambda: {"segm": {"AP": 1.0}}, "segm/PQ", lambda *_: None)
    with EventStorage() as storage:
        hook.trainer = SimpleNamespace(storage=storage, iter=0, max_iter=9)
        with pytest.raises(InputError, match=r"TEST\.BEST_METRIC: segm/PQ, expected one of segm/AP"):
            hook.after_step()


def test_an_evaluation_is_stopped_at_once_and_a_step_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    hook = StopOnSignal()
    hook.trainer = SimpleNamespace(interruptible=False, iter=3, max_iter=10)
    hook.before_train()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # a parent's, for the same reason
        with pytest.raises(StopTraining) as caught:
            hook.after_step()
        assert caught.value.signum == signal.SIGTERM
        hook.trainer.iter = 9
        hook.after_step()  # the last one: the training is finished

        second = StopOnSignal()
        second.trainer = SimpleNamespace(interruptible=True)
        second.before_train()
        with pytest.raises(StopTraining):
            os.kill(os.getpid(), signal.SIGTERM)
        second.after_train()
    finally:
        hook.after_train()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_later_signal_does_what_it_did_before(monkeypatch):
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append("outer"))
    hook = StopOnSignal()
    hook.trainer = SimpleNamespace(interruptible=False)
    try:
        hook.before_train()
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr("bccd_d2.engine.hooks._ONE_SIGNAL", -1.0)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == ["outer"]
