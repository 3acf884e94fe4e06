"""The estimate of the diameter of red cells, with a detector that knows discs of some sizes only."""

import cv2
import numpy as np
import pytest

from bccd_d2.inference.magnification import DiameterEstimate, DiameterEstimator, combine
from bccd_d2.io.sources import ArraySource
from bccd_d2.structures.detections import Detections

TRAINING = 40.0
BACKGROUND, RED, WHITE = 230, 120, 40


class DiscDetector:
    """Finds dark discs of 0.5 to 1.2 training diameters with score 0.95, class 0 or, if they are very dark, class 1.

    Discs of other sizes are missed or, with ``parts``, found in pieces of a training diameter or less and of all
    sizes, as networks do.
    """

    def __init__(self, parts=False):
        self.parts, self.looks = parts, []

    def __call__(self, image):
        self.looks.append(image.shape[:2])
        dark = (image[..., 1] < 180).astype(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(dark)
        boxes, scores, classes = [], [], []
        for label, (x, y, w, h, _) in enumerate(stats[1:], start=1):
            size = max(w, h) / TRAINING
            known = 0.5 <= size <= 1.2
            if known:
                boxes.append((x, y, x + w, y + h))
                scores.append(0.95)
            elif self.parts and size > 1.2:
                side = TRAINING * (0.3 + 0.3 * (label % 4))
                boxes.append((x, y, x + side, y + side))
                scores.append(0.6)
            else:
                continue
            classes.append(int(image[..., 1][labels == label].mean() < 80))
        return detections(image, boxes, scores, classes)


def detections(image, boxes, scores, classes):
    """Boxes xyxy are made larger than the cells in them, as networks draw them."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    margin = (boxes[:, 2:] - boxes[:, :2]) * (1 / 0.9 - 1) / 2
    return Detections(
        *image.shape[:2],
        np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1),
        np.array(classes, np.int64),
        np.array(scores, np.float32),
        np.ones((len(boxes), 1, 1), np.float32),
    )


def estimate(detector, source, classes=(0, 1)):
    return DiameterEstimator(detector, TRAINING, classes).estimate(source)


def field(diameter, side=None, gap=1.3, white=()):
    """An image with discs of one diameter in rows and columns, ``gap`` diameters apart."""
    side = side or round(12 * diameter)
    image = np.full((side, side, 3), BACKGROUND, np.uint8)
    for index, (x, y) in enumerate(
        (x, y)
        for y in np.arange(gap * diameter, side, gap * diameter)
        for x in np.arange(gap * diameter, side, gap * diameter)
    ):
        centre = (round(float(x)), round(float(y)))
        level = WHITE if index in white else RED
        radius = diameter * (0.8 if index in white else 0.5)
        cv2.circle(image, centre, round(radius), (level, level, level), cv2.FILLED)
    return ArraySource(image)


@pytest.mark.parametrize("diameter", [20, 30, 40, 57, 80, 160, 300, 400])
@pytest.mark.parametrize("parts", [False, True])
def test_discs_of_any_size_are_measured(diameter, parts):
    found = estimate(DiscDetector(parts), field(diameter))
    assert found.diameter == pytest.approx(diameter, rel=0.1)
    assert not found.doubt
    assert found.cells >= 8


def test_cells_that_the_part_cuts_do_not_bias_the_median():
    # Most discs that a part shows are cut at this gap.
    found = estimate(DiscDetector(), field(60, gap=1.1))
    assert found.diameter == pytest.approx(60, rel=0.06)


def test_white_cells_do_not_count_where_the_classes_tell():
    source = field(40, 600, gap=1.9, white=range(0, 200, 2))
    one = estimate(DiscDetector(), source, [0])
    assert one.diameter == pytest.approx(40, rel=0.06)
    assert not one.doubt


def test_an_image_without_cells_has_no_diameter():
    found = estimate(DiscDetector(), ArraySource(np.full((300, 400, 3), 230, np.uint8)))
    assert found == DiameterEstimate(None, 0, "too few cells found")
    assert str(found) == "unknown (too few cells found)"


def test_few_cells_are_unsure():
    image = np.full((150, 150, 3), BACKGROUND, np.uint8)
    for centre in ((50, 50), (100, 100)):
        cv2.circle(image, centre, 20, (RED, RED, RED), cv2.FILLED)
    found = estimate(DiscDetector(), ArraySource(image))
    assert found.diameter == pytest.approx(40, rel=0.08)
    assert found.doubt and "few cells" in str(found)


def test_two_looks_that_disagree_are_unsure():
    """Nine boxes of 30 px at the scale 0.75, which are 40 px; four of 45 px at 0.8 of that scale, which are 75 px."""
    few = [[(x, y, x + side, y + side) for x in places for y in places]
           for side, places in ((30, (5, 42, 80)), (45, (5, 65)))]  # fmt: skip
    answers = iter(few)

    def detect(image):
        boxes = next(answers)
        return detections(image, boxes, [0.9] * len(boxes), [0] * len(boxes))

    source = ArraySource(np.full((600, 600, 3), 200, np.uint8))
    found = estimate(detect, source)
    assert found.diameter == pytest.approx(40) and found.cells == 9
    assert found.doubt == "two scales disagree: 40 and 75 px"


def test_images_together_have_the_median_of_the_sure_ones():
    sure = [DiameterEstimate(d, 9) for d in (80.0, 90.0, 85.0)]
    unsure = DiameterEstimate(30.0, 3, "few cells")
    assert combine([*sure, unsure, DiameterEstimate(None, 0, "x")]) == DiameterEstimate(85.0, 27)
    assert combine([unsure]) == unsure
    assert combine([DiameterEstimate(None, 0, "x")]).diameter is None
    assert combine([sure[0], DiameterEstimate(160.0, 9)]).doubt == "the images disagree: 80 to 160 px"
    # Of five images one may be off; two of another magnification are not by chance.
    four = [DiameterEstimate(float(d), 9) for d in (88, 90, 92, 95)]
    assert combine([*four, DiameterEstimate(60.0, 9)]) == DiameterEstimate(90.0, 45)
    mixed = combine([*four[:3], DiameterEstimate(40.0, 9), DiameterEstimate(42.0, 9)])
    assert mixed.doubt == "the images disagree: 40 to 92 px"
