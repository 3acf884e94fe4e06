"""Splits are deterministic, complete and of the promised sizes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bccd_d2.conversion.splits import PARTS, read_splits, split_groups, split_stems, write_splits
from bccd_d2.errors import InputError


def sizes(count: int, **options: float) -> tuple[int, ...]:
    return tuple(map(len, split_stems([f"{n:03}" for n in range(count)], **options).values()))


def test_sizes_worked_out_by_hand() -> None:
    assert sizes(100) == (70, 15, 15)
    assert sizes(60) == (42, 9, 9)
    assert sizes(3) == (1, 1, 1)
    assert sizes(1) == (1, 0, 0)
    assert sizes(1328, max_images=100) == (70, 15, 15)


@given(st.sets(st.text(min_size=1, max_size=5), max_size=30), st.randoms())
def test_order_of_the_file_system_does_not_matter(stems: set[str], random) -> None:
    shuffled = list(stems)
    random.shuffle(shuffled)
    splits = split_stems(shuffled)
    assert splits == split_stems(sorted(stems))
    assert sorted(stem for names in splits.values() for stem in names) == sorted(stems)


def test_the_split_of_these_names_never_changes() -> None:
    splits = split_stems([f"image{n}" for n in range(8)])
    assert splits["val"] + splits["test"] == ["image2", "image0"]


def test_round_trip(tmp_path: Path) -> None:
    splits = split_stems(["ä b", 'c"d', "e", "f"])
    write_splits(tmp_path / "splits.json", splits, {"seed": 42})
    assert read_splits(tmp_path / "splits.json") == splits


def test_a_stem_in_two_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text('{"train": ["a"], "val": ["a"], "test": []}', encoding="utf-8")
    with pytest.raises(InputError, match="'a' is in train and in val"):
        read_splits(path)


def test_a_file_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    write_splits(path, {"train": ["a"], "val": ["b"], "test": ["c"]}, {})
    path.write_text(path.read_text(encoding="utf-8").replace('"b"', '"d"'), encoding="utf-8")
    with pytest.raises(InputError, match="do not agree with its sha256"):
        read_splits(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no list 'train'"),
        ('{"train": [], "val": []}', "no list 'test'"),
        ('{"train": [1], "val": [], "test": []}', "train: '1', expected a stem or"),
        ('{"train": [[]], "val": [], "test": []}', "expected a stem or"),
        ('{"train"', "not JSON"),
    ],
)
def test_files_that_are_no_splits(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_splits(path)


@pytest.mark.parametrize("ratios", [(0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (0.5, 0.5)])
def test_ratios_must_add_up(ratios: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="split ratios"):
        split_stems(["a"], ratios=ratios)


@given(st.lists(st.integers(1, 9), min_size=3, max_size=12), st.integers(0, 5))
def test_no_group_is_in_two_parts(sizes: list[int], seed: int) -> None:
    group_of = {f"{group}-{n}": f"g{group}" for group, size in enumerate(sizes) for n in range(size)}
    splits = split_groups(group_of, seed=seed)
    parts = [{group_of[stem] for stem in splits[part]} for part in PARTS]
    assert all(parts)
    assert sum(map(len, parts)) == len(sizes)
    assert sorted(stem for part in PARTS for stem in splits[part]) == sorted(group_of)
    assert splits == split_groups(dict(reversed(group_of.items())), seed=seed)


def test_many_small_groups_meet_the_shares() -> None:
    splits = split_groups({f"{n}": f"{n // 2}" for n in range(200)})
    assert [len(splits[part]) for part in PARTS] == [140, 30, 30]
