"""Dataset spec files say what they mean, or which key is wrong."""

from pathlib import Path

import pytest

from bccd_d2.conversion.classes import ClassTable
from bccd_d2.conversion.dataset_spec import DatasetSpec, known_specs, read_spec
from bccd_d2.conversion.pairs import FolderPair
from bccd_d2.errors import InputError
from bccd_d2.io.masks import MaskRule
from bccd_d2.segmentation.instances import InstanceRule


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_default_is_the_kaggle_file() -> None:
    assert read_spec("kaggle") == DatasetSpec()


def test_everything_a_file_may_say(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        description: mine
        folders: [{image: rgb, mask: seg, image_glob: "*_rgb", mask_glob: "*_seg.png"}]
        mask: {kind: classes, colours: {"#000000": background, "#Ff8000": RBC}, tolerance: 4, max_unlisted: 0.05}
        instances:
          min_area: 30
          min_area_relative: 0.1
          connectivity: 4
          fill_holes: 50
          cut: 0.4
        annotates: {WBC: complete}
        classes: {format: voc, boxes: VOC, categories: {a: RBC}, default: RBC}
        """,
    )
    assert read_spec(path) == DatasetSpec(
        "mine",
        (FolderPair("rgb", "seg", "*_rgb", "*_seg.png"),),
        MaskRule(
            "classes",
            colours=(((0, 0, 0), "background"), ((255, 128, 0), "RBC")),
            tolerance=4,
            max_unlisted=0.05,
        ),
        InstanceRule(30, 0.1, 4, 50, 0.4),
        ClassTable("voc", {"a": "RBC"}, "VOC", "RBC", order=("WBC",)),
        annotates={"WBC": "complete"},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("masks: {}", "unknown key 'masks', expected some of description, folders, mask"),
        ("folders: [{mask: a}]", "folders: mask given"),
        ("folders: [{image: a}]", "'a' without masks, but mask: kind: binary"),
        ("mask: {kind: none}", "'original' with masks, but mask: kind: none"),
        ("folders: [{image: a, mask: 3}]", "folders: mask: 3, expected a text"),
        ("mask: {threshold: high}", "mask: threshold: 'high', expected a number"),
        ("mask: {kind: classes, values: [1]}", "expected a mapping to class names"),
        ("mask: {kind: classes, values: {a: RBC}}", "values: 'a', expected whole numbers"),
        ("mask: {kind: classes, colours: {red: RBC}}", "colours: 'red', expected '#rrggbb'"),
        ("instances: {min_area: 1.5}", "instances: min_area: 1.5, expected a whole number"),
        ("instances: {min_area: 0}", "instances: min_area 0, expected at least 1 pixel"),
        ("classes: VOC", "classes: 'VOC', expected a mapping"),
        ("classes: {format: voc}", "classes: no key 'categories'"),
        ("classes: {shred: watershed}", "unknown key 'shred', expected some of format, "),
        ("classes: {format: coco, categories: {a: b}}", "format: 'coco', expected one of voc, bbbc041, yolo"),
        ("classes: {format: voc, categories: {RBC: 1}}", "'RBC': 1, expected a class name"),
        ("classes: {format: voc, categories: {a: b}, default: ignore}", "'ignore', expected a class name"),
        (
            "classes: {format: voc, categories: {a: b}, without_box: []}",
            "[], expected one of keep, ignore, drop",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=r"mine\.yaml: ") as raised:
        read_spec(written(tmp_path, text))
    assert message in str(raised.value)


def test_ids_of_classes_follow_the_order_of_the_table_and_the_default_comes_last() -> None:
    categories = {"R": "RBC", "W": "WBC", "Mystery": "ignore"}
    assert ClassTable("voc", categories).class_ids == {"RBC": 1, "WBC": 2, "cell": 3}
    assert ClassTable("voc", categories, default="WBC").class_ids == {"RBC": 1, "WBC": 2}


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="'nope': no such file") as raised:
        read_spec("nope")
    assert all(name in str(raised.value) for name in known_specs())
    assert {"kaggle", "palette", "rgb_classes", "label_maps", "wbc_grey", "jpeg_masks"} <= set(known_specs())


def test_classes_that_are_not_annotated_go_to_info(tmp_path: Path) -> None:
    spec = read_spec(
        written(
            tmp_path, "annotates: {RBC: partly, WBC: complete, Platelets: none}\nunlabeled_sizes: [4, 42]\n"
        )
    )
    assert spec.unlabeled == {"unlabeled_categories": ["RBC", "Platelets"], "unlabeled_sizes": [4, 42]}
    assert read_spec("kaggle").unlabeled == {}
    assert read_spec("bbbc041").unlabeled == {
        "unlabeled_categories": ["Platelets"],
        "unlabeled_sizes": [4, 42],
    }
    for text, message in (
        ("annotates: {RBC: some}", "RBC: 'some', expected a class name and one of complete, partly, none"),
        ("annotates: [RBC]", "annotates: .*, expected a mapping"),
        ("unlabeled_sizes: [42, 4]", "expected .smallest, largest."),
    ):
        with pytest.raises(InputError, match=message):
            read_spec(written(tmp_path, text))
