import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from torch.nn import functional as F  # noqa: N812

from bccd_d2.modeling.partial_labels import (
    PartialLabels,
    ignored_share,
    join_unlabeled,
    mark_unlabeled,
    with_partial_labels,
)


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


def proposals(classes, number_of_classes=3, unlabeled=()):
    found = Instances((20, 30), proposal_boxes=Boxes(torch.zeros(len(classes), 4)))
    found.gt_classes = torch.tensor(classes, dtype=torch.int64)
    target = with_partial_labels(cells(0), PartialLabels(classes=tuple(unlabeled)))
    mark_unlabeled([found], [target], number_of_classes)
    return found


def test_background_of_a_partly_annotated_image_is_background_or_unlabelled():
    # Probabilities of classes 0, 1, 2 and of the background; the first image does not annotate 1 and 2.
    probabilities = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]])
    logits = probabilities.log().requires_grad_()
    batch = [proposals([3, 1], unlabeled=(1, 2)), proposals([3])]
    targets = torch.tensor([3, 1, 3])
    losses = F.cross_entropy(join_unlabeled(logits, batch), targets, reduction="none")
    # 0.4 + 0.2 + 0.3; a cell has its own probability; in the other image the background has.
    torch.testing.assert_close(losses, -torch.tensor([0.9, 0.2, 0.4]).log())
    losses.sum().backward()
    # d/dz of -log(0.9): p - p / 0.9 for what is joined, p for the annotated class.
    expected = torch.tensor([0.1, 0.2 - 0.2 / 0.9, 0.3 - 0.3 / 0.9, 0.4 - 0.4 / 0.9])
    torch.testing.assert_close(logits.grad[0], expected)
    assert torch.allclose(logits.grad[1], probabilities[1] - torch.tensor([0.0, 1, 0, 0]))
    assert join_unlabeled(logits, [proposals([3, 1, 3])]) is logits


def test_the_background_of_an_image_without_any_annotated_class_teaches_nothing():
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = F.cross_entropy(
        join_unlabeled(logits, [proposals([3, 3], unlabeled=(0, 1, 2))]), torch.tensor([3, 3])
    )
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6
