import pytest
import torch

from bccd_d2.errors import InputError
from bccd_d2.modeling.slim_resnet import STAGES, build_slim_resnet


def test_stages_have_the_channels_and_strides_asked_for():
    model = build_slim_resnet((4, 8, 12, 16), "BN").eval()
    with torch.no_grad():
        features = model(torch.zeros(1, 3, 64, 96))
    shapes = [tuple(features[stage].shape[1:]) for stage in STAGES]
    assert shapes == [(4, 16, 24), (8, 8, 12), (12, 4, 6), (16, 2, 3)]
    assert [len(getattr(model, stage)) for stage in STAGES] == [2] * 4


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ((8, 8, 8), "expected four whole numbers above 0"),
        ((8, 16, 32, 0), "expected four whole numbers above 0"),
        ((8, 8, 16, 32), r"expected another number .* found \[8, 8, 16, 32\]"),
    ],
)
def test_impossible_channels_are_named(channels, message):
    with pytest.raises(InputError, match=f"MODEL.SLIM_RESNET.CHANNELS: {message}"):
        build_slim_resnet(channels, "BN")
