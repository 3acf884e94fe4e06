import pytest

from bccd_d2.errors import InputError
from bccd_d2.io.find_images import find_images


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_searched_and_files_taken_as_given(tmp_path):
    touch(
        tmp_path / "a" / "2.PNG",
        tmp_path / "a" / "deep" / "1.jpg",
        tmp_path / "a" / "notes.txt",
        tmp_path / "x.dat",
    )
    found = find_images([tmp_path / "a", tmp_path / "x.dat"])
    assert found == [
        (tmp_path / "a" / "2.PNG", "2.PNG"),
        (tmp_path / "a" / "deep" / "1.jpg", "deep/1.jpg"),
        (tmp_path / "x.dat", "x.dat"),
    ]


def test_two_images_of_one_name_are_refused(tmp_path):
    touch(tmp_path / "a" / "1.png", tmp_path / "b" / "1.png")
    with pytest.raises(InputError, match=r"have the same name 1\.png"):
        find_images([tmp_path / "a", tmp_path / "b"])


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere is neither a file nor a folder"):
        find_images([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no image"):
        find_images([tmp_path])


def test_patterns_name_images_below_their_fixed_part(tmp_path):
    touch(tmp_path / "a" / "1.png", tmp_path / "a" / "x" / "2.png", tmp_path / "a" / "x" / "3.dat")
    assert find_images([tmp_path / "a" / "**" / "*.png"]) == [
        (tmp_path / "a" / "1.png", "1.png"),
        (tmp_path / "a" / "x" / "2.png", "x/2.png"),
    ]
    assert [name for _, name in find_images([tmp_path / "*" / "x" / "?.*"])] == ["a/x/2.png", "a/x/3.dat"]
    with pytest.raises(InputError, match=r"no file is named like .*\*\.jpg"):
        find_images([tmp_path / "*.jpg"])


def test_addresses_are_searched_as_folders_are(bucket):
    for name in ("in/1.png", "in/deep/2.TIF", "in/notes.txt"):
        bucket.pipe_file(f"/bucket/{name}", b"x")
    deep, flat = ("memory:///bucket/in/deep/2.TIF", "deep/2.TIF"), ("memory:///bucket/in/1.png", "1.png")
    assert find_images(["memory://bucket/in"]) == [flat, deep]
    assert find_images(["memory://bucket/in/deep/2.TIF"]) == [(deep[0], "2.TIF")]
    assert find_images(["memory://bucket/in/*/*.TIF"]) == [deep]
    with pytest.raises(InputError, match="neither a file nor a folder"):
        find_images(["memory://bucket/absent"])
    with pytest.raises(InputError, match="nosuch://x: this kind of address cannot be used"):
        find_images(["nosuch://x"])


def test_clutter_is_passed_by_and_other_images_are_counted(tmp_path, caplog):
    names = ("._a.png", ".hidden/b.png", "__MACOSX/c.png", "Thumbs.db", "x.webp", "y.nd2", "z.ND2", "read.me")
    touch(tmp_path / "a.png", *(tmp_path / name for name in names))
    assert [name for _, name in find_images([tmp_path])] == ["a.png"]
    assert find_images([tmp_path / "*.png"]) == [(tmp_path / "a.png", "a.png")]
    assert "3 files passed by: .nd2 2, .webp 1; read are" in caplog.text
    assert find_images([tmp_path / "._a.png"]) == [(tmp_path / "._a.png", "._a.png")]
