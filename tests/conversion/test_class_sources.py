"""From a data set's YAML, its boxes and the command line to classes in COCO JSON."""

import json
import logging
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from bccd_d2.conversion.convert import ConversionOptions, convert_dataset
from bccd_d2.conversion.dataset_spec import DatasetSpec, read_spec
from bccd_d2.conversion.pairs import find_pairs
from bccd_d2.conversion.splits import SplitPlan, plan_split, read_splits
from bccd_d2.errors import InputError
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.dataset_files import PARTS, annotation_file
from bccd_d2.structures.rle import decode_segmentation
from tests.conversion.drawn import draw_image, write, write_pairs
from tools.convert_bccd import main

HEIGHT, WIDTH = 120, 160
DISC = {"minimum": {"r": 40, "c": 60}, "maximum": {"r": 81, "c": 101}}
ALL_TRAIN = SplitPlan(ratios=(1.0, 0.0, 0.0))


def write_bbbc041(path: Path, stems: list[str], category: str = "ring") -> Path:
    """A box around the whole disc of :func:`tests.conversion.drawn.draw_mask` for seed 0."""
    entries = [
        {
            "image": {"pathname": f"/images/{stem}.png", "shape": {"r": HEIGHT, "c": WIDTH, "channels": 3}},
            "objects": [{"category": category, "bounding_box": DISC}],
        }
        for stem in stems
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries))
    return path


def write_voc(root: Path, stem: str, objects: list[tuple[str, tuple[int, int, int, int]]]) -> None:
    """A VOC annotation and its image with a disc in each box, given as VOC writes it."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    parts = []
    for name, (x0, y0, x1, y1) in objects:
        cv2.ellipse(
            mask,
            ((x0 + x1) // 2 - 1, (y0 + y1) // 2 - 1),
            ((x1 - x0) // 2, (y1 - y0) // 2),
            0,
            0,
            360,
            255,
            -1,
        )
        corners = f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        parts.append(f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>")
    write(root / "JPEGImages" / f"{stem}.jpg", draw_image(mask))
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{size}{''.join(parts)}</annotation>")


@pytest.fixture()
def voc_root(tmp_path: Path) -> Path:
    root = tmp_path / "set" / "BCCD"
    for number in range(4):
        cells = [("RBC", (10, 10, 50, 50)), ("WBC", (70, 40, 130, 100)), ("Platelets", (20, 80, 36, 96))]
        write_voc(root, f"smear_{number}", cells)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for part, stems in (("train", "smear_0\nsmear_3\n"), ("val", "smear_1\n"), ("test", "smear_2\n")):
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text(stems)
    return root


def convert(root: Path, out: Path, spec: DatasetSpec, boxes: Path | None = None, **settings):
    options = ConversionOptions(spec, split=settings.pop("split", ALL_TRAIN))
    return convert_dataset(root, out, options, boxes=boxes, **settings)


@pytest.mark.parametrize("workers", [1, 2])
def test_classes_of_boxes_reach_the_json(
    tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_pairs(tmp_path / "data", ["a", "b"])
    boxes = write_bbbc041(tmp_path / "boxes.json", ["a", "b"])
    paths = ["--root", str(root), "--output", str(tmp_path / "out"), "--boxes", str(boxes)]
    options = ["--spec", "bbbc041_infected", "--ratios", "1", "0", "0", "--workers", str(workers)]
    with caplog.at_level(logging.INFO):
        assert main([*paths, *options]) == 0
    document = read_coco(annotation_file(tmp_path / "out", "train"))
    assert [c["name"] for c in document["categories"]] == ["RBC", "infected RBC", "WBC", "Platelets"]
    assert Counter(a["category_id"] for a in document["annotations"]) == {1: 2, 2: 2}
    infected = [a["bbox"] for a in document["annotations"] if a["category_id"] == 2]
    assert infected[0] == [60, 40, 41, 41]
    assert not any("weak" in a or a["iscrowd"] for a in document["annotations"])
    assert "boxes with a component of their own: 2" in caplog.text
    assert "components without box: keep: 2" in caplog.text
    written = document["info"]["options"]["class_source"]
    assert written == {"source": "boxes", "weak": False}
    table = document["info"]["options"]["spec"]["classes"]
    assert (table["categories"]["ring"], table["shared"]) == ("infected RBC", "cut")


def test_ignored_cells_are_regions_of_every_category(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data", ["a"])
    boxes = write_bbbc041(tmp_path / "boxes.json", ["a"], "difficult")
    convert(root, tmp_path / "out", read_spec("bbbc041"), boxes)
    annotations = read_coco(annotation_file(tmp_path / "out", "train"))["annotations"]
    assert [(a["category_id"], a["iscrowd"]) for a in annotations] == [(1, 0), (1, 1), (2, 1), (3, 1)]
    assert len({a["id"] for a in annotations}) == 4
    assert annotations[1]["segmentation"] == annotations[2]["segmentation"]


def test_the_official_lists_and_weak_masks_of_a_voc_set(voc_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # The root may lie above the folder that has the lists and the annotations.
    summary = convert(voc_root.parent, out, read_spec("bccd_voc"), split=SplitPlan("official"))
    assert read_splits(out / "splits.json") == {
        "train": ["smear_0", "smear_3"],
        "val": ["smear_1"],
        "test": ["smear_2"],
    }
    assert [summary.images[part] for part in PARTS] == [2, 1, 1]
    document = read_coco(annotation_file(out, "val"))
    assert [c["name"] for c in document["categories"]] == ["RBC", "WBC", "Platelets"]
    assert document["info"]["options"]["class_source"]["weak"] is True
    assert [(a["category_id"], a["weak"], a["iscrowd"]) for a in document["annotations"]] == [
        (1, True, 0),
        (2, True, 0),
        (3, True, 0),
    ]
    # The boxes are those that were drawn, from pixel 10 to pixel 50 in VOC's way of counting, not those of the guess.
    assert [a["bbox"] for a in document["annotations"]] == [
        [9, 9, 41, 41],
        [69, 39, 61, 61],
        [19, 79, 17, 17],
    ]
    white = decode_segmentation(document["annotations"][1]["segmentation"], HEIGHT, WIDTH) > 0
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(drawn, (99, 69), (30, 30), 0, 0, 360, 1, -1)
    assert (white & (drawn > 0)).sum() / (white | (drawn > 0)).sum() > 0.9


def test_a_broken_annotation_ends_the_run_or_is_left_out(voc_root: Path, tmp_path: Path) -> None:
    (voc_root / "Annotations" / "smear_1.xml").write_bytes(b"")
    (voc_root / "Annotations" / "smear_2.xml").unlink()
    spec = read_spec("bccd_voc")
    with pytest.raises(InputError, match=r"smear_1\.xml: empty file"):
        convert(voc_root, tmp_path / "out", spec)
    summary = convert(voc_root, tmp_path / "out", spec, skip_bad=True)
    assert summary.images["train"] == 2
    assert [fault.split(": ")[1] for fault in summary.faults] == [
        "empty file, expected a VOC annotation",
        "no boxes for it; expected some, or 'image_without_boxes",
    ]


def test_a_box_on_bare_background_is_a_region_to_ignore(voc_root: Path, tmp_path: Path) -> None:
    path = voc_root / "Annotations" / "smear_1.xml"
    empty = "<bndbox><xmin>60</xmin><ymin>5</ymin><xmax>90</xmax><ymax>35</ymax></bndbox>"
    path.write_text(
        path.read_text().replace("</annotation>", f"<object><name>RBC</name>{empty}</object></annotation>")
    )
    summary = convert(voc_root, tmp_path / "out", read_spec("bccd_voc"))
    assert summary.events["boxes for which no weak mask was found: ignore"] == 1
    regions = [
        a for a in read_coco(annotation_file(tmp_path / "out", "train"))["annotations"] if a["iscrowd"]
    ]
    assert [a["bbox"] for a in regions] == [[59, 4, 31, 31]] * 3
    assert sorted(a["category_id"] for a in regions) == [1, 2, 3]


@pytest.mark.parametrize(
    ("spec", "boxes", "message"),
    [
        ("kaggle", "boxes.json", r"boxes\.json: boxes, but the dataset spec has no section 'classes'"),
        ("bbbc041", None, "the dataset spec takes classes from boxes; expected --boxes"),
        ("bbbc041", "gone.json", r"gone\.json: no such file"),
        ("bccd_voc", "gone", "gone: no such file or folder"),
        ("bccd_voc", None, "no Annotations here or below"),
    ],
)
def test_boxes_and_table_belong_together(tmp_path: Path, spec: str, boxes: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(
            write_pairs(tmp_path, ["a"]),
            tmp_path / "out",
            read_spec(spec),
            tmp_path / boxes if boxes else None,
        )


def test_stains_are_told_apart_without_masks(tmp_path: Path) -> None:
    """Cells of three stains on the same background: nothing but the cells tells them apart."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(mask, (80, 60), 30, 1, -1)
    for number in range(9):
        colour = [(150, 60, 110), (110, 60, 200), (60, 120, 60)][number % 3]
        pixels = np.where(mask[..., None] > 0, np.uint8(colour), np.uint8([235, 240, 238]))
        write(tmp_path / "JPEGImages" / f"{number}.png", pixels)
    spec = read_spec("bccd_voc")
    pairs = find_pairs(tmp_path, folders=spec.folders)
    groups = plan_split(pairs, SplitPlan("stain", clusters=3), spec.mask).groups
    assert groups == {str(number): f"stain {number % 3 + 1}" for number in range(9)}


@pytest.mark.real_data
def test_the_real_pairs_with_their_boxes(real_pairs_root: Path, tmp_path: Path) -> None:
    spec = read_spec("bbbc041_infected")
    boxes = real_pairs_root / "bbbc041_boxes.json"
    summary = convert(real_pairs_root, tmp_path, spec, boxes, split=SplitPlan(max_images=8))
    events = summary.events
    assert sum(summary.images.values()) == 8
    own, shared = events["boxes with a component of their own"], events["boxes sharing a component"]
    reaching = events["components reaching out of their only box, cut"]
    assert own + shared + reaching + events["boxes without component: ignore"] == events["boxes"]
    assert own > 0.75 * events["boxes"]
