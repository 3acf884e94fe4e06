"""Whatever is wrong with the input ends in a message that names it, and nothing half-written is left."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bccd_d2.conversion.convert import convert_dataset
from bccd_d2.conversion.splits import read_splits
from bccd_d2.errors import InputError
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.dataset_files import PARTS, annotation_file
from tests.conversion.drawn import KAGGLE_TRAIN, draw_mask, write, write_pairs
from tests.full_disk import files_no_larger_than

STEMS = [f"smear {n}" for n in range(5)]
BAD = "smear 2"


def image_of(root: Path) -> Path:
    return root / KAGGLE_TRAIN / "original" / f"{BAD}.png"


def mask_of(root: Path) -> Path:
    return root / KAGGLE_TRAIN / "mask" / f"{BAD}.png"


def cut_short(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "image without mask": (lambda root: mask_of(root).unlink(), "smear 2.png: image without mask"),
    "sizes differ": (
        lambda root: write(mask_of(root), draw_mask()[::2, ::2]),
        "smear 2.png: mask of 80x60 pixels, expected 160x120 as its image smear 2.png",
    ),
    "empty mask": (lambda root: mask_of(root).write_bytes(b""), "smear 2.png: empty file"),
    "image that is none": (
        lambda root: image_of(root).write_text("hello"),
        "5 bytes of no known image format",
    ),
    "all foreground": (
        lambda root: write(mask_of(root), np.full((120, 160), 255, np.uint8)),
        "every pixel is a cell",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_the_run_or_is_listed(tmp_path: Path, fault: str) -> None:
    plant, message = FAULTS[fault]
    root = write_pairs(tmp_path / "data", STEMS)
    plant(root)
    with pytest.raises(InputError) as raised:
        convert_dataset(root, tmp_path / "new" / "out")
    assert message in str(raised.value)
    assert "--skip-bad" in str(raised.value)
    assert not (tmp_path / "new").exists()
    summary = convert_dataset(root, tmp_path / "out", skip_bad=True)
    assert len(summary.faults) == 1
    assert message in summary.faults[0]
    used = [stem for stems in read_splits(tmp_path / "out" / "splits.json").values() for stem in stems]
    assert sorted(used) == [stem for stem in STEMS if stem != BAD]
    assert sum(summary.images.values()) == 4


def test_nothing_usable(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", [BAD])
    mask_of(root).write_bytes(b"")
    with pytest.raises(InputError, match=r"no usable pair left; first fault: .*empty file"):
        convert_dataset(root, tmp_path / "out", skip_bad=True)
    mask_of(root).unlink()
    with pytest.raises(InputError, match="no image with a mask"):
        convert_dataset(root, tmp_path / "out", skip_bad=True)
    with pytest.raises(InputError, match="no such folder"):
        convert_dataset(tmp_path / "absent", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failed_run_keeps_the_earlier_output(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", STEMS)
    out = tmp_path / "out"
    convert_dataset(root, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="--overwrite"):
        convert_dataset(root, out)
    cut_short(mask_of(root))
    with pytest.raises(InputError, match=r"smear 2\.png"):
        convert_dataset(root, out, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert {path.name for path in out.iterdir()} == {"annotations", "splits.json"}


NAMES = st.text(
    alphabet=st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\\"),
    min_size=1,
    max_size=20,
).filter(lambda name: not name.startswith(".") and name.strip(". ") == name)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(NAMES, min_size=1, max_size=4))
def test_any_name_goes(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    tmp_path = tmp_path_factory.mktemp("names")
    try:
        root = write_pairs(tmp_path / 'a "folder" für π', sorted(names))
    except OSError:  # too long for this file system, in bytes
        return
    if len(list((root / KAGGLE_TRAIN / "mask").iterdir())) < len(names):
        return  # a file system that ignores case or normalises Unicode
    convert_dataset(root, tmp_path / "out")
    files = set()
    for part in PARTS:
        document = read_coco(annotation_file(tmp_path / "out", part))
        folder = tmp_path / "out" / document["info"]["image_root"]
        files |= {image["file_name"] for image in document["images"]}
        assert all((folder / image["file_name"]).is_file() for image in document["images"])
    assert files == {f"{KAGGLE_TRAIN}/original/{name}.png" for name in names}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = write_pairs(tmp_path_factory.mktemp("damaged"), [BAD])
    path = data.draw(st.sampled_from([image_of(root), mask_of(root)]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        convert_dataset(root, root / "out")
    except InputError as error:
        assert BAD in str(error)


def test_a_full_disk_is_named_and_keeps_the_earlier_output(tmp_path: Path) -> None:
    root, out = write_pairs(tmp_path / "data", STEMS), tmp_path / "out"
    with pytest.raises(OSError, match="too large") as raised, files_no_larger_than(1000):
        convert_dataset(root, out)
    assert raised.value.filename == str(out)
    assert not out.exists()
    convert_dataset(root, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(OSError, match="too large"), files_no_larger_than(1000):
        convert_dataset(root, out, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
