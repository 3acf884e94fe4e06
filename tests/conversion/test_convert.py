"""The conversion from end to end, on drawn masks and on the real pairs."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bccd_d2.conversion.coco import decode_segmentation, read_coco
from bccd_d2.conversion.convert import convert_dataset
from bccd_d2.conversion.instances import label_instances
from bccd_d2.conversion.splits import PARTS, read_splits
from bccd_d2.errors import InputError


def draw_mask(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """A mask of two discs, one cut by the left border, and one speck."""
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (0, 30), 14, 255, -1)
    cv2.circle(mask, (80 + seed, 60), 20, 255, -1)
    mask[110:113, 150:153] = 255
    return mask


def write_pairs(root: Path, count: int, folder: str = "BCCD Dataset with mask/train") -> None:
    for seed in range(count):
        for kind in ("original", "mask"):
            path = root / folder / kind / f"smear {seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.dstack([draw_mask(seed)] * 3))


@pytest.fixture()
def pairs_root(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "data", 10)
    return tmp_path / "data"


def all_documents(out: Path) -> list[dict]:
    return [read_coco(out / "annotations" / f"instances_{part}.json") for part in PARTS]


def test_drawn_masks_come_out_pixel_for_pixel(pairs_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = convert_dataset(pairs_root, out)
    assert (summary.counts.components, summary.counts.kept, summary.counts.specks) == (30, 20, 10)
    assert [summary.images[part] for part in PARTS] == [7, 2, 1]
    for document in all_documents(out):
        assert document["categories"] == [{"id": 1, "name": "cell"}]
        assert document["info"]["image_root"] == "../data"
        for image in document["images"]:
            path = out / document["info"]["image_root"] / image["file_name"]
            expected = cv2.imread(str(path).replace("original", "mask"), cv2.IMREAD_GRAYSCALE) > 0
            expected[110:113, 150:153] = False
            drawn = np.zeros((image["height"], image["width"]), int)
            annotations = [a for a in document["annotations"] if a["image_id"] == image["id"]]
            for annotation in annotations:
                mask = decode_segmentation(annotation["segmentation"], image["height"], image["width"])
                rows, columns = np.nonzero(mask)
                assert annotation["area"] == mask.sum()
                assert annotation["bbox"] == [
                    columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
                ]  # fmt: skip
                assert isinstance(annotation["segmentation"]["counts"], str)
                drawn += mask
            assert np.array_equal(drawn, expected)
            assert [annotation["border"] for annotation in annotations] == [True, False]


def test_ids_are_unique_and_the_same_in_every_run(pairs_root: Path, tmp_path: Path) -> None:
    convert_dataset(pairs_root, tmp_path / "a")
    convert_dataset(pairs_root, tmp_path / "b", workers=2)
    for part in PARTS:
        name = f"annotations/instances_{part}.json"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    ids = [a["id"] for document in all_documents(tmp_path / "a") for a in document["annotations"]]
    assert len(set(ids)) == len(ids) == 20


def test_an_empty_mask_keeps_its_image(pairs_root: Path, tmp_path: Path) -> None:
    folder = pairs_root / "BCCD Dataset with mask/train/mask"
    cv2.imwrite(str(folder / "smear 3.png"), np.zeros((120, 160), np.uint8))
    convert_dataset(pairs_root, tmp_path / "out")
    images = [image for document in all_documents(tmp_path / "out") for image in document["images"]]
    assert len(images) == 10
    (empty,) = [image["id"] for image in images if "smear 3" in image["file_name"]]
    annotations = [a for document in all_documents(tmp_path / "out") for a in document["annotations"]]
    assert empty not in {annotation["image_id"] for annotation in annotations}


def test_existing_output_needs_overwrite_and_stays_whole(pairs_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_dataset(pairs_root, out)
    before = {path: path.read_bytes() for path in out.rglob("*.json")}
    with pytest.raises(InputError, match="--overwrite"):
        convert_dataset(pairs_root, out)
    (pairs_root / "BCCD Dataset with mask/train/mask/smear 9.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"smear 9\.png: 8 bytes of no known image format"):
        convert_dataset(pairs_root, out, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert {path.name for path in out.iterdir()} == {"annotations", "splits.json"}


def test_a_failed_run_leaves_no_folder(pairs_root: Path, tmp_path: Path) -> None:
    (pairs_root / "BCCD Dataset with mask/train/original/smear 0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"smear 0\.png"):
        convert_dataset(pairs_root, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_skip_bad_lists_what_it_left_out(pairs_root: Path, tmp_path: Path) -> None:
    folder = pairs_root / "BCCD Dataset with mask/train/mask"
    (folder / "smear 1.png").unlink()
    cv2.imwrite(str(folder / "smear 2.png"), np.zeros((60, 160), np.uint8))
    with pytest.raises(InputError, match="image without mask"):
        convert_dataset(pairs_root, tmp_path / "out")
    summary = convert_dataset(pairs_root, tmp_path / "out", skip_bad=True)
    assert len(summary.faults) == 2
    assert "image without mask" in summary.faults[0]
    assert "160x60 pixels, expected 160x120" in summary.faults[1]
    stems = [stem for stems in read_splits(tmp_path / "out/splits.json").values() for stem in stems]
    assert sorted(stems) == sorted(f"smear {seed}" for seed in range(10) if seed not in (1, 2))


@pytest.mark.real_data
def test_real_pairs_give_the_known_counts(real_pairs_root: Path, tmp_path: Path) -> None:
    summary = convert_dataset(real_pairs_root, tmp_path / "out", workers=2)
    assert sum(summary.images.values()) == 60
    assert sum(summary.instances.values()) == 4347
    for document in all_documents(tmp_path / "out"):
        for image in document["images"]:
            assert (tmp_path / "out" / document["info"]["image_root"] / image["file_name"]).is_file()


def test_corner_contact_joins_only_under_eight() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[:20, :20] = mask[20:, 20:] = 1
    assert label_instances(mask).counts.kept == 1
    assert label_instances(mask, connectivity=4).counts.kept == 2
