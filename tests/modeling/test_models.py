from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage

import bccd_d2.modeling  # noqa: F401  registers this project's backbones and heads
from bccd_d2.config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SIDE = 128
LOSSES = {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
# What makes the large ones small; the layout stays.
TINY = {
    "mask_rcnn_R_101_FPN.yaml": "MODEL.RESNETS.RES2_OUT_CHANNELS 32",
    "mask_rcnn_X_101_32x8d_FPN.yaml": "MODEL.RESNETS.RES2_OUT_CHANNELS 32 MODEL.RESNETS.WIDTH_PER_GROUP 1 "
    "MODEL.RESNETS.DEPTH 50 MODEL.FPN.OUT_CHANNELS 32",
    "cascade_mask_rcnn_R_50_FPN.yaml": "MODEL.ROI_BOX_HEAD.FC_DIM 64",
    "mask_rcnn_ConvNeXt_T_FPN.yaml": "MODEL.TIMM.NAME test_convnext MODEL.FPN.OUT_CHANNELS 32",
    "mask_rcnn_UNI_ViT_L_SFP.yaml": "MODEL.TIMM.NAME test_vit MODEL.TIMM.OPTIONS [] MODEL.FPN.OUT_CHANNELS 32",
}


def sample(seed: int) -> dict:
    """Two discs as cells on a noisy image."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    centres, radius = ((40, 44), (90, 80)), 20
    masks = torch.stack([(x - cx) ** 2 + (y - cy) ** 2 < radius**2 for cx, cy in centres])
    image = torch.randint(180, 255, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    image[:, masks.any(0)] //= 2
    instances = Instances((SIDE, SIDE))
    instances.gt_masks = BitMasks(masks)
    instances.gt_boxes = BitMasks(masks).get_bounding_boxes()
    instances.gt_classes = torch.zeros(2, dtype=torch.long)
    return {"image": image, "instances": instances, "height": 2 * SIDE, "width": 2 * SIDE}


def model_of(name: str, options: str = "") -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(load_config(CONFIGS / name, ["MODEL.DEVICE", "cpu", *options.split()]))


def expected_losses(name: str) -> set[str]:
    if not name.startswith("cascade"):
        return LOSSES
    stages = {f"{loss}_stage{stage}" for loss in ("loss_cls", "loss_box_reg") for stage in range(3)}
    return LOSSES - {"loss_cls", "loss_box_reg"} | stages


@pytest.mark.parametrize(
    "name", sorted(path.name for path in CONFIGS.glob("*.yaml") if not path.name.startswith("Base-"))
)
def test_every_model_trains_and_predicts(name):
    model = model_of(name, TINY.get(name, ""))
    batch = [sample(0), sample(1)]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    with EventStorage():
        losses = model(batch)
    assert set(losses) == expected_losses(name)
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    optimizer.step()
    model.eval()
    with torch.no_grad():
        (output,) = model([{key: value for key, value in batch[0].items() if key != "instances"}])
    instances = output["instances"]
    assert instances.image_size == (2 * SIDE, 2 * SIDE)
    assert instances.pred_masks.shape[1:] == (2 * SIDE, 2 * SIDE)


def test_the_slim_model_fits_a_repository():
    parameters = sum(p.numel() for p in model_of("mask_rcnn_slim_FPN_lite.yaml").parameters())
    assert 2 * parameters < 8 * 2**20  # bytes at half precision
