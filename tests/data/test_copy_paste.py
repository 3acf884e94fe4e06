import cv2
import numpy as np
import pytest

from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.copy_paste import PasteTransform, Patch, build_copy_paste
from bccd_d2.data.label_map import IGNORED_LABEL, CellInput, instances_from_label_map
from bccd_d2.data.stain import ReinhardNormalizer
from bccd_d2.errors import InputError
from tests.data.shapes import annotation, dataset_dict, disc

COMMON = [disc(150, 200, x, y, 12) for x in (30, 70, 110, 150) for y in (30, 70, 110)]
RARE = disc(150, 200, 178, 70, 16)


@pytest.fixture
def record(tmp_path):
    found = dataset_dict(tmp_path / "cells.png", [*COMMON, RARE])
    for one in found["annotations"]:
        one["category_id"] = 0
    found["annotations"][-1]["category_id"] = 2
    return found


def build(record, **changes):
    cfg = get_bccd_cfg()
    for key, value in changes.items():
        cfg.merge_from_list([f"INPUT.COPY_PASTE.{key}", value])
    return build_copy_paste(cfg, [record])


def empty_input(height=120, width=140, area_scale=1.0, cell_diameter=0.0):
    return CellInput(
        np.full((height, width, 3), 228, np.uint8),
        np.zeros((height, width, 1), np.uint16),
        np.zeros(0, np.int64),
        np.zeros(0),
        area_scale,
        None,
        cell_diameter=cell_diameter,
    )


def test_rare_classes_are_favoured(record):
    bank = build(record).bank
    assert bank.probabilities == pytest.approx({0: 1 / 13, 2: 12 / 13})
    generator = np.random.default_rng(0)
    drawn = [bank.draw(generator).category for _ in range(300)]
    assert 0.86 < np.mean(np.array(drawn) == 2) < 0.97


def test_pasted_cells_look_and_measure_as_annotated(record):
    paste = build(record)
    pasted = 0
    np.random.seed(0)  # noqa: NPY002  what Detectron2 seeds
    for _ in range(20):
        crop = empty_input()
        paste(crop)
        instances = instances_from_label_map(crop.sem_seg, crop.classes, 0 * crop.areas)
        pasted += len(instances)
        # Alone or with a tenth hidden, in any orientation: discs of 441 or 797 pixels.
        for mask, category in zip(instances.gt_masks.tensor.numpy(), instances.gt_classes.tolist()):
            assert mask.sum() in range(*{0: (380, 442), 2: (700, 798)}[category])
            assert crop.image[mask][:, 1].mean() < 150
        outside = ~cv2.dilate(crop.sem_seg.any(-1).astype(np.uint8), np.ones((13, 13))).astype(bool)
        assert (crop.image[outside] == 228).all()
        assert crop.areas.tolist() == [{0: 441.0, 2: 797.0}[c] for c in crop.classes.tolist()]
    assert 30 < pasted < 90


@pytest.mark.parametrize(("diameters", "factor"), [((0.0, 0.0), 0.25), ((20.0, 40.0), 4)])
def test_cells_are_scaled_with_the_crop_or_to_its_cell_diameter(record, diameters, factor):
    paste = build({**record, "cell_diameter": diameters[0]})
    np.random.seed(1)  # noqa: NPY002
    areas = []
    for _ in range(10):
        crop = empty_input(area_scale=0.25, cell_diameter=diameters[1])
        paste(crop)
        areas += crop.areas.tolist()
    assert areas
    assert all(min(abs(area / factor - 441), abs(area / factor - 797)) < 80 for area in areas)


def test_what_a_pasted_cell_hides_is_gone():
    labels = np.zeros((10, 10, 2), np.uint16)
    labels[2:8, 2:8, 0], labels[4:6, :, 1] = 1, 2
    patch = Patch(np.full((4, 4, 3), 9, np.uint8), np.ones((4, 4), bool), 3, 3, category=5)
    tfm = PasteTransform([patch], first_label=3)
    result = tfm.apply_segmentation(labels)
    assert [(result == k).sum() for k in (1, 2, 3)] == [36 - 16, 20 - 8, 16]
    assert (tfm.apply_image(np.zeros((10, 10, 3), np.uint8)).sum(-1) > 0).sum() == 16
    assert labels.max() == 2  # the input stays


@pytest.mark.parametrize("label", [1, IGNORED_LABEL])
def test_a_crop_full_of_cells_or_to_be_ignored_takes_none(record, label):
    crop = empty_input()
    crop.sem_seg[:] = label
    for _ in range(5):
        build(record)(crop)
    assert len(crop.classes) == 0
    assert (crop.image == 228).all()


def test_a_cell_takes_on_the_stain_of_the_crop(record):
    paste = build(record)
    measure = ReinhardNormalizer.from_config(get_bccd_cfg())
    pale = np.clip(cv2.imread(record["file_name"]).astype(int) + (20, 45, 60), 0, 255).astype(np.uint8)
    wanted = measure.statistics(pale)
    crop = empty_input(300, 300)
    crop.image[:] = (250, 250, 250)
    crop.stain_statistics = wanted
    np.random.seed(3)  # noqa: NPY002
    while not crop.sem_seg.any():
        paste(crop)
    inside = cv2.erode(crop.sem_seg.any(-1).astype(np.uint8), np.ones((5, 5))).astype(bool)
    lab = cv2.cvtColor(crop.image.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)[inside].mean(0)
    np.testing.assert_allclose(lab, wanted.mean, atol=4)


def test_cut_and_crowd_cells_are_not_taken(tmp_path):
    at_border = disc(60, 60, 5, 30, 12)
    record = dataset_dict(tmp_path / "cut.png", [at_border])
    record["annotations"].append(annotation(disc(60, 60, 40, 40, 8), iscrowd=1))
    with pytest.raises(InputError, match="no annotated cell lies whole inside its image"):
        build(record)


def test_pasted_cells_keep_the_room_in_their_boxes(record):
    for one in record["annotations"]:
        x, y, width, height = one["bbox"]
        one["bbox"] = [x - width / 4, y - height / 4, 1.5 * width, 1.5 * height]
    paste = build(record)
    np.random.seed(0)  # noqa: NPY002
    crop = empty_input()
    paste(crop)
    assert len(crop.box_scales) == len(crop.classes) > 0
    assert crop.box_scales == pytest.approx(1.5)
