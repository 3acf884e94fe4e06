"""Every way to divide a data set is deterministic and keeps together what belongs together."""

import json
import logging
from pathlib import Path

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bccd_d2.conversion.pairs import ImageMaskPair, find_pairs
from bccd_d2.conversion.splits import PlannedSplit, SplitPlan, plan_split, read_splits, write_splits
from bccd_d2.errors import InputError
from bccd_d2.structures.dataset_files import PARTS
from tests.conversion.drawn import write, write_pairs


def pairs(stems: list[str], part: str | None = None) -> list[ImageMaskPair]:
    return [ImageMaskPair(stem, Path(f"{stem}.png"), Path(f"{stem}.png"), part) for stem in stems]


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"im{n:03}" for n in range(start, start + count)]


@pytest.mark.parametrize(
    ("count", "cap", "sizes"),
    [(100, None, [70, 15, 15]), (3, None, [1, 1, 1]), (1, None, [1, 0, 0]), (1328, 100, [70, 15, 15])],
)
def test_sizes_worked_out_by_hand(count: int, cap: int | None, sizes: list[int]) -> None:
    splits = plan_split(pairs(numbered(count)), SplitPlan(max_images=cap)).splits
    assert [len(splits[part]) for part in PARTS] == sizes


@given(st.sets(st.text(min_size=1, max_size=5), max_size=30), st.randoms())
def test_order_of_the_file_system_does_not_matter(stems: set[str], random) -> None:
    shuffled = list(stems)
    random.shuffle(shuffled)
    splits = plan_split(pairs(shuffled), SplitPlan()).splits
    assert splits == plan_split(pairs(sorted(stems)), SplitPlan()).splits
    assert sorted(stem for names in splits.values() for stem in names) == sorted(stems)


def test_the_split_of_these_names_never_changes() -> None:
    splits = plan_split(pairs([f"image{n}" for n in range(8)]), SplitPlan()).splits
    assert splits["val"] + splits["test"] == ["image2", "image0"]


def test_official_carves_val_from_train() -> None:
    given = pairs(numbered(85), "train") + pairs(numbered(15, 100), "test")
    splits = plan_split(given, SplitPlan("official")).splits
    assert splits["test"] == numbered(15, 100)
    assert len(splits["val"]) == 15
    assert sorted(splits["train"] + splits["val"]) == numbered(85)


@given(st.lists(st.integers(1, 9), min_size=3, max_size=12), st.integers(0, 5))
def test_no_group_is_in_two_parts(sizes: list[int], seed: int) -> None:
    given = pairs([f"g{group}_{n}" for group, size in enumerate(sizes) for n in range(size)])
    plan = SplitPlan("prefix", seed=seed)
    splits, groups, _ = plan_split(given, plan)
    assert groups == {pair.stem: pair.stem.split("_")[0] for pair in given}
    parts = [{groups[stem] for stem in splits[part]} for part in PARTS]
    assert all(parts)
    assert sum(map(len, parts)) == len(sizes)
    assert sorted(stem for part in PARTS for stem in splits[part]) == sorted(groups)
    assert splits == plan_split(given[::-1], plan).splits


def test_a_column_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    rows = [f"im{n:03}.png,patient {n % 5}" for n in range(20)]
    table.write_text("file_name,patient\n" + "\n".join(rows), encoding="utf-8-sig")
    plan = SplitPlan("table", path=str(table), column="patient")
    splits, groups, _ = plan_split(pairs(numbered(20)), plan)
    assert groups is not None
    assert sum(len({groups[stem] for stem in splits[part]}) for part in PARTS) == 5
    with pytest.raises(InputError, match="no 'patient' for these images"):
        plan_split(pairs(numbered(21)), plan)
    with pytest.raises(InputError, match="columns file_name, patient, expected one named 'slide'"):
        plan_split(pairs(numbered(20)), SplitPlan("table", path=str(table), column="slide"))
    with pytest.raises(InputError, match="no such file"):
        plan_split(pairs(["a"]), SplitPlan("table", path=str(tmp_path / "none.csv"), column="x"))


@pytest.mark.parametrize("column", ["stem", "file_name"])
def test_names_with_dots_folders_and_accents_are_found_in_tables_and_lists(
    tmp_path: Path, column: str
) -> None:
    given = pairs(["s.1", "s.2", "a/x", "b/x", "\u00e4"])
    names = ["s.1", "s.2", "a\\x", "b\\x", "a\u0308"]
    if column == "file_name":
        names = [f"C:\\set\\{name}.png" for name in names]
    table = tmp_path / "slides.csv"
    table.write_text(
        f"{column},slide\n" + "".join(f"{n},{k}\n" for k, n in enumerate(names)), encoding="utf-8"
    )
    groups = plan_split(given, SplitPlan("table", path=str(table), column="slide")).groups
    assert groups == {pair.stem: str(k) for k, pair in enumerate(given)}
    table.write_text(f"{column},slide\nx.png,1\n")
    with pytest.raises(InputError, match=r"'a/x', 'b/x' all match 'x\.png'"):
        plan_split(given, SplitPlan("table", path=str(table), column="slide"))
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"train": names[:3], "val": names[3:4], "test": names[4:]}), encoding="utf-8")
    splits = plan_split(given, SplitPlan("file", path=str(lists))).splits
    assert splits == {"train": ["a/x", "s.1", "s.2"], "val": ["b/x"], "test": ["\u00e4"]}


def test_a_split_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    split = plan_split(pairs([*numbered(20), "ä b", 'c"d']), SplitPlan())
    write_splits(path, split, {})
    assert read_splits(path) == split.splits
    plan = SplitPlan("file", path=str(path))
    assert plan_split(pairs([*numbered(20), "ä b", 'c"d']), plan).splits == split.splits


def test_paths_of_another_machine_match_by_stem(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists = {
        "train": [["/kaggle/a b/im000.png", "/m/im000.png"], ["C:\\data\\im001.jpg", "C:\\m\\im001.png"]],
        "val": [["/x/im002.png", "/y/im002.png"]],
        "test": [["/x/gone.png", "/y/gone.png"]],
    }
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(lists), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        split = plan_split(pairs(numbered(5)), SplitPlan("file", path=str(path)))
    assert split.splits == {"train": ["im000", "im001"], "val": ["im002"], "test": []}
    assert split.missing == ["gone"]
    assert "not here (1):\n  gone" in caplog.text
    assert "2 images here are not listed" in caplog.text
    with pytest.raises(InputError, match="none of the images it lists is here"):
        plan_split(pairs(["other"]), SplitPlan("file", path=str(path)))


def test_stain_clusters_from_files(tmp_path: Path) -> None:
    write_pairs(tmp_path, [f"a{n}" for n in range(6)])
    originals = tmp_path / "BCCD Dataset with mask/train/original"
    for n in range(3):  # another stain
        write(originals / f"a{n}.png", 255 - cv2.imread(str(originals / f"a{n}.png")))
    plan = SplitPlan("stain", clusters=2, ratios=(0.5, 0.5, 0.0))
    splits, groups, _ = plan_split(find_pairs(tmp_path), plan)
    assert {tuple(splits["train"]), tuple(splits["val"])} == {("a0", "a1", "a2"), ("a3", "a4", "a5")}
    assert groups is not None
    assert groups["a0"] == "stain 1"
    (originals / "a2.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a2\.png: empty file"):
        plan_split(find_pairs(tmp_path), plan)
    faults: list[str] = []
    plan_split(find_pairs(tmp_path), plan, faults=faults)
    assert len(faults) == 1


def test_a_file_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    write_splits(path, PlannedSplit({"train": ["a"], "val": ["b"], "test": ["c"]}), {})
    path.write_text(path.read_text(encoding="utf-8").replace('"b"', '"d"'), encoding="utf-8")
    with pytest.raises(InputError, match="do not agree with its sha256"):
        read_splits(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "table", "path": "x.csv"}, "without a column"),
        ({"ratios": (0.5, 0.4, 0.2)}, "split ratios"),
        ({"max_images": 0}, "max_images 0"),
    ],
)
def test_plans_that_cannot_work(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SplitPlan(**options)


@pytest.mark.real_data
def test_the_reports_own_split_of_the_real_pairs(real_pairs_root: Path) -> None:
    plan = SplitPlan("file", path=str(real_pairs_root / "bccd_splits_100.json"))
    splits = plan_split(find_pairs(real_pairs_root), plan).splits
    assert [len(splits[part]) for part in PARTS] == [5, 0, 0]
