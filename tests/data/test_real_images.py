"""The data room on real smears."""

import cv2
import numpy as np
import pytest

from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.dataset_mapper import BCCDDatasetMapper
from bccd_d2.data.stain import ReinhardNormalizer, median_target
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
