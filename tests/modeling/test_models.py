from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from bccd_d2.config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SIDE = 128


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


def model_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(load_config(CONFIGS / name, ["MODEL.DEVICE", "cpu"]))


@pytest.mark.parametrize(
    "name", sorted(path.name for path in CONFIGS.glob("*.yaml") if not path.name.startswith("Base-"))
)
def test_every_model_trains_and_predicts(name):
    model = model_of(name)
    batch = [sample(0), sample(1)]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    with EventStorage():
        losses = model(batch)
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
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


def test_an_empty_crop_is_a_training_sample_too():
    model = model_of("mask_rcnn_R_18_FPN_lite.yaml")
    empty = sample(0)
    instances = Instances((SIDE, SIDE))
    instances.gt_masks = BitMasks(torch.zeros(0, SIDE, SIDE, dtype=torch.bool))
    instances.gt_boxes = Boxes(torch.zeros(0, 4))
    instances.gt_classes = torch.zeros(0, dtype=torch.long)
    empty["instances"] = instances
    with EventStorage():
        total = sum(model([empty]).values())
    total.backward()
    assert torch.isfinite(total)


def test_the_lite_model_is_light():
    parameters = sum(p.numel() for p in model_of("mask_rcnn_R_18_FPN_lite.yaml").parameters())
    assert 13e6 < parameters < 15e6


def test_the_slim_model_fits_a_repository():
    parameters = sum(p.numel() for p in model_of("mask_rcnn_slim_FPN_lite.yaml").parameters())
    assert 2 * parameters < 8 * 2**20  # bytes at half precision
