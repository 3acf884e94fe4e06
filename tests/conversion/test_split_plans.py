"""Every way to divide a data set keeps what belongs together together."""

import json
import logging
from pathlib import Path

import cv2
import pytest

from bccd_d2.conversion.layout import ImageMaskPair, find_pairs
from bccd_d2.conversion.split_plans import SplitPlan, plan_split
from bccd_d2.conversion.splits import PARTS, write_splits
from bccd_d2.errors import InputError
from tests.conversion.drawn import write, write_pairs


def pairs(stems: list[str], part: str | None = None) -> list[ImageMaskPair]:
    return [ImageMaskPair(stem, Path(f"{stem}.png"), Path(f"{stem}.png"), part) for stem in stems]


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"im{n:03}" for n in range(start, start + count)]


def test_official_carves_val_from_train() -> None:
    given = pairs(numbered(85), "train") + pairs(numbered(15, 100), "test")
    splits = plan_split(given, SplitPlan("official")).splits
    assert splits["test"] == numbered(15, 100)
    assert len(splits["val"]) == 15
    assert sorted(splits["train"] + splits["val"]) == numbered(85)


def test_an_official_val_is_kept() -> None:
    given = pairs(["a"], "train") + pairs(["b"], "val") + pairs(["c"], "test")
    assert plan_split(given, SplitPlan("official")).splits == {"train": ["a"], "val": ["b"], "test": ["c"]}


def test_official_needs_the_folders() -> None:
    with pytest.raises(InputError, match="in no folder train or test"):
        plan_split(pairs(["a"]), SplitPlan("official"))
    with pytest.raises(InputError, match="no image in the official part train"):
        plan_split(pairs(["a"], "test"), SplitPlan("official"))


def test_prefixes_stay_together() -> None:
    stems = [f"slide{s}_{n}" for s in range(7) for n in range(s + 1)]
    splits, groups, _ = plan_split(pairs(stems), SplitPlan("prefix"))
    slides = [{stem.split("_")[0] for stem in splits[part]} for part in PARTS]
    assert sum(map(len, slides)) == 7
    assert all(slides)
    assert groups is not None
    assert groups["slide3_1"] == "slide3"
    assert len(splits["train"]) == pytest.approx(0.7 * 28, abs=3)
    with pytest.raises(InputError, match=r"stems without '-'"):
        plan_split(pairs(stems), SplitPlan("prefix", separator="-"))
    with pytest.raises(InputError, match="2 groups, expected at least one for each of train, val, test"):
        plan_split(pairs(["a_1", "a_2", "b_1"]), SplitPlan("prefix"))


def test_a_column_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    rows = [f"im{n:03}.png,patient {n % 5}" for n in range(20)]
    table.write_text("file_name,patient\n" + "\n".join(rows), encoding="utf-8-sig")
    plan = SplitPlan("table", path=str(table), column="patient")
    splits, groups, _ = plan_split(pairs(numbered(20)), plan)
    assert groups is not None
    patients = [{groups[stem] for stem in splits[part]} for part in PARTS]
    assert sum(map(len, patients)) == 5
    with pytest.raises(InputError, match="no 'patient' for these images"):
        plan_split(pairs(numbered(21)), plan)
    with pytest.raises(InputError, match="columns file_name, patient, expected one named 'slide'"):
        plan_split(pairs(numbered(20)), SplitPlan("table", path=str(table), column="slide"))
    with pytest.raises(InputError, match="no such file"):
        plan_split(pairs(["a"]), SplitPlan("table", path=str(tmp_path / "none.csv"), column="x"))


def test_our_own_file_comes_back(tmp_path: Path) -> None:
    splits = plan_split(pairs(numbered(20)), SplitPlan()).splits
    write_splits(tmp_path / "splits.json", splits, {})
    plan = SplitPlan("file", path=str(tmp_path / "splits.json"))
    assert plan_split(pairs(numbered(20)), plan).splits == splits


def test_paths_of_another_machine_match_by_stem(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists = {
        "train": [
            ["/kaggle/a b/im000.png", "/kaggle/m/im000.png"],
            ["C:\\data\\im001.jpg", "C:\\m\\im001.png"],
        ],
        "val": [["/x/im002.png", "/y/im002.png"]],
        "test": [["/x/gone.png", "/y/gone.png"]],
    }
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(lists), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        splits = plan_split(pairs(numbered(5)), SplitPlan("file", path=str(path))).splits
    assert splits == {"train": ["im000", "im001"], "val": ["im002"], "test": []}
    assert "not here (1)" in caplog.text
    assert "gone" in caplog.text
    assert "2 images here are not listed" in caplog.text
    with pytest.raises(InputError, match="none of the images it lists is here"):
        plan_split(pairs(["other"]), SplitPlan("file", path=str(path)))


def test_a_file_finds_stems_that_have_a_folder_in_front(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"train": ["b", "train/a"], "val": [], "test": ["test/a"]}', encoding="utf-8")
    given = pairs(["train/a", "test/a", "train/b"])
    splits = plan_split(given, SplitPlan("file", path=str(path))).splits
    assert splits == {"train": ["train/a", "train/b"], "val": [], "test": ["test/a"]}


def test_the_cap_holds_for_every_plan(tmp_path: Path) -> None:
    given = pairs([f"s{n % 5}_{n}" for n in range(50)], "train")
    for plan in (
        SplitPlan(max_images=10),
        SplitPlan("official", max_images=10),
        SplitPlan("prefix", max_images=10),
    ):
        assert sum(map(len, plan_split(given, plan).splits.values())) == 10


def test_stain_clusters_from_files(tmp_path: Path) -> None:
    write_pairs(tmp_path, [f"a{n}" for n in range(6)])
    for n in range(3):  # another stain
        path = tmp_path / "BCCD Dataset with mask/train/original" / f"a{n}.png"
        write(path, 255 - cv2.imread(str(path)))
    plan = SplitPlan("stain", clusters=2, ratios=(0.5, 0.5, 0.0))
    splits, groups, _ = plan_split(find_pairs(tmp_path), plan)
    assert {tuple(splits["train"]), tuple(splits["val"])} == {("a0", "a1", "a2"), ("a3", "a4", "a5")}
    assert groups is not None
    assert groups["a0"] == "stain 1"


def test_a_file_without_a_readable_stain_is_a_fault(tmp_path: Path) -> None:
    write_pairs(tmp_path, [f"a{n}" for n in range(4)])
    (tmp_path / "BCCD Dataset with mask/train/original/a2.png").write_bytes(b"")
    plan = SplitPlan("stain", clusters=2, ratios=(1.0, 0.0, 0.0))
    with pytest.raises(InputError, match=r"a2\.png: empty file"):
        plan_split(find_pairs(tmp_path), plan)
    faults: list[str] = []
    splits = plan_split(find_pairs(tmp_path), plan, faults=faults).splits
    assert splits["train"] == ["a0", "a1", "a3"]
    assert len(faults) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "guess"},
        {"mode": "file"},
        {"mode": "table", "path": "x.csv"},
        {"ratios": (0.5, 0.4, 0.2)},
        {"max_images": 0},
    ],
)
def test_plans_that_cannot_work(options: dict) -> None:
    with pytest.raises(InputError):
        SplitPlan(**options)


@pytest.mark.real_data
def test_the_reports_own_split_of_the_real_pairs(real_pairs_root: Path) -> None:
    plan = SplitPlan("file", path=str(real_pairs_root / "bccd_splits_100.json"))
    splits = plan_split(find_pairs(real_pairs_root), plan).splits
    assert [len(splits[part]) for part in PARTS] == [5, 0, 0]
