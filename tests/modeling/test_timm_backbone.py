import huggingface_hub
import pytest
import timm
import torch

import bccd_d2.modeling  # noqa: F401  registers the backbone
from bccd_d2.errors import InputError
from bccd_d2.modeling.timm_backbone import TimmBackbone

SHAPES = {"res2": (16, 24), "res3": (8, 12), "res4": (4, 6), "res5": (2, 3)}  # of an image of 64x96


@pytest.mark.parametrize(
    "name",
    [
        "test_convnext",  # strides 4 to 32
        "test_resnet",  # and stride 2 before them
        "swin_tiny_patch4_window7_224",  # channels last, and one image size unless it is told otherwise
    ],
)
def test_features_are_those_of_timm_at_strides_4_to_32(name):
    backbone = TimmBackbone(name, pretrained=False).eval()
    images = torch.rand(1, 3, 64, 96)
    features = backbone(images)
    shapes = backbone.output_shape()
    assert {key: tuple(value.shape[-2:]) for key, value in features.items()} == SHAPES
    for key, value in features.items():
        assert value.shape[1] == shapes[key].channels
        assert shapes[key].stride * value.shape[-1] == 96
    if name == "test_resnet":
        assert torch.equal(features["res5"], backbone.model(images)[-1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_vit", r"has features at strides \[16, 16, 16\], expected 4, 8, 16 and 32"),
        ("hiera_tiny_224", "takes one image size only"),
    ],
)
def test_models_without_such_features_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        TimmBackbone(name, pretrained=False)


@pytest.fixture
def offline_cache(monkeypatch, tmp_path):
    """An empty cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


def snapshot_of(name, cache):
    return cache / f"models--timm--{name}.r160_in1k" / "snapshots" / "0"


def save_to_cache(name, cache):
    """A model of random weights, and these as if timm had downloaded them."""
    torch.manual_seed(1)
    model = timm.create_model(name, pretrained=False)
    snapshot = snapshot_of(name, cache)
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0")
    timm.models.save_for_hf(model, snapshot, safe_serialization=True)
    return model


def test_weights_that_cannot_be_downloaded_say_what_to_do(offline_cache):
    backbone = TimmBackbone("test_convnext", pretrained=True)
    with pytest.raises(
        InputError, match=r"the weights of test_convnext cannot be downloaded .* copy the cache folder"
    ):
        backbone.initialize_from_pretrained()


def test_weights_come_from_the_cache_and_only_when_asked_for(offline_cache):
    source = save_to_cache("test_convnext", offline_cache)
    images = torch.rand(1, 3, 64, 64)
    expected = source.eval().forward_intermediates(images, intermediates_only=True)[-1]
    torch.manual_seed(2)
    for pretrained in (True, False):
        backbone = TimmBackbone("test_convnext", pretrained=pretrained).eval()
        backbone.initialize_from_pretrained()
        assert torch.allclose(backbone(images)["res5"], expected, atol=1e-5) == pretrained
