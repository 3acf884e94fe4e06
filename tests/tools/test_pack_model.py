import sys

import pytest
import torch
from detectron2.modeling import build_model

import bccd_d2.modeling  # noqa: F401  registers this project's backbones and heads
from bccd_d2.config import load_config
from bccd_d2.errors import InputError
from bccd_d2.modeling.checkpoint_files import read_checkpoint
from tests.conftest import REPOSITORY
from tests.modeling.test_weights import SLIM, SMALL


@pytest.fixture
def pack(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    import pack_model

    yield lambda *arguments: pack_model.main([str(argument) for argument in arguments])
    sys.modules.pop("pack_model")


@pytest.fixture
def runs(tmp_path):
    """Two runs of the same small model, whose weights are all 1 and all 2."""
    cfg = load_config(SLIM, SMALL)
    model = build_model(cfg)
    folders = [tmp_path / "first", tmp_path / "second"]
    for number, folder in enumerate(folders, start=1):
        folder.mkdir()
        (folder / "config.yaml").write_text(cfg.dump())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(number)
        torch.save({"model": model.state_dict()}, folder / "model_final.pth")
    return folders


def parameters(path):
    return {key: value for key, value in read_checkpoint(path)["model"].items() if key.endswith("weight")}


@pytest.mark.parametrize("runs_given, expected", [(1, 1.0), (2, 1.5)])
def test_several_runs_are_packed_as_their_mean(pack, runs, tmp_path, capsys, runs_given, expected):
    pack("--run", *runs[:runs_given], "--output", tmp_path / "out", "--name", "tiny", "SEED", 7)
    assert "SHA-256" in capsys.readouterr().out
    weights = parameters(tmp_path / "out" / "tiny.safetensors")
    assert len(weights) > 20 and all((value == expected).all() for value in weights.values())
    assert load_config(tmp_path / "out" / "tiny.yaml").SEED == 7


def test_other_checkpoints_take_the_place_of_the_last_ones(pack, runs, tmp_path):
    last = [run / "model_final.pth" for run in runs]
    pack("--run", runs[0], "--weights", *last, last[1], "--output", tmp_path / "out", "--name", "tiny")
    weights = parameters(tmp_path / "out" / "tiny.safetensors")
    assert all(torch.allclose(value.float(), torch.tensor(5 / 3), rtol=1e-3) for value in weights.values())


def test_what_is_there_is_kept(pack, runs, tmp_path):
    (tmp_path / "tiny.safetensors").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists; give --overwrite to replace it, or another --name"):
        pack("--run", runs[0], "--output", tmp_path, "--name", "tiny")
    assert (tmp_path / "tiny.safetensors").read_bytes() == b"mine"
