import pytest
import torch

from bccd_d2.errors import InputError
from bccd_d2.modeling.slim_resnet import STAGES, build_slim_resnet


def test_stages_have_the_channels_blocks_and_strides_asked_for():
    model = build_slim_resnet((4, 8, 12, 16), (1, 2, 1, 3), "BN").eval()
    with torch.no_grad():
        features = model(torch.zeros(1, 3, 64, 96))
    shapes = [tuple(features[stage].shape[1:]) for stage in STAGES]
    assert shapes == [(4, 16, 24), (8, 8, 12), (12, 4, 6), (16, 2, 3)]
    assert [len(getattr(model, stage)) for stage in STAGES] == [1, 2, 1, 3]


@pytest.mark.parametrize("channels", [(8, 8, 8), (8, 8, 8, 0), (8, 8, 8, 8.5)])
def test_four_stages_are_needed(channels):
    with pytest.raises(InputError, match=r"MODEL.SLIM_RESNET.CHANNELS: expected four whole numbers above 0"):
        build_slim_resnet(channels, (2, 2, 2, 2), "BN")


def test_stages_in_a_row_must_differ():
    with pytest.raises(InputError, match=r"CHANNELS: expected another number .* found \[8, 8, 16, 32\]"):
        build_slim_resnet((8, 8, 16, 32), (2, 2, 2, 2), "BN")
