"""Images and classes of two sources find each other by name."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bccd_d2.errors import InputError
from bccd_d2.structures.names import match_classes, match_images, normalise_path, stem_of


@pytest.mark.parametrize(
    ("name", "candidates", "expected"),
    [
        ("a/x.png", ["x.png", "a/x.png", "b/x.png"], "a/x.png"),
        ("x.png", ["images/x.png", "images/y.png"], "images/x.png"),
        ("images/x.png", ["x.png", "y.png"], "x.png"),
        ("C:\\Users\\me\\smears\\x.png", ["val/x.png", "val/y.png"], "val/x.png"),
        ("/data/b/x.png", ["a/x.png", "b/x.png"], "b/x.png"),
        ("/data/b/x.png", ["x.png", "b/x.png"], "b/x.png"),
        ("x", ["x.png", "y.png"], "x.png"),
        ("x.png.tif", ["x.png", "y.png"], "x.png"),
        ("x.json", ["x.ome.tif", "y.png"], "x.ome.tif"),
        ("slide.1", ["slide.1.png", "slide.2.png"], "slide.1.png"),
        ("./a//x.png", ["b/x.png", "a/x.png"], "a/x.png"),
        (unicodedata.normalize("NFD", "Blutbild_ä.png"), ["Blutbild_ä.png", "b.png"], "Blutbild_ä.png"),
    ],
)
def test_a_name_means_the_candidate_that_is_nearest(name, candidates, expected):
    assert match_images([name], candidates, where="predictions.json") == {name: expected}


@pytest.mark.parametrize(
    ("names", "candidates", "words"),
    [
        (["x.png"], ["a/x.png", "b/x.png"], "'x.png' can be any of 'a/x.png', 'b/x.png'"),
        (["x.txt"], ["x.png", "x.jpg"], "'x.txt' can be any of 'x.png', 'x.jpg'"),
        (["c/x.png", "d/x.png"], ["x/x.png"], "'c/x.png', 'd/x.png' all match 'x/x.png'"),
        (["z.png", "x.png"], ["x.png"], "'z.png': no such image .* expected names as 'x.png'"),
        (["slide.1"], ["slide.2.png"], "no such image"),
    ],
)
def test_an_ambiguous_or_unknown_name_is_an_error_that_lists_the_candidates(names, candidates, words):
    with pytest.raises(InputError, match="p.json: .*" + words):
        match_images(names, candidates, where="p.json")


def test_a_better_match_takes_the_candidate_and_the_other_name_has_none():
    assert match_images(["a/x.png", "x.jpg"], ["x.png"], where="p", required=False) == {"a/x.png": "x.png"}


@given(st.lists(st.text("abä/", min_size=1, max_size=6).filter(lambda s: s.strip("/")), max_size=8))
def test_every_list_of_names_matches_itself(names):
    paths = {normalise_path(name) + ".png" for name in names}
    assert match_images(paths, paths, where="") == {path: path for path in paths}


def test_a_stem_has_no_folder_and_no_extension():
    assert [stem_of(name) for name in ("a\\b.png", "a/b.OME.TIFF", "b", "b.2", ".b")] == [
        "b",
        "b",
        "b",
        "b.2",
        ".b",
    ]


def test_classes_are_joined_by_name_whatever_their_numbers():
    known = {1: "RBC", 2: "WBC", 3: "Platelets"}
    assert match_classes({0: "WBC", 1: "platelets", 7: "RBC "}, known, where="p") == {0: 2, 1: 3, 7: 1}
    assert match_classes({2: "A"}, {1: "a", 4: "A"}, where="p") == {2: 4}
    assert match_classes([3, 1, 3], known, where="p") == {3: 3, 1: 1}
    assert match_classes({0: "WBC", 1: "blast"}, known, where="p", required=False) == {0: 2}
    for found, words in (
        ({1: "blast"}, "p: class 'blast', expected one of 1 RBC, 2 WBC, 3 Platelets"),
        ([9], "p: class '9', expected one of"),
        ({1: "RBC", 2: "rbc"}, "'RBC', 'rbc' all match 'RBC'"),
    ):
        with pytest.raises(InputError, match=words):
            match_classes(found, known, where="p")
    with pytest.raises(InputError, match="'rbc' can be any of"):
        match_classes({1: "rbc"}, {1: "RBC", 2: "Rbc"}, where="p")
