"""Each flag appears when an image gets worse step by step, and none on ordinary images."""

import cv2
import numpy as np
import pytest

from bccd_d2.inference.magnification import Magnification
from bccd_d2.inference.quality import assess_quality, sharpness
from bccd_d2.io.sources import ArraySource
from bccd_d2.structures.cells import Cells
from bccd_d2.synthetic import draw_smear
from tests.inference.drawn_cells import disc

DIAMETER = 92.0


@pytest.fixture(scope="module")
def smear():
    """A synthetic field (900, 1200, 3) BGR, its background not quite white, and its cells, all of class 0."""
    drawn = draw_smear(5, 1200, 900)
    return cv2.convertScaleAbs(drawn.image, alpha=0.85), Cells.from_label_image(
        drawn.instances.astype(np.int32)
    )


def flags(image, cells, *, scores=0.95, magnification=None):
    cells.scores[:] = scores
    return assess_quality(ArraySource(image), cells, [0], magnification, DIAMETER).flags


def appears(flag, steps):
    """Whether no step has a flag but ``flag``, the first has none, the last has it, and it never goes away."""
    found = [flag in step for step in steps]
    assert not steps[0]
    assert all(set(step) <= {flag} for step in steps)
    return found == sorted(found) and found[-1]


def test_blur(smear):
    image, cells = smear
    steps = [cv2.GaussianBlur(image, (0, 0), s) if s else image for s in (0, 1, 2, 4, 6, 8)]
    assert appears("blurred", [flags(step, cells) for step in steps])
    values = [sharpness(step, DIAMETER) for step in steps]
    assert values == sorted(values, reverse=True)


def test_sharpness_depends_neither_on_exposure_nor_on_magnification(smear):
    image, _ = smear
    value = sharpness(image, DIAMETER)
    assert sharpness(cv2.convertScaleAbs(image, alpha=0.5, beta=20), DIAMETER) == pytest.approx(
        value, rel=0.05
    )
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert sharpness(small, DIAMETER / 2) == pytest.approx(value, rel=0.05)
    assert sharpness(np.full((200, 200, 3), 220, np.uint8), DIAMETER) is None


@pytest.mark.parametrize(
    ("flag", "gains"), [("overexposed", (1, 1.1, 1.3, 1.6)), ("underexposed", (1, 0.8, 0.6, 0.4))]
)
def test_exposure(smear, flag, gains):
    image, cells = smear
    assert appears(flag, [flags(cv2.convertScaleAbs(image, alpha=gain), cells) for gain in gains])


def test_stain(smear):
    """Towards green, which no Romanowsky stain has, on a background that stays grey."""
    image, cells = smear
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
    dark = cv2.GaussianBlur((image[..., 1] < 200).astype(np.float32), (0, 0), 1)
    steps = []
    for shift in (0, 10, 25, 50):
        moved = lab.astype(np.float32)
        moved[..., 1] -= shift * dark
        steps.append(flags(cv2.cvtColor(np.clip(moved, 0, 255).astype(np.uint8), cv2.COLOR_LAB2BGR), cells))
    assert appears("unusual stain", steps)


def test_density():
    def field(number):
        masks = [disc(46)] * number
        origins = [(100 * (k % 4), 100 * (k // 4 % 4)) for k in range(number)]
        cells = Cells.from_masks(400, 400, masks, origins=origins, scores=[0.9] * number)
        return assess_quality(ArraySource(np.full((400, 400, 3), 200, np.uint8)), cells, [0]).flags

    assert [field(number) for number in (0, 1, 2, 8, 16, 24)] == [
        *(("mostly empty",), ("mostly empty",), (), (), (), ("crowded",))
    ]


def test_scores_and_sizes(smear):
    image, cells = smear
    assert appears("low scores", [flags(image, cells, scores=s) for s in (0.95, 0.8, 0.65, 0.55)])
    assert appears(
        "unusual cell size", [flags(image, cells, magnification=Magnification(s)) for s in (1, 1.2, 1.5, 3)]
    )
    assert "unusual cell size" in flags(image, cells, magnification=Magnification(0.4))


def test_red_cells_that_the_border_cuts_say_nothing_of_the_size():
    """Four discs inside, six halves at the border."""
    whole = disc(46)
    masks = [whole] * 4 + [whole[len(whole) // 2 :]] * 6
    origins = [(100 + 100 * (k % 2), 100 + 100 * (k // 2)) for k in range(4)] + [
        (60 * k, 0) for k in range(6)
    ]
    cells = Cells.from_masks(400, 400, masks, origins=origins)
    image = ArraySource(np.full((400, 400, 3), 200, np.uint8))
    assert assess_quality(image, cells, [0], None, 92.0).size_ratio == pytest.approx(1, abs=0.02)
    assert assess_quality(image, cells[1:], [0], None, 92.0).size_ratio is None  # of three


@pytest.mark.parametrize(
    ("origin", "unsure"),
    [("estimated", False), ("estimated, unsure: few cells", True)],
)
def test_estimated_magnification(smear, origin, unsure):
    image, cells = smear
    found = flags(image, cells, magnification=Magnification(1.0, origin, DIAMETER))
    assert found == (("magnification unsure",) if unsure else ())


def test_a_large_image_is_looked_at_in_blocks(smear):
    image, cells = smear
    large = np.tile(image, (3, 3, 1))
    whole = assess_quality(ArraySource(image), cells, [0], None, DIAMETER)
    found = assess_quality(ArraySource(large), Cells.from_masks(2700, 3600, []), [0], None, DIAMETER)
    assert found.sharpness == pytest.approx(whole.sharpness, rel=0.1)
    assert found.flags == ("mostly empty",)
    blurred = ArraySource(cv2.GaussianBlur(large, (0, 0), 8))
    assert "blurred" in assess_quality(blurred, Cells.from_masks(2700, 3600, []), [0], None, DIAMETER).flags


@pytest.mark.real_data
def test_ordinary_images_are_not_flagged(real_pairs_root, real_voc_root):
    pairs = sorted((real_pairs_root).rglob("original/*"))[::6]
    others = sorted(real_voc_root.rglob("*.jpg"))[::15]
    for path in [*pairs, *others]:
        image = cv2.imread(str(path))
        empty = Cells.from_masks(*image.shape[:2], [])
        assert assess_quality(ArraySource(image), empty, [0], None, DIAMETER).flags == ("mostly empty",), path
