import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from bccd_d2.config import get_bccd_cfg
from bccd_d2.data import dataset_mapper
from bccd_d2.data.dataset_mapper import BCCDDatasetMapper, MemoryCache
from bccd_d2.errors import InputError
from tests.data.shapes import annotation, dataset_dict, disc


def config(**changes):  # keys below INPUT, "__" for the dot
    cfg = get_bccd_cfg()
    cfg.INPUT.AUGMENTATION.PRESET = "none"
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.CROP.TYPE = "absolute"
    for key, value in changes.items():
        cfg.merge_from_list([f"INPUT.{key.replace('__', '.')}", value])
    return cfg


@pytest.fixture
def cells(tmp_path):
    masks = [disc(120, 160, x, y, 12) for x in (20, 60, 100, 140) for y in (20, 60, 100)]
    return dataset_dict(tmp_path / "cells.png", masks), np.stack(masks)


def test_without_any_transform_the_sample_is_the_annotation(cells):
    record, masks = cells
    before = repr(record)
    sample = BCCDDatasetMapper(config(), True)(record)
    assert repr(record) == before
    assert "annotations" not in sample
    assert sample["image"].shape == (3, 120, 160)
    assert sample["image"].dtype == torch.uint8
    np.testing.assert_array_equal(sample["instances"].gt_masks.tensor.numpy(), masks)
    assert sample["instances"].gt_classes.tolist() == [0, 1] * 6
    assert sample["instances"].gt_boxes.tensor[0].tolist() == [8, 8, 33, 33]


def test_crop_and_scale(cells):
    record, _ = cells
    mapper = BCCDDatasetMapper(config(CROP__ENABLED=True, CROP__SIZE=[64, 80], SCALE=0.5), True)
    assert {tuple(mapper(record)["image"].shape) for _ in range(5)} == {(3, 32, 40)}
    sample = mapper(record)
    assert (sample["height"], sample["width"]) == (120, 160)
    assert sample["instances"].image_size == (32, 40)
    # An image smaller than the crop is taken whole.
    mapper = BCCDDatasetMapper(config(CROP__ENABLED=True, CROP__SIZE=[512, 512]), True)
    assert mapper(record)["image"].shape == (3, 120, 160)


@pytest.mark.parametrize("preset", ["none", "mild", "strong"])
def test_masks_follow_the_image_through_every_transform(cells, preset, monkeypatch):
    monkeypatch.setattr(dataset_mapper, "MIN_VISIBLE", 0.0)
    record, _ = cells
    cfg = config(CROP__ENABLED=True, CROP__SIZE=[90, 70], RANDOM_FLIP="both")
    cfg.INPUT.AUGMENTATION.PRESET = preset
    mapper = BCCDDatasetMapper(cfg, True)
    for _ in range(30):
        sample = mapper(record)
        union = sample["instances"].gt_masks.tensor.any(0).numpy()
        # Cells have a green level near 110, background near 228, whatever brightness does to both.
        _, drawn = cv2.threshold(sample["image"][1].numpy(), 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
        assert (union & drawn).sum() / max((union | drawn.astype(bool)).sum(), 1) > 0.85
        np.testing.assert_array_equal(
            sample["instances"].gt_boxes.tensor.numpy(),
            sample["instances"].gt_masks.get_bounding_boxes().tensor.numpy(),
        )
        assert sample["instances"].gt_masks.nonempty().all()


def test_crowd_regions_do_not_become_instances_but_are_marked(cells):
    record, masks = cells
    region = disc(120, 160, 80, 60, 50)
    record["annotations"].append(annotation(region, iscrowd=1))
    sample = BCCDDatasetMapper(config(), True)(record)
    np.testing.assert_array_equal(sample["instances"].gt_masks.tensor.numpy(), masks)
    np.testing.assert_array_equal(sample["ignore_mask"].numpy(), region & ~masks.any(0))
    assert "ignore_mask" not in BCCDDatasetMapper(config(), False)(record)


def test_regions_to_ignore_follow_the_image_through_every_transform(tmp_path):
    regions = [disc(120, 160, x, y, 14) for x in (30, 80, 130) for y in (30, 90)]
    record = dataset_dict(tmp_path / "ignored.png", regions)
    for one in record["annotations"]:
        one["iscrowd"] = 1
    cfg = config(CROP__ENABLED=True, CROP__SIZE=[90, 70], RANDOM_FLIP="both")
    cfg.INPUT.AUGMENTATION.PRESET = "strong"
    mapper = BCCDDatasetMapper(cfg, True)
    for _ in range(20):
        sample = mapper(record)
        _, drawn = cv2.threshold(sample["image"][1].numpy(), 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
        ignored = sample["ignore_mask"].numpy()
        assert (ignored & drawn).sum() / (ignored | drawn.astype(bool)).sum() > 0.85


def test_unlabelled_classes_and_sizes_follow_the_crop(cells):
    record = {**cells[0], "unlabeled_classes": [1], "unlabeled_sizes": [10.0, 30.0]}
    cfg = config(CROP__ENABLED=True, CROP__SIZE=[64, 80], SCALE=0.5, AUGMENTATION__ZOOM=[2.0, 2.0])
    sample = BCCDDatasetMapper(cfg, True)(record)
    assert sample["unlabeled_classes"] == [1]
    assert sample["unlabeled_sizes"] == pytest.approx([10, 30])  # half the scale, twice the magnification
    assert BCCDDatasetMapper(config(SCALE=0.5), True)(record)["unlabeled_sizes"] == pytest.approx([5, 15])
    assert record["unlabeled_sizes"] == [10.0, 30.0]


def test_images_of_any_magnification_are_brought_to_the_configured_diameters(cells):
    cfg = config(CROP__ENABLED=True, CROP__SIZE=[64, 80], AUGMENTATION__CELL_DIAMETERS=[30.0, 30.0])
    record = {**cells[0], "cell_diameter": 20.0}
    crop, augmented = BCCDDatasetMapper(cfg, True).take_crop(record)
    assert (crop.width, crop.height) == (53, 43)  # 80 x 64 at a magnification of 1.5
    assert augmented.image.shape == (64, 80, 3)
    assert augmented.cell_diameter == pytest.approx(30, rel=0.01)
    cfg.INPUT.CELL_DIAMETER = 40.0
    assert BCCDDatasetMapper(cfg, False)(record)["image"].shape == (3, 240, 320)  # twice 120 x 160
    unknown = BCCDDatasetMapper(cfg, True).take_crop(cells[0])[0]
    assert (unknown.width, unknown.height) == (80, 64)


def test_testing_keeps_annotations_out_and_draws_nothing(cells):
    record, _ = cells
    cfg = config(CROP__ENABLED=True, CROP__SIZE=[32, 32], SCALE=0.5, RANDOM_FLIP="both")
    cfg.INPUT.AUGMENTATION.PRESET = "mild"
    cfg.INPUT.STAIN.ENABLED = True
    mapper = BCCDDatasetMapper(cfg, False)
    first, second = mapper(record), mapper(record)
    assert set(first) == {"image", "height", "width", "image_id", "file_name"}
    assert first["image"].shape == (3, 60, 80)
    assert torch.equal(first["image"], second["image"])
    assert torch.equal(first["image"], mapper.image_tensor(cv2.imread(record["file_name"])))


def test_a_crop_gets_the_stain_statistics_of_its_whole_image(cells):
    record, _ = cells
    cfg = config()
    cfg.INPUT.STAIN.ENABLED = True
    whole = BCCDDatasetMapper(cfg, False)(record)["image"].numpy()
    cfg = config(CROP__ENABLED=True, CROP__SIZE=[24, 24])
    cfg.INPUT.STAIN.ENABLED = True
    crop = BCCDDatasetMapper(cfg, True)(record)["image"].numpy()
    windows = np.lib.stride_tricks.sliding_window_view(whole, (3, 24, 24))[0]
    assert (windows == crop).all((-1, -2, -3)).any()


def test_a_seed_repeats_and_a_cache_changes_nothing(cells):
    record, _ = cells

    def samples(**cache):
        crop = {"CROP__ENABLED": True, "CROP__SIZE": [64, 64], "RANDOM_FLIP": "both"}
        mapper = BCCDDatasetMapper(config(**crop, **cache, AUGMENTATION__PRESET="mild"), True)
        np.random.seed(5)  # noqa: NPY002  what Detectron2 seeds
        return [mapper(record) for _ in range(6)]

    for one, other in zip(samples(), samples(CACHE_MB=10), strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["instances"].gt_masks.tensor, other["instances"].gt_masks.tensor)


@pytest.mark.parametrize(("limit", "made"), [(250, "abcc"), (99, "abcabc")])
def test_a_cache_keeps_the_first_that_fit(limit, made):
    calls, cache = [], MemoryCache(limit)
    for key in "abcabc":
        cache.get(key, lambda key=key: calls.append(key) or np.zeros(100, np.uint8))
    assert "".join(calls) == made


def test_an_instance_the_crop_leaves_too_little_of_is_dropped(tmp_path, monkeypatch):
    square = np.zeros((40, 40), dtype=bool)
    square[10:30, 10:30] = True
    record = dataset_dict(tmp_path / "square.png", [square])
    for min_visible in (0.0, 0.5):
        monkeypatch.setattr(dataset_mapper, "MIN_VISIBLE", min_visible)
        mapper = BCCDDatasetMapper(config(CROP__ENABLED=True, CROP__SIZE=[20, 20]), True)
        shares = [mapper(record)["instances"].gt_masks.tensor.sum().item() / 400 for _ in range(60)]
        assert min((share for share in shares if share), default=1) >= min_visible
        assert max(shares) > 0.5


def test_the_caches_of_all_processes_together_keep_the_limit(monkeypatch):
    monkeypatch.setattr(comm, "get_local_size", lambda: 2)  # processes that train on this machine
    cfg = config(CACHE_MB=12)
    for workers, readers in ((0, 2), (1, 2), (3, 6)):
        cfg.DATALOADER.NUM_WORKERS = workers
        assert BCCDDatasetMapper(cfg, True)._images.limit * readers == 12 * 2**20
        assert BCCDDatasetMapper(cfg, False)._images.limit == 0


def test_copy_paste_adds_cells_of_the_training_set(cells):
    record, _ = cells
    DatasetCatalog.register("drawn_for_copy_paste", lambda: [record])
    try:
        cfg = config(COPY_PASTE__ENABLED=True)
        cfg.DATASETS.TRAIN = ("drawn_for_copy_paste",)
        mapper = BCCDDatasetMapper(cfg, True)
    finally:
        DatasetCatalog.remove("drawn_for_copy_paste")
    counts = {len(mapper(record)["instances"]) for _ in range(12)}
    assert min(counts) == 12
    assert max(counts) > 12
    assert BCCDDatasetMapper(cfg, False)(record)["image"].shape == (3, 120, 160)


def test_bad_input_is_named(cells, tmp_path):
    record, _ = cells
    with pytest.raises(InputError, match=r"cells\.png.*\(160, 120\).*\(99, 120\)"):
        BCCDDatasetMapper(config(), True)({**record, "width": 99})
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png: 8 bytes of no known image format"):
        BCCDDatasetMapper(config(), True)({**record, "file_name": str(broken)})
