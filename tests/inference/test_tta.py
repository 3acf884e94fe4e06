import numpy as np
import pytest

from bccd_d2.errors import InputError
from bccd_d2.inference.finder import TestTimeAugmentation
from bccd_d2.inference.tta import View, merge_views, predict_images
from bccd_d2.structures.detections import Detections
from tests.inference.blobs import MASK_SIZE, BlobNetwork, draw

DISCS = [(30, 25, 12), (70, 40, 18), (20, 80, 8), (85, 90, 15)]
HEIGHT, WIDTH = 110, 120


def test_the_views():
    assert TestTimeAugmentation(flip=False, rot90=False).views() == [View()]
    assert len(set(TestTimeAugmentation().views())) == 8
    assert TestTimeAugmentation(rot90=False, scales=(1.0, 2.0)).views() == [
        View(1.0, False), View(1.0, True), View(2.0, False), View(2.0, True)
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"TEST\.TTA\.SCALES.*found \[0\.0\]"):
        TestTimeAugmentation(scales=(0.0,))


@pytest.mark.parametrize("view", TestTimeAugmentation(scales=(1.0, 1.5)).views(), ids=str)
def test_what_a_view_shows_is_put_back_where_it_was(view):
    image = draw(HEIGHT, WIDTH, DISCS)
    # Without symmetry, so that a mirrored or turned mask would not fit.
    image[40:60, 70:75] = 230
    (plain,), (seen,) = (BlobNetwork()([shown]) for shown in (image, view.apply(image)))
    cells, found = plain.paste(), view.undo(seen, HEIGHT, WIDTH).paste()
    assert len(found) == len(DISCS)
    best = cells.ious(found).max(axis=1)
    assert best.min() > (0.97 if view.scale == 1 else 0.9)


def test_eight_views_of_a_network_that_sees_all_alike_change_nothing():
    image = draw(HEIGHT, WIDTH, DISCS)

    def predict(augmentation, most=100):
        (cells,) = predict_images(BlobNetwork(), [image], [(HEIGHT, WIDTH)], augmentation, most)
        return cells

    plain, merged = predict(None), predict(TestTimeAugmentation())
    assert len(merged) == len(plain)
    assert np.allclose(merged.scores, plain.scores, atol=1e-6)
    assert np.allclose(merged.boxes, plain.boxes, atol=1e-3)
    assert plain.ious(merged).max(axis=1).min() > 0.97
    few = predict(TestTimeAugmentation(), most=2)
    assert few.scores.tolist() == merged.scores[:2].tolist()


def detections(*cells):
    """Cells (x0, x1, score, class) that fill their box, which has rows 10 to 30."""
    return Detections(
        40,
        100,
        np.array([[x0, 10, x1, 30] for x0, x1, _, _ in cells], np.float32).reshape(-1, 4),
        np.array([c[3] for c in cells], np.int64),
        np.array([c[2] for c in cells], np.float32),
        np.ones((len(cells), MASK_SIZE, MASK_SIZE), np.float32),
    )


def test_score_box_and_class_of_a_merged_cell():
    merged = merge_views(
        [
            detections((10, 30, 0.9, 1)),
            detections((14, 34, 0.3, 0)),
            detections((12, 32, 0.3, 0)),
            detections(),
        ]
    )
    assert len(merged) == 1
    # (0.9 + 0.3 + 0.3) / 4 views, one of which saw nothing.
    assert merged.scores[0] == pytest.approx(0.375)
    # Class 1 has 0.9 of the scores, class 0 has 0.6.
    assert merged.classes.tolist() == [1]
    # (0.9 * 10 + 0.3 * 14 + 0.3 * 12) / 1.5 = 11.2
    assert merged.boxes[0] == pytest.approx([11.2, 10, 31.2, 30])
    # A pixel belongs to the cell where at least half of the scores say so: what the best view says, 0.9 of 1.5.
    assert merged.windows[0].tolist() == [10, 10, 30, 30]


def test_two_cells_of_one_view_are_never_merged():
    merged = merge_views([detections((10, 30, 0.9, 0), (14, 34, 0.8, 0)), detections((13, 33, 0.7, 0))])
    # The third overlaps both; it goes to the better one.
    assert merged.scores.tolist() == pytest.approx([0.8, 0.4])
    assert len(merge_views([detections((10, 30, 0.9, 0)), detections((40, 60, 0.8, 0))])) == 2


def test_no_view_sees_anything():
    assert len(merge_views([detections(), detections()])) == 0
