import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bccd_d2.errors import InputError
from tools.download_bccd import download, take_inventory


@pytest.fixture
def fetched(tmp_path) -> Path:
    """What Kaggle's archive holds, with two train pairs and one test pair."""
    for part, stems in (("train", "ab"), ("test", "c")):
        for folder in ("original", "mask"):
            place = tmp_path / "cache" / "BCCD Dataset with mask" / part / folder
            place.mkdir(parents=True)
            for stem in stems:
                Image.fromarray(np.zeros((4, 4), np.uint8)).save(place / f"{stem}.png")
    return tmp_path / "cache"


def test_what_is_fetched_is_copied_and_counted(fetched, tmp_path, monkeypatch):
    monkeypatch.setattr("tools.download_bccd.EXPECTED_PAIRS", {"train": 2, "test": 1})
    out = tmp_path / "data" / "kaggle"
    download(out, lambda handle: str(fetched))
    assert take_inventory(out) == (["test: 1 pairs, expected 1", "train: 2 pairs, expected 2"], True)
    assert [path.name for path in out.parent.iterdir()] == ["kaggle"]
    with pytest.raises(InputError, match="kaggle exists; --check"):
        download(out, lambda handle: str(fetched))
    next(out.rglob("test/original/c.png")).unlink()
    lines, complete = take_inventory(out)
    assert not complete
    assert lines[0] == "test: 0 pairs, expected 1 (1 missing)"
    assert lines[2].endswith("c.png: mask without image")


def test_without_a_network_it_says_what_to_do(tmp_path):
    def offline(handle: str) -> str:
        raise ConnectionError("no route")

    with pytest.raises(InputError, match=r"ConnectionError: no route.*KAGGLE_USERNAME.*--root"):
        download(tmp_path / "out", fetch=offline)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_copy_leaves_nothing(fetched, tmp_path, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(tmp_path / "out", fetch=lambda handle: str(fetched))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]


def test_without_kagglehub_it_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(InputError, match=r"\[kaggle\]"):
        download(tmp_path / "out")
