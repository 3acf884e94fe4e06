import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from bccd_d2.modeling.ignore import ignored_share, outside_ignored, split_ignored, with_ignored


def cells(number):
    masks = torch.zeros(number, 20, 30, dtype=torch.bool)
    for k in range(number):
        masks[k, 2 : 6 + k, 3:9] = True
    instances = Instances((20, 30))
    instances.gt_boxes = BitMasks(masks).get_bounding_boxes()
    instances.gt_classes = torch.arange(number)
    instances.gt_masks = BitMasks(masks)
    return instances


@pytest.fixture
def region():
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[10:20, 20:30] = True
    return mask


@pytest.mark.parametrize("number", [0, 1, 3])
def test_the_mask_is_taken_off_as_it_was_put_on(number, region):
    before = cells(number)
    both = with_ignored(before, region).to("cpu")
    assert len(both) == number + 1
    after, mask = split_ignored(both)
    assert torch.equal(mask, region)
    assert torch.equal(after.gt_masks.tensor, before.gt_masks.tensor)
    assert torch.equal(after.gt_boxes.tensor, before.gt_boxes.tensor)
    assert after.gt_classes.tolist() == list(range(number))
    assert split_ignored(before) == (before, None)


def test_the_share_of_a_box_that_is_ignored(region):
    boxes = torch.tensor(
        [
            [20, 10, 30, 20],  # all of it
            [10, 10, 30, 20],  # its right half
            [0, 0, 10, 10],  # nothing
            [25, 15, 45, 35],  # a quarter of it lies in the image, and that in the region
            [30, 0, 40, 10],  # outside the image
            [19.6, 9.6, 30.3, 20.2],  # rounds to the first
            [15, 5, 25, 15],  # a quarter
        ]
    )
    assert ignored_share(boxes, region).tolist() == [1, 0.5, 0, 1, 0, 1, 0.25]


def test_proposals_up_to_the_threshold_stay(region):
    proposals = Instances((20, 30))
    proposals.proposal_boxes = Boxes(torch.tensor([[20.0, 10, 30, 20], [10, 10, 30, 20], [0, 0, 10, 10]]))
    assert len(outside_ignored(proposals, region, 0.5)) == 2
    assert len(outside_ignored(proposals, region, 0.49)) == 1
    assert len(outside_ignored(proposals, region, 1.0)) == 3
    assert outside_ignored(proposals, None, 0.5) is proposals
