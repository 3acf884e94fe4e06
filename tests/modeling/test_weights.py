import hashlib
import logging
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling import build_model
from iopath.common import file_io
from safetensors import safe_open

import bccd_d2.modeling  # noqa: F401  registers this project's backbones and heads
from bccd_d2.config import get_bccd_cfg, load_config
from bccd_d2.errors import InputError
from bccd_d2.modeling.checkpoint_files import read_checkpoint
from bccd_d2.modeling.weights import (
    BCCDCheckpointer,
    fold_batch_norm,
    load_mean_weights,
    load_weights,
    pack_model,
    save_weights,
)
from tests.conftest import REPOSITORY

SLIM = REPOSITORY / "configs" / "mask_rcnn_slim_FPN_lite.yaml"
SMALL = ["MODEL.SLIM_RESNET.CHANNELS", "[4,8,12,16]", "MODEL.FPN.OUT_CHANNELS", "8"]
SMALL += ["MODEL.ROI_BOX_HEAD.FC_DIM", "8", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.DEVICE", "cpu"]


def network(classes=2, width=4):
    torch.manual_seed(classes)
    return torch.nn.Sequential(
        torch.nn.Linear(3, width), torch.nn.BatchNorm1d(width), torch.nn.Linear(width, classes)
    )


class RunsCode:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def same(first, second):
    there, here = first.state_dict(), second.state_dict()
    return there.keys() == here.keys() and all(torch.equal(there[key], here[key]) for key in there)


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    content = {"model": {"0.weight": RunsCode(tmp_path / "made")}, "__author__": "somebody"}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"refused, for it asks for \w+\.mkdir, which can run code"):
        load_weights(network(), str(path))
    assert not (tmp_path / "made").exists()
    pickle.loads(pickle.dumps(RunsCode(tmp_path / "made")))
    assert (tmp_path / "made").exists()  # so it would have


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_arrays_of_the_model_zoo_are_read_at_every_pickle_protocol(tmp_path, protocol):
    arrays = {
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "steps": np.float64(3),
        "none": np.zeros((0, 2)),
    }
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2"}, protocol=protocol))
    model = read_checkpoint(path)["model"]
    assert {key: value.tolist() for key, value in model.items()} == {
        key: v.tolist() for key, v in arrays.items()
    }


def test_weights_of_caffe2_keep_their_names_for_the_translation(tmp_path):
    path = tmp_path / "R-50.pkl"
    path.write_bytes(
        pickle.dumps({"blobs": {"conv1_w": np.ones(2), "conv1_w_momentum": np.ones(2)}}, protocol=2)
    )
    content = read_checkpoint(path)
    assert (list(content["model"]), content["matching_heuristics"]) == (["conv1_w"], True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"no checkpoint", r"a\.pth"),
        ("a.pkl", b"no checkpoint", r"a\.pkl"),
        ("a.safetensors", b"no checkpoint", r"a\.safetensors: expected safetensors, cannot read it"),
        ("a.pkl", pickle.dumps([1, 2]), "expected a dict of tensors, found list"),
        ("a.pkl", pickle.dumps({"epoch": 3}), "expected a state dict of tensors, found int as epoch"),
        ("a.pkl", pickle.dumps({}), "expected a state dict of tensors, found an empty one"),
    ],
)
def test_files_that_are_no_checkpoints_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_weights(network(), str(path))


def test_safetensors_give_back_what_was_saved(tmp_path):
    path, saved, loaded = tmp_path / "model.safetensors", network(), network(classes=2)
    saved[1].running_var.fill_(7.5)
    cfg = get_bccd_cfg()
    save_weights(saved, path, config=cfg)
    torch.nn.init.zeros_(loaded[0].weight)
    load_weights(loaded, str(path))
    assert same(saved, loaded)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "config": cfg.dump()}


def test_half_is_half_the_size_and_is_converted_back(tmp_path, caplog):
    torch.manual_seed(0)
    saved = torch.nn.ModuleDict({"large": torch.nn.Linear(200, 100), "far": torch.nn.BatchNorm1d(2)})
    saved["far"].running_var.fill_(1e6)  # more than float16 can hold
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_weights(saved, whole)
    with caplog.at_level(logging.WARNING):
        save_weights(saved, half, half=True)
    assert "1 tensors with values above 65504 are not halved: far.running_var" in caplog.text
    assert half.stat().st_size < 0.52 * whole.stat().st_size
    with safe_open(half, framework="pt") as file:
        types = {key: file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert types["large.weight"] == torch.float16
    assert (types["far.running_var"], types["far.num_batches_tracked"]) == (torch.float32, torch.int64)
    loaded = torch.nn.ModuleDict({"large": torch.nn.Linear(200, 100), "far": torch.nn.BatchNorm1d(2)})
    load_weights(loaded, str(half))
    assert loaded["large"].weight.dtype == torch.float32
    # Half precision keeps 11 bits.
    assert torch.allclose(loaded["large"].weight, saved["large"].weight, rtol=2**-11, atol=1e-7)
    assert loaded["far"].running_var.tolist() == [1e6, 1e6]


def test_a_checkpoint_of_another_configuration_says_what_differs(tmp_path):
    BCCDCheckpointer(network(classes=3), str(tmp_path)).save("other")
    model = torch.nn.Sequential(*network(classes=2), torch.nn.Linear(2, 2))
    with pytest.raises(InputError) as caught:
        load_weights(model, str(tmp_path / "other.pth"))
    assert str(caught.value) == (
        f"MODEL.WEIGHTS: {tmp_path}/other.pth: it is of another configuration: "
        "2 missing: 3.bias, 3.weight; "
        "2 of another shape: 2.weight (3, 4) in the file, (2, 4) here, 2.bias (3,) in the file, (2,) here"
    )


def test_fine_tuning_starts_heads_of_other_classes_again_and_says_so(tmp_path, caplog):
    other, model = network(classes=3), network(classes=2)
    before = model[2].weight.clone()
    BCCDCheckpointer(other, str(tmp_path)).save("other")
    with caplog.at_level(logging.WARNING):
        BCCDCheckpointer(model).resume_or_load(str(tmp_path / "other.pth"), resume=False)
    assert torch.equal(model[0].weight, other[0].weight)
    assert torch.equal(model[2].weight, before)
    assert (
        "start from random values: 2 of another shape: 2.weight (3, 4) in the file, (2, 4) here"
        in caplog.text
    )


def test_backbones_of_the_model_zoo_fit_by_the_ends_of_their_names(tmp_path, caplog):
    model = torch.nn.ModuleDict(
        {"backbone": torch.nn.ModuleDict({"stem": torch.nn.Linear(2, 2)}), "head": torch.nn.Linear(2, 2)}
    )
    arrays = {"stem.weight": np.full((2, 2), 3, np.float32), "fc1000.bias": np.zeros(5, np.float32)}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "MSRA", "matching_heuristics": True}))
    with caplog.at_level(logging.WARNING):
        BCCDCheckpointer(model).resume_or_load(str(path), resume=False)
    assert model["backbone"]["stem"].weight.tolist() == [[3, 3], [3, 3]]
    assert "1 tensors loaded" in caplog.text
    assert "3 missing: backbone.stem.bias, head.bias, head.weight; 1 unexpected: fc1000.bias" in caplog.text


ZOO_WEIGHTS = "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"


def write_zoo_weights(path):
    """A file as Detectron2's zoo has it: names and shapes of its Mask R-CNN R50-FPN of COCO's 80 classes, all 0.5."""
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"))
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        tensors = build_model(cfg).state_dict()
    arrays = {
        name: np.full(tensor.shape, 0.5, np.float32)
        for name, tensor in tensors.items()
        if not name.startswith("pixel_")
    }
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}, protocol=2))


def test_weights_of_coco_fit_all_but_the_layers_of_their_classes(tmp_path, caplog):
    path = tmp_path / "model_final_f10217.pkl"
    write_zoo_weights(path)
    options = ["MODEL.WEIGHTS", str(path), "MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.DEVICE", "cpu"]
    cfg = load_config(REPOSITORY / "configs" / "mask_rcnn_R_50_FPN.yaml", options)
    model = build_model(cfg)
    with caplog.at_level(logging.WARNING):
        BCCDCheckpointer(model).resume_or_load(cfg.MODEL.WEIGHTS, resume=False)
    own = {
        f"roi_heads.{layer}.{kind}"
        for layer in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor")
        for kind in ("weight", "bias")
    }
    for name, value in model.state_dict().items():
        if not name.startswith("pixel_") and "cell_anchors" not in name:
            assert (value == 0.5).all() == (name not in own), name
    assert "start from random values: 6 of another shape: roi_heads.box_predictor." in caplog.text
    assert "missing:" not in caplog.text and "unexpected:" not in caplog.text


def test_without_a_network_the_message_says_which_file_belongs_where(tmp_path, monkeypatch):
    def no_network(*_arguments, **_options):
        raise OSError("no route to host")

    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(file_io, "download", no_network)
    with pytest.raises(InputError) as caught:
        load_weights(network(), ZOO_WEIGHTS)
    wanted = re.search(
        r"Fetch https://\S+/(\S+) where there is a network and put it at (\S+), or", str(caught.value)
    )
    assert "no route to host" in str(caught.value)
    assert wanted[1] == "model_final_f10217.pkl"
    arrays = {name: tensor.numpy() for name, tensor in network(classes=3).state_dict().items()}
    Path(wanted[2]).write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    load_weights(loaded := network(classes=3, width=4), ZOO_WEIGHTS)
    assert same(loaded, network(classes=3))


def test_batch_norms_are_frozen_with_the_variances_they_have(tmp_path):
    def convolution(channels, norm):
        return Conv2d(1, channels, 1, norm=get_norm(norm, channels))

    trained, frozen = convolution(4, "BN"), convolution(4, "FrozenBN")
    trained.norm.running_var.fill_(1e-4)
    BCCDCheckpointer(trained, str(tmp_path)).save("trained")
    load_weights(frozen, str(tmp_path / "trained.pth"))
    assert torch.equal(frozen.norm.running_var, trained.norm.running_var)
    with pytest.raises(
        InputError, match=r"no tensor in it fits .* norm\.bias \(4,\) in the file, \(5,\) here"
    ):
        load_weights(convolution(5, "FrozenBN"), str(tmp_path / "trained.pth"))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_a_convolution_does_the_work_of_its_batch_norm(norm, bias):
    torch.manual_seed(0)
    layer = Conv2d(3, 4, 3, bias=bias, norm=get_norm(norm, 4), activation=torch.relu)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(layer.norm, name).data.uniform_(0.5, 2)
    network = torch.nn.Sequential(layer, Conv2d(4, 32, 1, norm=get_norm("GN", 32))).eval()
    image = torch.randn(1, 3, 8, 8)
    expected = network(image)
    fold_batch_norm(network)
    assert layer.norm is None and network[1].norm is not None  # a group norm depends on the image
    torch.testing.assert_close(network(image), expected)


def test_the_mean_of_checkpoints_is_the_mean_of_each_weight_and_the_first_ones_counts(tmp_path):
    paths = []
    for number in (1, 2, 6):
        model = network()
        with torch.no_grad():
            for value in model.state_dict().values():
                value.fill_(number)
        paths.append(str(tmp_path / f"{number}.pth"))
        torch.save({"model": model.state_dict()}, paths[-1])
    mean = network()
    load_mean_weights(mean, paths)
    for name, value in mean.state_dict().items():
        assert (value == (1 if "num_batches" in name else 3)).all(), name


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
