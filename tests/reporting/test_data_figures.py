"""Figures of the data show what they are given."""

import numpy as np
import pytest
import torch

from bccd_d2.config import get_bccd_cfg
from bccd_d2.reporting import data_figures as figures
from bccd_d2.reporting.anchors import best_anchors

IMAGE = np.full((60, 80, 3), (200, 150, 100), np.uint8)
LABELS = np.zeros((60, 80, 2), np.uint16)
LABELS[10:30, 10:30, 0], LABELS[20:40, 20:40, 1], LABELS[45:55, 60:75, 0] = 1, 2, 3


def texts(figure):
    """Everything that is written on a figure, once it is drawn."""
    figure.savefig("/dev/null", format="png")
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_every_instance_gets_its_colour_and_background_stays():
    drawn = figures.draw_instances(IMAGE, LABELS, fill=1.0)
    assert drawn.shape == IMAGE.shape
    assert (drawn[LABELS.sum(-1) == 0] == (100, 150, 200)).all()
    colors = [tuple(drawn[y, x]) for y, x in ((15, 15), (35, 35), (50, 65))]
    assert len({*colors, (100, 150, 200)}) == 4
    outlined = figures.draw_instances(IMAGE, LABELS, fill=0.0)
    assert tuple(outlined[10, 15]) == colors[0]
    assert tuple(outlined[15, 15]) == (100, 150, 200)


def test_split_grid_says_sizes_and_counts():
    figure = figures.split_grid(
        [IMAGE] * 5, [LABELS] * 5, list("abcde"), "train", {"train": (5, 15), "val": (2, 4)}
    )
    written = texts(figure)
    assert "train 5 images with 15 cells, val 2 images with 4 cells" in written
    assert "e\n3 cells" in written
    assert "200 px" in written


def test_patches_are_numbered_as_their_windows():
    windows = [(5, 5, 20, 20), (40, 30, 20, 20), (0, 0, 20, 20)]
    patches = [IMAGE[y : y + h, x : x + w] for x, y, w, h in windows]
    labels = [LABELS[y : y + h, x : x + w] for x, y, w, h in windows]
    written = texts(figures.patch_preview(IMAGE, windows, patches, labels, "smear"))
    assert "1: 20x20 px, 2 cells" in written
    assert "3: 20x20 px, 1 cells" in written
    assert "smear, 80x60 pixels" in written


def test_augmentations_say_what_was_done():
    draw = (IMAGE, LABELS, "HFlip, Affine")
    written = texts(figures.augmentation_preview((IMAGE, LABELS), {"mild": [draw] * 2, "strong": [draw] * 3}))
    assert "original; to the right: strong" in written
    assert written.count("HFlip, Affine") == 5


@pytest.mark.parametrize("count", [0, 2])
def test_the_dataset_item_lists_what_it_holds(count):
    target = {
        "boxes": torch.tensor([[10.0, 10, 30, 30], [20, 20, 40, 40]])[:count],
        "labels": torch.tensor([1, 2])[:count],
        "masks": torch.from_numpy(np.stack([LABELS[..., 0] == 1, LABELS[..., 1] == 2]).astype(np.uint8))[
            :count
        ],
        "area": torch.tensor([400.0, 400])[:count],
    }
    image = torch.from_numpy(IMAGE.transpose(2, 0, 1) / 255).float()
    written = texts(figures.dataset_item(image, target, ["RBC", "WBC"]))
    assert "(3, 60, 80)" in written
    assert f"({count}, 60, 80)" in written
    assert ("WBC: 1" in written) == (count == 2)
    assert ("empty" in written) == (count == 0)


def test_the_overlay_shows_image_label_map_and_both():
    figure = figures.mask_overlay(IMAGE, LABELS, "smear")
    written = texts(figure)
    assert "label map: 3 instances" in written
    assert "Annotated cells of smear" in written
    image, label_map, both = (axes.images[0].get_array() for axes in figure.axes)
    assert (image == IMAGE[..., ::-1]).all()
    background = LABELS.sum(axis=-1) == 0
    assert (label_map[background] == 255).all()
    assert (both[background] == IMAGE[background][:, ::-1]).all()
    changed = (both != IMAGE[..., ::-1]).any(axis=-1)
    assert np.array_equal(changed, ~background), "every pixel of a cell is tinted, and no other"
    assert np.count_nonzero(changed) == 20 * 20 + 20 * 20 - 10 * 10 + 10 * 15


def test_the_anchor_preview_counts_the_boxes_with_an_anchor():
    cfg = get_bccd_cfg()
    cfg.MODEL.RPN.IN_FEATURES = ["p3"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES, cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[16]], [[1.0]]
    boxes = np.array([[0.0, 0, 16, 16], [0, 0, 60, 60]])
    figure = figures.anchor_preview(IMAGE, boxes, best_anchors(cfg, boxes, 64, 64), "configured", 0.7)
    written = texts(figure)
    assert "configured: 1 of 2 boxes have an anchor of IoU >= 0.7" in written
    assert "stride 8: 16 px" in written
