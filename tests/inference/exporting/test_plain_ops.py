import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.inference.exporting import plain_ops


def draw_boxes(number, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 2, generator=generator) * 200 - 20  # some outside of the features
    return torch.cat([corners, corners + torch.rand(number, 2, generator=generator) * 100], dim=1)


@pytest.mark.parametrize("number", [30, 0])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_is_that_of_torchvision(number, aligned, sampling_ratio):
    features = torch.randn(1, 5, 37, 53, generator=torch.Generator().manual_seed(1))
    rois = torch.cat([torch.zeros(number, 1), draw_boxes(number)], dim=1)
    arguments = (features, rois, (7, 5), 0.25, sampling_ratio, aligned)
    expected = torchvision.ops.roi_align(*arguments)
    torch.testing.assert_close(plain_ops.roi_align(*arguments), expected, atol=1e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.sampled_from([0.2, 0.5, 0.7]))
def test_suppression_is_that_of_torchvision(seed, number, threshold):
    generator = torch.Generator().manual_seed(seed)
    boxes, scores = draw_boxes(number, seed), torch.rand(number, generator=generator)
    groups = torch.randint(0, 3, (number,), generator=generator)
    assert plain_ops.nms(boxes, scores, threshold).equal(torchvision.ops.nms(boxes, scores, threshold))
    expected = torchvision.ops.batched_nms(boxes, scores, groups, threshold)
    assert plain_ops.batched_nms(boxes, scores, groups, threshold).equal(expected)


def test_lists_are_expanded_by_owner():
    owner, number = plain_ops.expand(torch.tensor([2, 0, 3, 0]))
    assert owner.tolist() == [0, 0, 2, 2, 2]
    assert number.tolist() == [0, 1, 0, 1, 2]
