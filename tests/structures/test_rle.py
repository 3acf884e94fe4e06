"""Run-length codes are read as pycocotools reads them, and broken ones are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from bccd_d2.errors import InputError
from bccd_d2.structures.rle import decode_columns, decode_rle, decode_segmentation, encode_labels, run_lengths

MASKS = arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1))


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_every_form_of_a_mask_decodes_to_it(mask: np.ndarray) -> None:
    height, width = mask.shape
    compressed = coco_mask.encode(np.asfortranarray(mask))
    assert np.array_equal(decode_rle(compressed), mask)
    columns, first = decode_columns(compressed, height, width)
    filled = np.flatnonzero(mask.any(axis=0))
    assert (first, columns.shape[1]) == (filled[0], np.ptp(filled) + 1) if filled.size else (0, 0)
    assert np.array_equal(columns, mask[:, first : first + columns.shape[1]])
    text = {"size": [height, width], "counts": compressed["counts"].decode()}
    assert np.array_equal(decode_segmentation(text, height, width), mask)
    plain = {"size": [height, width], "counts": run_lengths(text).tolist()}
    assert np.array_equal(decode_segmentation(plain, height, width), mask)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=[chr(c) for c in range(33, 127)], max_size=12), st.integers(1, 6), st.integers(1, 6))
def test_any_text_decodes_or_is_refused(counts: str, height: int, width: int) -> None:
    try:
        mask = decode_rle({"size": [height, width], "counts": counts})
    except InputError:
        return
    assert mask.shape == (height, width)
    assert set(np.unique(mask)) <= {0, 1}


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [4, 5], "counts": "04"}, r"RLE of size \[4, 5\], expected \[4, 4\]"),
        ({"counts": "04"}, "RLE of size None"),
        ({"size": [4, 4], "counts": [3, 3]}, "cover 6 pixels, expected 4 x 4"),
        ({"size": [4, 4], "counts": [-1, 17]}, "expected a string or a list of lengths"),
        ({"size": [4, 4], "counts": None}, "expected a string or a list"),
        ({"size": [4, 4], "counts": "é"}, "not ASCII"),
        ({"size": [4, 4], "counts": ""}, "compressed form"),
        ({"size": [4, 4], "counts": "ooooooooo0"}, "too many characters"),
        ([], "expected RLE or a list of polygons"),
        (None, "expected RLE or a list of polygons"),
        ([[1, 2, 3, 4]], "three points or more"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three points or more"),
        ([[0, 0, 1e9, 0, 0, 3]], "coordinate 1000000000.0"),
        ([[0, 0, float("nan"), 0, 0, 3]], "coordinate nan"),
        ([["0", 0, 1, 0, 0, 3]], "coordinate '0'"),
    ],
)
def test_what_cannot_be_decoded_is_refused(segmentation: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_segmentation(segmentation, 4, 4)  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 7]))
)
def test_all_labels_of_a_map_are_encoded_as_the_plain_loop_does(labels: np.ndarray) -> None:
    instances = encode_labels(labels)
    assert [instance.label for instance in instances] == [v for v in np.unique(labels) if v != 0]
    for instance in instances:
        mask = np.asfortranarray(labels == instance.label, np.uint8)
        expected = coco_mask.encode(mask)
        assert instance.segmentation["counts"].encode() == expected["counts"]
        assert instance.segmentation["size"] == list(labels.shape)
        assert instance.bbox == coco_mask.toBbox(expected).tolist()
        assert instance.area == mask.sum()
        edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert instance.border == edge.any()
