import os

import numpy as np
import pytest

from bccd_d2.data.cache import FolderCache, MemoryCache


class Source:
    """Makes arrays of 100 bytes and counts how often."""

    def __init__(self):
        self.made = []

    def __call__(self, key):
        self.made.append(key)
        return np.full(100, len(self.made), np.uint8)


def test_the_first_are_kept():
    source, cache = Source(), MemoryCache(250)
    for key in "abcabc":
        cache.get(key, lambda key=key: source(key))
    assert source.made == ["a", "b", "c", "c"]
    assert cache.size == 200


@pytest.mark.parametrize("limit", [0, 99])
def test_what_is_too_large_is_not_kept(limit):
    source, cache = Source(), MemoryCache(limit)
    for _ in range(3):
        cache.get("a", lambda: source("a"))
    assert len(source.made) == 3
    assert cache.size == 0


def test_a_folder_keeps_images_between_processes_until_it_is_full(tmp_path):
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_bytes(b"x")
    source = Source()
    limit = 250
    for _ in range(2):
        cache = FolderCache(tmp_path / "cache", limit, "BGR")
        for file in files:
            cache.get(str(file), lambda file=file: source(file.name))
    # A file takes 128 bytes of header beside its 100: one fits.
    assert source.made == ["a", "b", "c", "b", "c"]
    found = FolderCache(tmp_path / "cache", limit, "BGR").get(str(files[0]), lambda: source("a"))
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    assert (found == 1).all()


def test_a_changed_file_and_another_variant_are_others(tmp_path):
    file = tmp_path / "image"
    file.write_bytes(b"x")
    source = Source()
    for variant in ("BGR", "BGR", "RGB"):
        FolderCache(tmp_path / "cache", 10**6, variant).get(str(file), lambda: source("a"))
    assert len(source.made) == 2
    os.utime(file, ns=(1, 1))
    FolderCache(tmp_path / "cache", 10**6, "BGR").get(str(file), lambda: source("a"))
    assert len(source.made) == 3
