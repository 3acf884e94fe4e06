"""Boxes joined with components: drawn shapes whose outcome is known."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bccd_d2.conversion.annotated import fit_boxes
from bccd_d2.conversion.box_classes import BoxClasses
from bccd_d2.conversion.classes import ClassTable
from bccd_d2.conversion.importers.common import ImportedCell, ImportedImage
from bccd_d2.conversion.pairs import ImageRecord
from bccd_d2.errors import InputError
from bccd_d2.segmentation.box_matching import cut_by_boxes, match_boxes
from bccd_d2.segmentation.instances import InstanceRule, label_instances

HEIGHT, WIDTH = 120, 200
RECORD = ImageRecord(1, "a", "a.png", Path("a.png"), HEIGHT, WIDTH)
TABLE = ClassTable(
    "bbbc041",
    {
        "red blood cell": "RBC",
        "ring": "infected RBC",
        "leukocyte": "WBC",
        "difficult": "ignore",
        "dirt": "drop",
    },
    default="RBC",
)
RED, INFECTED, WHITE = 1, 2, 3


def draw(*discs: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for x, y, radius in discs:
        cv2.circle(mask, (x, y), radius, 255, -1)
    return label_instances(mask, InstanceRule(min_area=20)).labels


def around(*discs: tuple[int, int, int]) -> list[tuple[int, int, int, int]]:
    return [(x - r, y - r, x + r + 1, y + r + 1) for x, y, r in discs]


def boxes_of(names: list[str], corners: list, difficult: list[bool] | None = None) -> ImportedImage:
    flags = difficult or [False] * len(names)
    cells = [ImportedCell(n, box=c, unsure=d) for n, c, d in zip(names, corners, flags, strict=True)]
    return ImportedImage("a", Path("boxes.json"), cells)


def assign(labels: np.ndarray, boxes: ImportedImage | None, **changes: object):
    return BoxClasses(replace(TABLE, **changes))(replace(RECORD, annotations=boxes), labels)


def area(assignment, label: int) -> int:
    return int((assignment.labels == label).sum())


def test_boxes_are_clipped_and_slips_are_dropped():
    corners = [(0, 0, WIDTH, HEIGHT), (-5, 90, 20, 130), (40, 40, 41, 60), (300, 10, 340, 50)]
    counts = Counter()
    cells, fitted = fit_boxes(boxes_of(["ring"] * 4, corners).cells, RECORD, counts)
    assert fitted.tolist() == [[0, 0, WIDTH, HEIGHT], [0, 90, 20, 120]]
    assert [cell.box for cell in cells] == corners[:2]
    assert counts == {"boxes under 3 pixels or outside the image, dropped": 2}


A, B = (30, 30, 15), (90, 30, 15)
OVERLAPPING = ((60, 60, 20), (92, 60, 20))


def test_each_component_gets_the_class_of_its_box():
    labels = draw(A, B)
    result = assign(labels, boxes_of(["leukocyte", "ring"], around(B, A)))
    assert result.category_ids == {1: INFECTED, 2: WHITE}
    assert np.array_equal(result.labels, labels)
    assert result.counts == {"boxes": 2, "boxes with a component of their own": 2}


def test_the_corner_of_a_box_belongs_to_a_neighbour():
    """A large cell reaches into the corner of a small cell's box with more pixels than the small cell has."""
    small, large = (108, 88, 10), (60, 60, 42)
    labels = draw(small, large)
    box = (82, 66, 120, 100)
    window = labels[box[1] : box[3], box[0] : box[2]]
    big, little = labels[60, 60], labels[90, 110]
    assert big != little
    assert (window == big).sum() > (window == little).sum()
    match = match_boxes(labels, np.array([box]))
    assert match.claimed.tolist() == [little]


def test_a_component_that_two_boxes_share_is_cut_between_them():
    labels = draw(*OVERLAPPING)
    assert labels.max() == 1
    result = assign(labels, boxes_of(["ring", "red blood cell"], around(*OVERLAPPING)))
    assert result.category_ids == {1: INFECTED, 2: RED}
    assert np.array_equal(result.labels > 0, labels > 0)
    # The drawing is symmetric about column 76, so each cell has its half, a column on the line aside.
    assert (result.labels[:, :75][labels[:, :75] > 0] == 1).all()
    assert (result.labels[:, 78:][labels[:, 78:] > 0] == 2).all()
    assert result.counts["components shared by several boxes, cut"] == 1
    assert result.counts["boxes sharing a component"] == 2
    assert not result.ignored


def test_a_shared_component_stays_whole_where_the_table_says_so():
    labels = draw(*OVERLAPPING)
    result = assign(labels, boxes_of(["ring", "ring"], around(*OVERLAPPING)), shared="whole")
    np.testing.assert_array_equal(result.labels, labels)
    assert result.category_ids == {1: INFECTED}


def test_the_cell_without_box_in_a_merged_component_is_cut_off():
    """Three discs in a row, a box only round the first: what lies beyond it is a component without box."""
    row = ((40, 60, 18), (72, 60, 18), (104, 60, 18))
    labels = draw(*row, (170, 60, 18))
    result = assign(
        labels, boxes_of(["ring", "red blood cell"], around(row[0], (170, 60, 18))), without_box="drop"
    )
    assert sorted(result.category_ids.values()) == [RED, INFECTED]
    label = next(label for label, category in result.category_ids.items() if category == INFECTED)
    columns = np.flatnonzero((result.labels == label).any(axis=0))
    assert columns[0] == 22
    assert 54 <= columns[-1] <= 62
    assert result.counts["rests cut off beyond the boxes"] == 1
    assert result.counts["components reaching out of their only box, cut"] == 1
    assert result.counts["components without box: drop"] == 1


@pytest.mark.parametrize(
    ("outcome", "category_ids", "ignored"),
    [
        ("keep", {1: INFECTED, 2: RED}, set()),
        ("ignore", {1: INFECTED}, {2}),
        ("drop", {1: INFECTED}, set()),
    ],
)
def test_a_component_without_box(outcome, category_ids, ignored):
    result = assign(draw(A, B), boxes_of(["ring"], around(A)), without_box=outcome)
    assert (result.category_ids, result.ignored) == (category_ids, ignored)
    assert result.counts[f"components without box: {outcome}"] == 1


def test_a_box_without_component_becomes_an_ignore_region_around_the_cells():
    labels = draw(A)
    result = assign(
        labels, boxes_of(["ring", "ring"], [*around(A), (40, 10, 60, 30)]), without_component="ignore"
    )
    assert (result.category_ids, result.ignored) == ({1: INFECTED}, {2})
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[10:30, 40:60] = True
    assert np.array_equal(result.labels == 2, expected & (labels == 0))
    assert np.array_equal(result.labels == 1, labels == 1)


def test_further_components_in_a_box_are_joined():
    """A broken cell: a large part and two small ones in one box."""
    labels = draw((60, 60, 14), (60, 85, 5), (82, 60, 4))
    result = assign(labels, boxes_of(["ring"], [(44, 44, 88, 92)]))
    assert result.counts["further components in a box, joined"] == 2
    (label,) = result.category_ids
    assert np.array_equal(result.labels == label, labels > 0)
    assert result.category_ids[label] == INFECTED


def test_a_cell_in_many_pieces_is_found_by_their_sum():
    """A schizont: no piece fills a fifth of the box, together they do."""
    merozoites = [(x, y, 6) for x in (50, 70, 90) for y in (50, 70, 90)]
    labels = draw(*merozoites)
    result = assign(labels, boxes_of(["ring"], [(40, 40, 101, 101)]))
    assert list(result.category_ids.values()) == [INFECTED]
    assert area(result, next(iter(result.category_ids))) == (labels > 0).sum()


def test_boxes_flagged_as_difficult_are_regions_to_ignore():
    result = assign(draw(A), boxes_of(["ring"], around(A), difficult=[True]), without_box="drop")
    assert (result.category_ids, result.ignored) == ({}, {1})


def test_an_image_that_nobody_drew_boxes_for():
    with pytest.raises(InputError, match=r"a\.png: no boxes for it"):
        assign(draw(A), None)
    result = assign(draw(A, B), None, image_without_boxes="keep")
    assert result.category_ids == {1: RED, 2: RED}
    assert result.counts == {"images without boxes": 1, "components without box: keep": 2}


CORNERS = st.tuples(
    st.integers(0, WIDTH - 3), st.integers(0, HEIGHT - 3), st.integers(3, 60), st.integers(3, 60)
)


@settings(max_examples=40, deadline=None)
@given(
    discs=st.lists(
        st.tuples(st.integers(0, WIDTH), st.integers(0, HEIGHT), st.integers(3, 25)), min_size=0, max_size=8
    ),
    corners=st.lists(CORNERS, max_size=8),
)
def test_no_pixel_of_a_cell_is_lost_whatever_the_boxes(discs, corners):
    labels = draw(*discs)
    boxes = boxes_of(["ring"] * len(corners), [(x, y, x + w, y + h) for x, y, w, h in corners])
    result = assign(labels, boxes, without_component="ignore")
    present = set(np.unique(result.labels)) - {0}
    assert present <= set(result.category_ids) | result.ignored
    assert not result.ignored & set(result.category_ids)
    assert (result.labels[labels > 0] > 0).all()


def test_each_box_of_a_cut_gets_a_connected_piece():
    inside = np.zeros((60, 100), bool)
    inside[20:40, 5:95] = True
    boxes = np.array([[5, 20, 35, 40], [35, 20, 65, 40], [65, 20, 95, 40]])
    pieces = cut_by_boxes(inside, boxes)
    assert set(np.unique(pieces)) == {0, 1, 2, 3}
    assert np.array_equal(pieces > 0, inside)
    assert [cv2.connectedComponents((pieces == n).astype(np.uint8))[0] for n in (1, 2, 3)] == [2, 2, 2]
    # Along a bar of even width, the nearest centre changes exactly where the boxes meet.
    assert [int((pieces == n).sum()) for n in (1, 2, 3)] == [600, 600, 600]
