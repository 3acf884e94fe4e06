"""A widened model computes what the narrow one computes."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes

import bccd_d2.modeling  # noqa: F401  registers the models
from bccd_d2.config import load_config
from bccd_d2.errors import InputError
from bccd_d2.modeling.widening import widen
from tools import widen_model

CONFIG = "configs/mask_rcnn_slim_FPN_lite.yaml"
NARROW = ["MODEL.DEVICE", "cpu", "MODEL.SLIM_RESNET.CHANNELS", "[4,6,8,12]", "MODEL.FPN.OUT_CHANNELS", "6"]
NARROW += ["MODEL.ROI_MASK_HEAD.CONV_DIM", "5", "MODEL.ROI_BOX_HEAD.FC_DIM", "7"]
WIDE = ["MODEL.SLIM_RESNET.CHANNELS", "[6,9,16,20]", "MODEL.FPN.OUT_CHANNELS", "9"]
WIDE += ["MODEL.ROI_MASK_HEAD.CONV_DIM", "8"]


def model(seed, *options):
    torch.manual_seed(seed)
    made = build_model(load_config(CONFIG, [*NARROW, *options])).eval().double()
    for name, value in made.state_dict().items():  # not the zeros and ones that layers start from
        if value.is_floating_point() and "pixel" not in name and "anchor" not in name:
            value.copy_(torch.rand(value.shape) * 0.4 + (0.1 if "running_var" in name else -0.1))
    return made


def outputs(made, image):
    features = made.backbone(image)
    levels = [features[name] for name in ("p2", "p3", "p4", "p5")]
    boxes = [Boxes(torch.tensor([[8.0, 8, 60, 50], [30, 20, 90, 96]]).double())]
    heads = made.roi_heads
    anchors = made.proposal_generator.rpn_head([*features.values()])
    found = heads.box_predictor(heads.box_head(heads.box_pooler(levels, boxes)))
    masks = heads.mask_head.layers(heads.mask_pooler(levels, boxes))
    return [*anchors[0], *anchors[1], *found, masks]


def test_it_computes_the_same():
    narrow, wide = model(1), model(2, *WIDE)
    wide.load_state_dict(widen(narrow.state_dict(), wide.state_dict(), noise=0))
    image = torch.rand(1, 3, 128, 96, dtype=torch.float64)
    with torch.no_grad():
        for expected, found in zip(outputs(narrow, image), outputs(wide, image), strict=True):
            torch.testing.assert_close(found, expected)


def test_copies_are_told_apart_by_noise():
    narrow, wide = model(1), model(2, *WIDE)
    name = "backbone.bottom_up.stem.conv1.weight"
    found, exact = (widen(narrow.state_dict(), wide.state_dict(), noise)[name] for noise in (0.02, 0))
    spread = (found - exact).std() / exact.std()
    assert 0.01 < spread < 0.03
    assert len({tuple(channel.flatten().tolist()) for channel in found}) == len(found)
    assert len({tuple(channel.flatten().tolist()) for channel in exact}) < len(exact)


def test_what_cannot_grow_is_named():
    with pytest.raises(InputError, match=r"box_head.fc1.weight: \(7, 294\) cannot become \(9, 441\)"):
        widen(model(1).state_dict(), model(2, *WIDE, "MODEL.ROI_BOX_HEAD.FC_DIM", "9").state_dict())
    with pytest.raises(InputError, match="cannot become"):
        widen(model(2, *WIDE).state_dict(), model(1).state_dict())


def test_the_command_writes_weights_of_the_wide_model(tmp_path):
    weights = tmp_path / "narrow.pth"
    torch.save({"model": model(1).state_dict()}, weights)
    config = tmp_path / "narrow.yaml"
    config.write_text(load_config(CONFIG, NARROW).dump())
    arguments = [
        "--config-file",
        str(config),
        "--weights",
        str(weights),
        "--output",
        str(tmp_path / "w.safetensors"),
    ]
    widen_model.main([*arguments, *WIDE])
    with pytest.raises(InputError, match="--overwrite"):
        widen_model.main([*arguments, *WIDE])
