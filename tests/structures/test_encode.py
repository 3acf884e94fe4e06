"""Run-length codes agree with the plain loop over full frames."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from bccd_d2.structures.encode import encode_labels


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 7]))
)
def test_same_as_the_plain_loop(labels: np.ndarray) -> None:
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
