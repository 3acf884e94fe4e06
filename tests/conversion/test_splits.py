"""Splits are deterministic, complete and of the promised sizes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bccd_d2.conversion.splits import read_splits, split_stems, write_splits
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
