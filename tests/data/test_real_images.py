"""The data room on real smears."""

import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.stain import RandomStain, ReinhardNormalizer, median_target
from bccd_d2.io.images import read_image
from tests.data.shapes import annotation

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def originals(real_pairs_root):
    return sorted(real_pairs_root.glob("**/original/*"))[::6]


def test_the_default_target_is_near_the_median_and_images_reach_it(originals):
    normalizer = ReinhardNormalizer(get_bccd_cfg())
    images = [read_image(str(path)) for path in originals]
    before = [normalizer.statistics(image) for image in images]
    assert None not in before
    fitted = median_target(before)
    np.testing.assert_allclose(fitted.mean, normalizer.target.mean, atol=5)
    after = [normalizer.statistics(normalizer.apply(i, s)) for i, s in zip(images, before)]
    spread = np.std([one.mean for one in after], axis=0) / np.std([one.mean for one in before], axis=0)
    assert (spread < 0.25).all()


def test_a_sample_of_a_real_pair_shows_the_mask_s_components(originals):
    path = originals[0]
    mask = cv2.imread(str(next((path.parent.parent / "mask").glob(f"{path.stem}.*"))), cv2.IMREAD_GRAYSCALE)
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask > 127).astype(np.uint8))
    kept = [k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] >= 100]
    record = {
        "file_name": str(path),
        "image_id": 0,
        "height": mask.shape[0],
        "width": mask.shape[1],
        "annotations": [annotation(labels == k) for k in kept],
    }
    cfg = get_bccd_cfg()
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [400, 500]
    cfg.INPUT.CROP.MIN_VISIBLE = 0.0
    mapper = BCCDDatasetMapper(cfg, True)
    for _ in range(3):
        crop, taken = mapper.take_crop(record)
        window = np.isin(labels, kept)[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
        expected = cv2.resize(window.astype(np.uint8), (500, 400), interpolation=cv2.INTER_NEAREST_EXACT)
        shown = taken.sem_seg.any(-1)
        assert (shown == expected).mean() > 0.99
        instances = mapper(record)["instances"]
        assert len(instances) > 3
        assert instances.gt_masks.nonempty().all()


def test_the_strongest_jitter_keeps_white_nuclei_and_red_cells_apart(real_voc_root):
    normalizer = ReinhardNormalizer(get_bccd_cfg())
    jitter = RandomStain(normalizer, around_target=True, mean_jitter=[15, 15, 15], std_jitter=0.5)
    seen = 0
    np.random.seed(0)  # noqa: NPY002  what Detectron2 seeds
    for path in sorted((real_voc_root / "wbc_masks").glob("*"))[::30]:
        image = read_image(str(real_voc_root / "JPEGImages" / f"{path.stem}.jpg"))
        white = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127
        red = np.zeros(white.shape, np.uint8)
        tree = ET.parse(real_voc_root / "Annotations" / f"{path.stem}.xml")
        for found in tree.getroot().iter("object"):
            if found.findtext("name") == "RBC":
                x0, y0, x1, y1 = (
                    int(found.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")
                )
                center, axes = ((x0 + x1) // 2, (y0 + y1) // 2), ((x1 - x0) // 4, (y1 - y0) // 4)
                cv2.ellipse(red, center, axes, 0, 0, 360, 1, -1)
        red = (red > 0) & ~white
        statistics = normalizer.statistics(image)
        if statistics is None or not red.any() or not white.any():
            continue
        seen += 1
        apart = [_distance(normalizer.apply(image, statistics), white, red)]
        for _ in range(6):
            apart.append(_distance(jitter.get_transform(image, statistics).apply_image(image), white, red))
        assert min(apart) > 0.45 * apart[0] > 5
    assert seen >= 5


def _distance(image, one, other):
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    return np.linalg.norm(lab[one].mean(0) - lab[other].mean(0))


def test_reading_agrees_with_detectron2(originals):
    from detectron2.data.detection_utils import read_image as detectron2_read_image

    png = next(path for path in originals if path.suffix == ".png")
    jpg = next(originals[0].parent.glob("*.jpg"))
    for image_format in ("BGR", "RGB"):
        ours, theirs = read_image(str(png), image_format), detectron2_read_image(str(png), image_format)
        np.testing.assert_array_equal(ours, theirs)
        ours, theirs = read_image(str(jpg), image_format), detectron2_read_image(str(jpg), image_format)
        assert np.abs(ours.astype(int) - theirs).mean() < 1
