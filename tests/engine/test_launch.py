"""Two processes against one, as the command starts them."""

import json
from argparse import Namespace

import pytest

from bccd_d2.engine.launch import launch
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.errors import InputError
from tests.engine.tiny import LITE, TINY, tiny_config
from tools.train_net import argument_parser, main

# Nothing that differs between a batch of two and two of one: no batch norm, no region left out at random.
OPTIONS = [
    *("MODEL.RESNETS.NORM", "", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "100000"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "100000", "SOLVER.MAX_ITER", "3", "SOLVER.BASE_LR", "0.001"),
    *("TEST.VALIDATION_LOSS_PERIOD", "3"),
]


def last_record(folder):
    return json.loads((folder / "metrics.json").read_text().splitlines()[-1])


def test_two_processes_train_like_one_on_the_same_batches(tiny_root, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    trainer = BCCDTrainer(tiny_config(tiny_root, one, *OPTIONS))
    # Both start from the same weights.
    trainer.checkpointer.save_weights("start")
    words = ["--config-file", str(LITE), "--data-root", str(tiny_root), "--num-processes", "2"]
    words += [*TINY, "OUTPUT_DIR", str(two), *OPTIONS, "MODEL.WEIGHTS", str(one / "start.pth")]
    assert launch(main, argument_parser().parse_args(words)) is None
    trainer.train()
    found, expected = last_record(two), last_record(one)
    for name in ("total_loss", "validation/total_loss", "loss_rpn_cls"):
        assert found[name] == pytest.approx(expected[name], rel=0.02), name
    assert set(json.loads((two / "results.json").read_text())) == {"bccd_val"}
    assert (two / "model_final.pth").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_gpus": 99}, "--num-gpus 99: this machine has"),
        ({"num_processes": 0}, "--num-processes: expected a number from 1 on, found 0"),
    ],
)
def test_processes_that_cannot_be_had_are_named(options, message):
    defaults = {"num_gpus": 1, "num_processes": 1, "num_machines": 1}
    with pytest.raises(InputError, match=message):
        launch(lambda _: None, Namespace(**{**defaults, **options}))
