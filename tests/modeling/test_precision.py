import torch

from bccd_d2.modeling.precision import keep_features_exact


class Backbone(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"p2": self.conv(image)}


def test_features_of_a_backbone_in_16_bits_are_float32():
    backbone, image = Backbone(), torch.ones(1, 1, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert backbone(image)["p2"].dtype == torch.bfloat16
        handle = keep_features_exact(backbone)
        assert backbone(image)["p2"].dtype == torch.float32
    handle.remove()
