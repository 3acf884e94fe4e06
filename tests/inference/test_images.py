import pytest

from bccd_d2.errors import InputError
from bccd_d2.inference.images import find_images


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


def test_one_image_named_twice_is_one_image(tmp_path):
    touch(tmp_path / "1.png")
    assert len(find_images([tmp_path / "1.png", tmp_path])) == 1


def test_two_images_of_one_name_are_refused(tmp_path):
    touch(tmp_path / "a" / "1.png", tmp_path / "b" / "1.png")
    with pytest.raises(InputError, match=r"have the same name 1\.png"):
        find_images([tmp_path / "a", tmp_path / "b"])


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere is neither a file nor a folder"):
        find_images([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no image"):
        find_images([tmp_path])
