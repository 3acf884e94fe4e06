import json

import pytest

from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import read_evaluation_set, truth_from_coco

POLYGON = [[10, 10, 30, 10, 30, 30, 10, 30]]


@pytest.fixture
def document():
    return {
        "info": {"image_root": "."},
        "images": [
            {"id": 7, "file_name": "a.png", "height": 40, "width": 60},
            {"id": 3, "file_name": "b.png", "height": 50, "width": 50},
        ],
        # Classes count by rising id, as Detectron2 has them.
        "categories": [{"id": 5, "name": "WBC"}, {"id": 2, "name": "RBC"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "iscrowd": 0, "segmentation": POLYGON},
            {"id": 2, "image_id": 7, "category_id": 2, "iscrowd": 1, "segmentation": POLYGON},
        ],
    }


def result(**more):
    return {"image_id": 7, "category_id": 2, "score": 0.5, "segmentation": POLYGON} | more


def test_cells_regions_and_predictions_find_their_place(document):
    found = truth_from_coco(document).with_results([result(bbox=[9.5, 10, 20, 21])])
    assert (found.class_names, found.category_ids) == (["RBC", "WBC"], [2, 5])
    assert [image.image_id for image in found.images] == [7, 3]
    first, second = found.images
    assert (first.truth.classes.tolist(), first.ignore.classes.tolist()) == ([1], [0])
    assert first.truth.areas.tolist() == [400]
    assert first.truth.boxes.tolist() == [[10, 10, 30, 30]]
    assert (first.predictions.classes.tolist(), first.predictions.scores.tolist()) == ([0], [0.5])
    assert first.predictions.boxes.tolist() == [[9.5, 10, 29.5, 31]]
    assert (len(second.truth), len(second.predictions), second.truth.height) == (0, 0, 50)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (result(image_id=9), r"image 9, which the ground truth does not hold \(it holds 7 \(a\.png\)"),
        (result(category_id=1), "class '1', expected one of 2 RBC, 5 WBC"),
        (result(score=float("nan")), "entry 0: score nan"),
        (result(bbox=[1, 2, 3]), r"entry 0: bbox \[1, 2, 3\]"),
        (result(segmentation={"size": [50, 50], "counts": [2500]}), r"image 7 \(a\.png\): RLE of size"),
        ({"image_id": 7}, "entry 0: no key 'score'"),
    ],
)
def test_results_that_do_not_belong_are_refused(document, entry, message):
    with pytest.raises(InputError, match=message):
        truth_from_coco(document).with_results([entry])


@pytest.mark.parametrize(
    ("in_json", "on_disk"),
    [
        (["images/a.png", "images/b.png"], ["a.png", "b.png"]),
        (["C:\\x\\a.png", "C:\\x\\b.png"], ["a.jpg", "sub/b.tif"]),
        # Of two files of one name that is taken whose path agrees.
        (["x/a.png", "y/a.png"], ["new/x/a.png", "new/y/a.png"]),
    ],
)
def test_images_are_found_by_name_in_the_folder_that_is_given(document, tmp_path, in_json, on_disk):
    for image, name in zip(document["images"], in_json):
        image["file_name"] = name
    (tmp_path / "truth.json").write_text(json.dumps(document))
    folder = tmp_path / "here"
    for name in on_disk:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    found = read_evaluation_set(tmp_path / "truth.json", image_root=folder)
    assert [image.path for image in found.images] == [folder / name for name in on_disk]


def test_predictions_are_joined_by_the_names_of_classes_and_images(document, caplog):
    # Numbers of another file: WBC is 1 there, and the image has another id.
    entries = [
        result(image_id=1, file_name="smears/a.jpg", category_id=1, category=name)
        for name in ("WBC", "rbc", "Platelets")
    ]
    found = truth_from_coco(document).with_results(entries)
    assert found.images[0].predictions.classes.tolist() == [1, 0]
    assert found.class_names == ["RBC", "WBC", "Platelets"]
    assert "does not list the class Platelets: 1 predictions are left out" in caplog.text


def test_classes_that_are_not_annotated_completely_are_no_false_positives(document, caplog):
    """Of the white cells only some are annotated, and on b.png all."""
    document["info"]["unlabeled_categories"] = ["WBC"]
    document["images"][1]["unlabeled_categories"] = []
    elsewhere = [[35, 15, 45, 15, 45, 25, 35, 25]]
    entries = [
        result(category_id=5, score=0.9),
        result(category_id=5, segmentation=elsewhere),
        result(category_id=2, segmentation=elsewhere),
        result(category_id=5, image_id=3, segmentation=elsewhere),
    ]
    found = truth_from_coco(document).with_results(entries)
    # The cell that is annotated is found, the other white cell is neither right nor wrong.
    assert [image.predictions.classes.tolist() for image in found.images] == [[1, 0], [1]]
    assert found.images[0].predictions.scores[0] == 0.9
    assert "does not annotate every WBC: 1 predictions that match no cell are left out" in caplog.text
    document["info"]["unlabeled_categories"] = ["Platelets"]
    with pytest.raises(InputError, match=r"unlabeled_categories .* expected a list of names among WBC, RBC"):
        truth_from_coco(document)
