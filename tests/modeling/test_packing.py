import hashlib

import pytest
import torch
from detectron2.modeling import build_model

import bccd_d2.modeling  # noqa: F401  registers this project's backbones and heads
from bccd_d2.config import load_config
from bccd_d2.errors import InputError
from bccd_d2.modeling.packing import pack_model
from bccd_d2.modeling.weights import load_weights
from tests.conftest import REPOSITORY

SLIM = REPOSITORY / "configs" / "mask_rcnn_slim_FPN_lite.yaml"
SMALL = ["MODEL.SLIM_RESNET.CHANNELS", "[4,8,12,16]", "MODEL.FPN.OUT_CHANNELS", "8"]
SMALL += ["MODEL.ROI_BOX_HEAD.FC_DIM", "8", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.DEVICE", "cpu"]


def test_the_two_files_are_the_model_without_the_paths_of_its_machine(tmp_path):
    options = [*SMALL, "DATASETS.ROOT", "/secret/data", "OUTPUT_DIR", "/secret/run"]
    cfg = load_config(SLIM, [*options, "DATASETS.CLASS_NAMES", "['cell']"])
    model = build_model(cfg)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    digest = pack_model(cfg, [str(tmp_path / "model.pth")], tmp_path / "weights", "tiny", "Made for a test.")

    config = tmp_path / "weights" / "tiny.yaml"
    weights = tmp_path / "weights" / "tiny.safetensors"
    assert config.read_text().startswith("# Made for a test.\n")
    assert "secret" not in config.read_text()
    assert b"secret" not in weights.read_bytes()
    assert digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    packed = load_config(config)
    assert list(packed.DATASETS.CLASS_NAMES) == ["cell"]
    again = build_model(packed)
    load_weights(again, str(weights))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value.half().to(value.dtype), msg=name)


def test_nothing_is_left_behind_where_the_checkpoint_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"absent\.pth"):
        pack_model(load_config(SLIM, SMALL), ["absent.pth"], tmp_path / "weights", "tiny")
    assert not (tmp_path / "weights").exists()
