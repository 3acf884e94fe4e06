"""A training that was interrupted and went on, against the same one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase

from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.errors import InputError
from tests.engine.tiny import tiny_config
from tests.full_disk import files_no_larger_than

ITERATIONS = 6
EVERYTHING = [
    *("MODEL_EMA.ENABLED", True, "SOLVER.ACCUMULATE", 2, "SOLVER.MAX_ITER", ITERATIONS),
    *("INPUT.AUGMENTATION.PRESET", "strong", "SOLVER.CHECKPOINT_PERIOD", 2),
    *("TEST.EVAL_PERIOD", 2, "TEST.VALIDATION_LOSS_PERIOD", 3),
]


class SignalHook(HookBase):
    """Sends this process a signal after an iteration."""

    def __init__(self, iteration, signum):
        self.iteration, self.signum = iteration, signum

    def after_step(self):
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), self.signum)


def run(cfg, *hooks, resume=False):
    # As in a new process: whatever was drawn before must not matter.
    torch.manual_seed(12345 if resume else cfg.SEED)
    trainer = BCCDTrainer(cfg)
    trainer._hooks[:0] = hooks
    for hook in hooks:
        hook.trainer = trainer
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def checkpoint(folder, name):
    """Its content but for the configuration, which names the folder."""
    content = torch.load(folder / f"{name}.pth", weights_only=True)
    assert str(folder) in content.pop("config")
    return content


def same(one, other):
    """Equal content, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def records(folder):
    """metrics.json without times; of an iteration the later record counts."""
    found = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        record = json.loads(line)
        found[record["iteration"]] = {
            name: value for name, value in record.items() if "time" not in name and "eta" not in name
        }
    return found


@pytest.fixture(scope="module")
def uninterrupted(tiny_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(tiny_config(tiny_root, folder, *EVERYTHING))
    return folder


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_resumes_to_the_same_weights(tiny_root, tmp_path, uninterrupted, signum, status):
    cfg = tiny_config(tiny_root, tmp_path, *EVERYTHING)
    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as stopped:
        run(cfg, SignalHook(2, signum))
    assert stopped.value.code == status
    assert signal.getsignal(signum) == before
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    assert not (tmp_path / "model_final.pth").exists()

    run(cfg, resume=True)
    for name in ("model_final", "model_best", "model_final_raw"):
        assert same(checkpoint(uninterrupted, name), checkpoint(tmp_path, name)), name
    assert records(uninterrupted)[ITERATIONS - 1] == records(tmp_path)[ITERATIONS - 1]
    assert (uninterrupted / "results.json").read_text() == (tmp_path / "results.json").read_text()


STOPPED_BY_GROUP = """
import os, sys
from pathlib import Path
from bccd_d2.engine.trainer import BCCDTrainer
from detectron2.engine import HookBase
from tests.engine.tiny import tiny_config

class Stop(HookBase):
    def after_step(self):
        if self.trainer.iter == 2:
            os.killpg(0, int(sys.argv[3]))

root, folder = Path(sys.argv[1]), Path(sys.argv[2])
trainer = BCCDTrainer(tiny_config(root, folder, "SOLVER.MAX_ITER", 1000, "DATALOADER.NUM_WORKERS", 2))
trainer.register_hooks([Stop()])
trainer.train()
"""


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all_processes_does_not_end_the_loaders_workers_first(
    tiny_root, tmp_path, signum, status
):
    process = subprocess.run(
        [sys.executable, "-c", STOPPED_BY_GROUP, str(tiny_root), str(tmp_path), str(int(signum))],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.returncode == status, process.stderr
    iteration = int((tmp_path / "last_checkpoint").read_text().removeprefix("model_").removesuffix(".pth"))
    assert 2 <= iteration <= 4


def test_a_killed_training_makes_up_for_the_evaluation_after_its_checkpoint(
    tiny_root, tmp_path, uninterrupted
):
    class Killed(BaseException):
        pass

    class Kill(HookBase):
        def after_step(self):
            if self.trainer.iter == 4:
                raise Killed

    cfg = tiny_config(tiny_root, tmp_path, *EVERYTHING)
    with pytest.raises(Killed):
        run(cfg, Kill())
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    (tmp_path / "model_best.pth").unlink()
    trainer = run(cfg, resume=True)
    assert trainer.evaluation.state_dict()["last_iteration"] == ITERATIONS - 1
    assert same(checkpoint(uninterrupted, "model_final"), checkpoint(tmp_path, "model_final"))


def test_what_is_saved_is_the_average_and_the_optimizers_weights_are_beside_it(uninterrupted):
    final, raw = checkpoint(uninterrupted, "model_final"), checkpoint(uninterrupted, "model_final_raw")
    averaged = [key for key, value in final["model"].items() if not torch.equal(value, raw["model"][key])]
    assert "roi_heads.mask_head.predictor.weight" in averaged
    assert any(key.endswith("running_mean") for key in averaged)
    assert final["trainer"]["hooks"]["ModelEMA"]["updates"] == ITERATIONS
    kept = final["trainer"]["hooks"]["ModelEMA"]["tensors"]
    assert all(torch.equal(value, raw["model"][key]) for key, value in kept.items())
    assert set(raw) == {"model", "iteration"}


def test_a_training_resumes_with_the_same_averaging_only(tiny_root, uninterrupted):
    cfg = tiny_config(tiny_root, uninterrupted, *EVERYTHING, "MODEL_EMA.ENABLED", False)
    with pytest.raises(InputError, match=r"MODEL_EMA\.ENABLED is False, but the checkpoint has True"):
        BCCDTrainer(cfg).resume_or_load(resume=True)


def test_a_drawn_seed_is_kept(tiny_root, tmp_path):
    cfg = tiny_config(tiny_root, tmp_path, "SEED", -1, "SOLVER.MAX_ITER", 1)
    drawn = run(cfg).cfg.SEED
    assert drawn >= 0
    again = BCCDTrainer(cfg)
    assert drawn != again.cfg.SEED
    again.resume_or_load(resume=True)
    assert drawn == again.cfg.SEED


def test_a_training_that_a_full_disk_ended_resumes_from_its_last_checkpoint(
    tiny_root, tmp_path, uninterrupted
):
    class Fill(HookBase):
        def after_step(self):
            if self.trainer.iter == 3:
                limit.enter_context(files_no_larger_than(10_000))

    cfg = tiny_config(tiny_root, tmp_path, *EVERYTHING)
    with ExitStack() as limit, pytest.raises(OSError, match="too large") as raised:
        run(cfg, Fill())
    assert raised.value.filename == str(tmp_path / "model_0000003.pth")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    run(cfg, resume=True)
    assert same(checkpoint(uninterrupted, "model_final"), checkpoint(tmp_path, "model_final"))


def test_checkpoints_of_before_an_interruption_count_among_those_kept(tiny_root, tmp_path):
    options = ["SOLVER.CHECKPOINT_PERIOD", 1]
    run(tiny_config(tiny_root, tmp_path, *options, "SOLVER.MAX_ITER", 3))
    cfg = tiny_config(tiny_root, tmp_path, *options, "SOLVER.MAX_ITER", 5)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    run(cfg, resume=True)
    assert sorted(path.name for path in tmp_path.glob("model_0*")) == [
        "model_0000003.pth",
        "model_0000004.pth",
    ]


def test_a_checkpoint_that_is_none_is_named(tiny_root, tmp_path):
    cfg = tiny_config(tiny_root, tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    with pytest.raises(InputError, match=r"cannot resume from the checkpoint that .*last_checkpoint names"):
        BCCDTrainer(cfg).resume_or_load(resume=True)
    (tmp_path / "model_0000001.pth").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"model_0000001\.pth: expected a checkpoint, cannot read it"):
        BCCDTrainer(cfg).resume_or_load(resume=True)


def test_a_training_that_was_killed_before_its_final_checkpoint_gets_it(tiny_root, tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text(f"model_{ITERATIONS - 1:07d}.pth")
    run(tiny_config(tiny_root, tmp_path, *EVERYTHING), resume=True)
    contents = [
        torch.load(folder / "model_final.pth", weights_only=True) for folder in (tmp_path, uninterrupted)
    ]
    assert same(*contents)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
