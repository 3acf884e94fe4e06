"""Vision transformers of timm under the simple feature pyramid."""

from types import SimpleNamespace

import pytest
import timm
import torch
from detectron2.modeling import build_backbone

import bccd_d2.modeling  # noqa: F401  registers the backbone
from bccd_d2.config import get_bccd_cfg
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.errors import InputError
from bccd_d2.modeling.timm_backbone import TimmViT
from bccd_d2.modeling.weights import BCCDCheckpointer

OPTIONS = [["init_values", 1e-5], ["depth", 3], ["img_size", 32]]  # UNI's layout, small


def small_config(**changes):
    cfg = get_bccd_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_timm_sfp_backbone"
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.FPN.NORM = 8, "LN"
    for key, value in {"NAME": "test_vit", "PRETRAINED": False, "OPTIONS": OPTIONS, **changes}.items():
        cfg.MODEL.TIMM[key] = value
    return cfg


@pytest.fixture
def source(tmp_path):
    """timm's model and the file of its weights."""
    torch.manual_seed(1)
    model = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True, **dict(OPTIONS))
    for parameter in model.parameters():  # so that LayerScale hides nothing
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path / "pytorch_model.bin"
    torch.save(model.state_dict(), path)
    return model.eval(), path


@pytest.mark.parametrize("shape", [(32, 32), (64, 48)])  # the position embedding's own size, and another
def test_features_are_timms_own(source, shape):
    model, path = source
    vit = TimmViT("test_vit", False, str(path), OPTIONS).eval()
    vit.initialize_from_pretrained()
    images = torch.rand(2, 3, *shape)
    with torch.no_grad():
        (features,), tokens = vit(images).values(), model.forward_features(images)
    rows, columns = shape[0] // 16, shape[1] // 16
    # Token 0 is the class token; the others lie row by row.
    expected = tokens[:, 1:].reshape(2, rows, columns, -1).permute(0, 3, 1, 2)
    assert torch.allclose(features, expected, atol=1e-5)
    vit.train()(images)["tokens"].square().sum().backward()
    assert all(parameter.grad is not None for parameter in vit.parameters())


@pytest.mark.parametrize(
    ("name", "options", "parameters"),  # in millions
    [
        ("vit_large_patch16_224", [["init_values", 1e-5]], 303.4),  # UNI
        ("vit_small_patch14_dinov2", [["patch_size", 16], ["img_size", 224]], 21.7),
        (
            "vit_giant_patch14_224",  # UNI2
            [
                *(["patch_size", 16], ["depth", 24], ["num_heads", 24], ["embed_dim", 1536]),
                *(["init_values", 1e-5], ["mlp_ratio", 5.33334], ["no_embed_class", True], ["reg_tokens", 8]),
                *(["mlp_layer", "SwiGLUPacked"], ["act_layer", "silu"]),
            ],
            681.6,
        ),
    ],
)
def test_pathology_models_are_timm_models(name, options, parameters):
    with torch.device("meta"):
        vit = TimmViT(name, False, options=options)
    assert round(sum(parameter.numel() for parameter in vit.parameters()) / 1e6, 1) == parameters


def test_weights_that_are_missing_or_do_not_fit_are_refused(source, tmp_path):
    _, path = source
    with pytest.raises(InputError, match=r"uni\.bin is not there.*'MahmoodLab/UNI'"):
        TimmViT("test_vit", False, str(tmp_path / "uni.bin"), OPTIONS).initialize_from_pretrained()
    with pytest.raises(InputError, match=r"lacks 14 tensors, such as blocks\.3"):
        deeper = [["init_values", 1e-5], ["depth", 4], ["img_size", 32]]
        TimmViT("test_vit", False, str(path), deeper).initialize_from_pretrained()
    with pytest.raises(InputError, match=r"does not fit \(.*size mismatch"):
        TimmViT("test_vit", False, str(path), [*OPTIONS, ["embed_dim", 32]]).initialize_from_pretrained()


def test_the_rate_falls_from_the_output_to_the_embedding():
    cfg = small_config(LR_DECAY=0.5)
    cfg.SOLVER.BASE_LR = 16.0
    model = torch.nn.ModuleDict({"backbone": build_backbone(cfg), "head": torch.nn.Linear(2, 2)})
    optimizer = BCCDTrainer.build_optimizer(cfg, model)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: rates[id(p)] for name, p in model.named_parameters()}
    vit = "backbone.bottom_up.model."
    assert by_name["head.weight"] == by_name["backbone.levels.p2.0.weight"] == 16
    assert by_name[vit + "norm.weight"] == 8
    assert [by_name[f"{vit}blocks.{block}.ls1.gamma"] for block in (2, 1, 0)] == [8, 4, 2]
    assert by_name[vit + "pos_embed"] == by_name[vit + "patch_embed.proj.weight"] == 1
    assert len(by_name) == len(rates)


@pytest.mark.parametrize("patch_size", [8, 16])
def test_the_pyramid_has_detectron2s_levels(patch_size):
    backbone = build_backbone(small_config(OPTIONS=[["patch_size", patch_size], ["depth", 1]]))
    levels = backbone(torch.rand(1, 3, 64, 128))
    assert {key: tuple(value.shape) for key, value in levels.items()} == {
        f"p{level}": (1, 8, 64 // 2**level, 128 // 2**level) for level in range(2, 7)
    }
    shapes = backbone.output_shape()
    assert {key: (shape.channels, shape.stride) for key, shape in shapes.items()} == {
        f"p{level}": (8, 2**level) for level in range(2, 7)
    }
    assert backbone.size_divisibility == 32


@pytest.mark.parametrize("whole", [False, True])
def test_training_starts_from_the_file_unless_there_are_weights_of_the_whole_model(source, tmp_path, whole):
    _, path = source
    cfg = small_config(CHECKPOINT_PATH=str(path))
    torch.manual_seed(2)
    model = build_backbone(cfg)
    if whole:
        BCCDCheckpointer(model, str(tmp_path)).save("whole")
        cfg.MODEL.WEIGHTS = str(tmp_path / "whole.pth")
    before = model.bottom_up.model.pos_embed.clone()
    trainer = BCCDTrainer.__new__(BCCDTrainer)  # without its data
    trainer.cfg, trainer.checkpointer = cfg, BCCDCheckpointer(model)
    trainer._trainer = SimpleNamespace(model=model)
    trainer.resume_or_load(resume=False)
    expected = before if whole else torch.load(path, weights_only=True)["pos_embed"]
    assert torch.equal(model.bottom_up.model.pos_embed, expected)
