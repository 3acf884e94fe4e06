from types import SimpleNamespace

import pytest
import timm
import torch
from detectron2.modeling import build_backbone
from timm.models.vision_transformer import VisionTransformer

import bccd_d2.modeling  # noqa: F401  registers the backbone
from bccd_d2.config import get_bccd_cfg
from bccd_d2.engine.trainer import BCCDTrainer
from bccd_d2.errors import InputError
from bccd_d2.modeling.vit import OUTPUT, ViT
from bccd_d2.modeling.weights import BCCDCheckpointer

SMALL = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 32}


def small_config(**vit):
    cfg = get_bccd_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_vit_sfp_backbone"
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.FPN.NORM = 8, "LN"
    for key, value in {**{key.upper(): value for key, value in SMALL.items()}, **vit}.items():
        cfg.MODEL.VIT[key] = value
    return cfg


@pytest.fixture
def source(tmp_path):
    """timm's transformer of UNI's layout, small, and the file of its weights."""
    torch.manual_seed(1)
    model = VisionTransformer(**SMALL, init_values=1e-5, num_classes=0, dynamic_img_size=True)
    for parameter in model.parameters():  # so that LayerScale hides nothing
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path / "pytorch_model.bin"
    torch.save(model.state_dict(), path)
    return model.eval(), path


@pytest.mark.parametrize(
    "shape", [(32, 32), (64, 48)]
)  # the position embedding's own size, and one it is fitted to
def test_features_are_timms_own(source, shape):
    model, path = source
    vit = ViT(**SMALL, weights=str(path)).eval()
    vit.initialize_from_pretrained()
    images = torch.rand(2, 3, *shape)
    with torch.no_grad():
        features, tokens = vit(images)[OUTPUT], model.forward_features(images)
    rows, columns = shape[0] // 16, shape[1] // 16
    assert features.shape == (2, 32, rows, columns)
    # Token 0 is the class token; the others lie row by row.
    for row in range(rows):
        for column in range(columns):
            expected = tokens[:, 1 + row * columns + column]
            assert torch.allclose(features[:, :, row, column], expected, atol=1e-5)


def test_the_defaults_are_unis_layout():
    with torch.device("meta"):
        vit = ViT()
        uni = timm.create_model(
            "vit_large_patch16_224",
            img_size=224,
            patch_size=16,
            init_values=1e-5,
            num_classes=0,
            dynamic_img_size=True,
        )
    here, there = vit.model.state_dict(), uni.state_dict()
    assert {key: value.shape for key, value in here.items()} == {
        key: value.shape for key, value in there.items()
    }
    assert sum(parameter.numel() for parameter in vit.parameters()) == 303_350_784


def test_checkpointing_changes_no_gradient():
    gradients = []
    images = torch.rand(1, 3, 32, 32)
    for checkpointing in (False, True):
        torch.manual_seed(0)
        vit = ViT(**SMALL, checkpointing=checkpointing)
        vit(images)[OUTPUT].square().sum().backward()
        gradients.append([parameter.grad for parameter in vit.parameters()])
    assert all(torch.allclose(first, second, atol=1e-6) for first, second in zip(*gradients))


def test_without_the_file_the_error_says_how_to_get_it(tmp_path):
    vit = ViT(**SMALL, weights=str(tmp_path / "uni.bin"))
    with pytest.raises(
        InputError, match=r"uni\.bin is not there.*'MahmoodLab/UNI' .* 'MODEL\.VIT\.WEIGHTS FILE'"
    ):
        vit.initialize_from_pretrained()


def test_weights_of_another_layout_are_refused(source):
    _, path = source
    with pytest.raises(InputError, match=r"pos_embed \(1, 5, 32\) in the file, \(1, 17, 32\) here"):
        ViT(**{**SMALL, "img_size": 64}, weights=str(path)).initialize_from_pretrained()


@pytest.mark.parametrize(
    ("frozen", "trained"),
    [
        (0, {"cls_token", "pos_embed", "patch_embed", "blocks.0", "blocks.1", "blocks.2", "norm"}),
        (1, {"blocks.1", "blocks.2", "norm"}),
        (3, {"norm"}),
    ],
)
def test_the_first_blocks_are_frozen(frozen, trained):
    vit = ViT(**SMALL, freeze_blocks=frozen)
    names = [name for name, parameter in vit.model.named_parameters() if parameter.requires_grad]
    assert {".".join(name.split(".")[: 2 if name.startswith("blocks") else 1]) for name in names} == trained
    vit(torch.rand(1, 3, 32, 32))[OUTPUT].sum().backward()
    assert {name for name, parameter in vit.model.named_parameters() if parameter.grad is not None} == set(
        names
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"freeze_blocks": 4}, r"FREEZE_BLOCKS: expected 0 to MODEL.VIT.DEPTH \(3\), found 4"),
        ({"num_heads": 5}, r"NUM_HEADS: expected a divisor of MODEL.VIT.EMBED_DIM \(32\), found 5"),
    ],
)
def test_impossible_layouts_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        ViT(**{**SMALL, **arguments})


def test_the_rate_falls_from_the_output_to_the_embedding():
    cfg = small_config(LR_DECAY=0.5)
    cfg.SOLVER.BASE_LR = 16.0
    model = torch.nn.ModuleDict({"backbone": build_backbone(cfg), "head": torch.nn.Linear(2, 2)})
    optimizer = BCCDTrainer.build_optimizer(cfg, model)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: rates[id(p)] for name, p in model.named_parameters()}
    vit = "backbone.bottom_up.model."
    assert (
        by_name["head.weight"] == by_name["backbone.levels.p2.0.weight"] == by_name[vit + "norm.weight"] == 16
    )
    assert [by_name[f"{vit}blocks.{block}.ls1.gamma"] for block in (2, 1, 0)] == [8, 4, 2]
    assert by_name[vit + "pos_embed"] == by_name[vit + "patch_embed.proj.weight"] == 1
    assert len(by_name) == len(rates)


@pytest.mark.parametrize("patch_size", [8, 16])
def test_the_pyramid_has_detectron2s_levels(patch_size):
    backbone = build_backbone(small_config(PATCH_SIZE=patch_size))
    levels = backbone(torch.rand(1, 3, 64, 128))
    assert {key: tuple(value.shape) for key, value in levels.items()} == {
        f"p{level}": (1, 8, 64 // 2**level, 128 // 2**level) for level in range(2, 7)
    }
    shapes = backbone.output_shape()
    assert {key: (shape.channels, shape.stride) for key, shape in shapes.items()} == {
        f"p{level}": (8, 2**level) for level in range(2, 7)
    }
    assert backbone.size_divisibility == 32


def test_a_pyramid_needs_a_patch_of_8_or_16():
    with pytest.raises(InputError, match="PATCH_SIZE: expected 8 or 16, found 32"):
        build_backbone(small_config(PATCH_SIZE=32))


@pytest.mark.parametrize("whole", [False, True])
def test_training_starts_from_the_file_unless_there_are_weights_of_the_whole_model(source, tmp_path, whole):
    _, path = source
    cfg = small_config(WEIGHTS=str(path))
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
