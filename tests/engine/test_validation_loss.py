import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from bccd_d2.engine import validation_loss
from bccd_d2.engine.validation_loss import build_validation_crops, loss_mode, validation_losses
from tests.engine.tiny import tiny_config


def equal(one, other):
    return all(
        torch.equal(a["image"], b["image"])
        and torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)
        for a, b in zip(one, other, strict=True)
    )


def test_the_crops_are_the_same_each_time_whatever_the_seed_and_the_augmentation(tiny_root, tmp_path):
    def crops(*options):
        crop = build_validation_crops(tiny_config(tiny_root, tmp_path, *options))
        return [crop(number) for number in range(5)]

    first = crops()
    assert [sample["image_id"] for sample in first] == [3, 4, 3, 4, 3]
    assert not torch.equal(first[0]["image"], first[2]["image"])
    other = ["SEED", 7, "INPUT.AUGMENTATION.PRESET", "strong", "INPUT.STAIN.JITTER_STD", 0.2]
    assert equal(first, crops(*other))


def test_the_losses_are_repeatable_and_leave_no_trace(tiny_root, tmp_path, monkeypatch):
    monkeypatch.setattr(validation_loss, "CROPS", 3)
    cfg = tiny_config(tiny_root, tmp_path, "MODEL.DEVICE", "cpu")
    torch.manual_seed(0)
    model = build_model(cfg)
    crops = build_validation_crops(cfg)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    with EventStorage() as storage:
        losses = validation_losses(model, crops)
        assert not storage.histories()
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    torch.rand(3)
    assert validation_losses(model, crops) == losses

    each = []
    for number in range(3):
        torch.manual_seed(number)
        with loss_mode(model), torch.no_grad(), EventStorage():
            each.append({name: loss.item() for name, loss in model([crops(number)]).items()})
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
    for name, value in losses.items():
        assert abs(value - sum(found[name] for found in each) / 3) < 1e-6
