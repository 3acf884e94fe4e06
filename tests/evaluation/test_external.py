"""Predictions of other tools: COCO of any make, label images of any depth and name."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import EvaluationImage, EvaluationSet
from bccd_d2.evaluation.external import read_predictions, read_truth
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers import write_formats
from bccd_d2.inference.writers.coco import coco_dataset, results_entries
from bccd_d2.io.sources import ArraySource
from bccd_d2.structures.cells import Cells
from tests.conversion.importers import test_importers as made

SIZE = (30, 40)


def labels(*boxes, number=1):
    """Label image with boxes (x, y, side), numbered from ``number`` in steps of it."""
    image = np.zeros(SIZE, np.uint32)
    for index, (x, y, side) in enumerate(boxes, start=1):
        image[y : y + side, x : x + side] = index * number
    return image


@pytest.fixture
def truth():
    none = Cells.from_masks(*SIZE, [])
    images = [
        EvaluationImage(
            7, "a/one.png", None, Cells.from_label_image(labels((2, 3, 5), (20, 10, 8))), none, none
        ),
        EvaluationImage(9, "a/two.jpg", None, Cells.from_label_image(labels((5, 5, 4))), none, none),
    ]
    return EvaluationSet(images, ["cell"], [1])


def write(folder, name, image):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, image)
    elif path.suffix == ".png":
        Image.fromarray(image.astype(np.uint16)).save(path)
    else:
        tifffile.imwrite(path, image)


@pytest.mark.parametrize("pattern", ["{}_cp_masks.png", "deep/{}_masks.tif", "{}.stardist.tif", "{}.npy"])
def test_label_images_are_found_by_stem_and_suffix(tmp_path, truth, pattern):
    # Labels above 65535 only fit a 32-bit TIFF or an array; gaps between labels do not matter.
    number = 30000 if pattern.endswith(".png") else 70000
    for stem, image in (("one", labels((2, 3, 5), (20, 10, 8), number=number)), ("two", labels())):
        write(tmp_path, pattern.format(stem), image)
    one, two = read_predictions(tmp_path, truth).images
    np.testing.assert_array_equal(one.predictions.ious(one.truth), np.eye(2))
    assert one.predictions.scores.tolist() == [1, 1]
    assert len(two.predictions) == 0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"one_masks.png": labels((1, 1, 3))}, r"no label image of 1 of 2 images, expected two_masks\.png"),
        (
            {"one.tif": labels(), "x/one.png": labels(), "two.tif": labels()},
            r"the images 'one', 'x/one' all match",
        ),
        (
            {"one.tif": labels(), "two.tif": labels()[:20]},
            r"two\.tif: 20 x 40 pixels, but the image a/two\.jpg has 30 x 40",
        ),
        (
            {
                "one.tif": (labels((1, 1, 4), (10, 10, 4), (20, 20, 4)) > 0).astype(np.uint8) * 255,
                "two.tif": labels(),
            },
            r"one label in 3 separate parts, expected one label per cell",
        ),
    ],
)
def test_folders_that_do_not_fit(tmp_path, truth, files, message):
    for name, image in files.items():
        write(tmp_path, name, image)
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path, truth)


def test_classes_are_left_aside_only_when_told(tmp_path, truth):
    for stem in ("one", "two"):
        write(tmp_path, f"{stem}.tif", labels((2, 3, 5)))
    several = EvaluationSet(truth.images, ["RBC", "WBC"], [1, 2])
    with pytest.raises(InputError, match=r"has 2 \(RBC, WBC\).*--class-agnostic"):
        read_predictions(tmp_path, several)
    assert read_predictions(tmp_path, several, class_agnostic=True).class_names == ["cell"]


def entry(cells, index, **more):
    return {"segmentation": cells.rles()[index], "category_id": 1, **more}


def test_coco_documents_are_joined_by_names_not_ids(tmp_path, truth):
    cells = truth.images[0].truth
    document = {
        "images": [{"id": 1, "file_name": "elsewhere/one.tif", "height": 30, "width": 40}],
        "categories": [{"id": 5, "name": "cell"}],
        "annotations": [{**entry(cells, 1), "image_id": 1, "category_id": 5, "id": 3}],
    }
    path = tmp_path / "drawn.json"
    path.write_text(json.dumps(document))
    (found,) = read_predictions(path, truth).images[0].predictions.ious(cells)
    assert found.tolist() == [0, 1]
    document["categories"][0]["name"] = "nucleus"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"class 'nucleus', expected one of .*cell; --class-agnostic"):
        read_predictions(path, truth)


@pytest.mark.parametrize(
    "text", ["{}", '{"images": [], "annotations": [{}], "categories": []}', "7", "no JSON"]
)
def test_files_that_are_no_coco(tmp_path, truth, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.json"):
        read_predictions(path, truth)
    with pytest.raises(InputError, match="no such file or folder"):
        read_predictions(tmp_path / "absent", truth)


@pytest.fixture
def predicted(tmp_path):
    """What tools/predict.py writes of two images in folders, two classes, masks that overlap; and the truth."""
    folder = tmp_path / "predicted"
    images, results = [], []
    for number, name in enumerate(("day 1/a.png", "day 2/a.png", "slide.1.ome.tif"), start=1):
        masks = [np.zeros(SIZE, bool) for _ in range(3)]
        masks[0][2:12, 2 : 12 + number], masks[1][8:20, 8:20], masks[2][22:28, 30:40] = True, True, True
        masks[0][5:7, 5:7] = False
        cells = Cells.from_masks(*SIZE, masks, classes=[1, 0, 0], scores=[0.9, 0.8, 0.7])
        images.append(EvaluationImage(10 - number, f"images/{name}", None, cells, cells[:0], cells[:0]))
        results.append(
            ImageResult(name, ArraySource(np.full((*SIZE, 3), 200, np.uint8)), cells, ["RBC", "WBC"])
        )
    for result in results:
        write_formats(result, folder, ("coco", "labels", "geojson", "roi"))
    entries = [
        entry for n, result in enumerate(results) for entry in results_entries(coco_dataset(result), n + 1)
    ]
    (folder / "predictions.json").write_text(json.dumps(entries))
    # Classes have other numbers than in the predictions.
    return folder, EvaluationSet(
        [replace(i, truth=replace(i.truth, classes=1 - i.truth.classes)) for i in images],
        ["WBC", "RBC"],
        [4, 9],
    )


@pytest.mark.parametrize("kind", [".", "predictions.json", "coco", "geojson", "roi"])
def test_what_this_project_predicts_can_be_evaluated(predicted, kind):
    folder, truth = predicted
    for image in read_predictions(folder / kind, truth).images:
        np.testing.assert_array_equal(image.predictions.classes, image.truth.classes)
        for index in range(3):
            np.testing.assert_array_equal(
                image.predictions.full_masks()[index], image.truth.full_masks()[index]
            )
        if kind != "roi":
            assert image.predictions.scores == pytest.approx([0.9, 0.8, 0.7])


@pytest.fixture
def squares():
    """The image a of the files that the tests of the importers write, and the whole set with image b."""
    cells = Cells.from_label_image(np.zeros((made.HEIGHT, made.WIDTH), np.uint8))
    both = np.zeros((made.HEIGHT, made.WIDTH), np.uint8)
    both[30:70, 20:60], both[20:60, 90:120] = 1, 2
    truth = Cells.from_label_image(both, {1: 0, 2: 1})
    images = [
        EvaluationImage(1, "a.png", None, truth, cells, cells),
        EvaluationImage(2, "b.png", None, *[cells] * 3),
    ]
    return EvaluationSet(images[:1], ["RBC", "WBC"], [1, 2]), EvaluationSet(images, ["RBC", "WBC"], [1, 2])


NOT_COCO = (
    "yolo",
    "makesense_yolo",
    "cvat",
    "labelme",
    "label_studio",
    "label_studio_min",
    "via",
    "via_csv",
    "via_3",
)


@pytest.mark.parametrize("name", [*NOT_COCO, "geojson", "imagej", "cellpose"])
def test_what_can_be_imported_can_be_evaluated(tmp_path, squares, name):
    truth, _ = squares
    without = name == "cellpose"
    (image,) = read_predictions(getattr(made, name)(tmp_path), truth, class_agnostic=without).images
    np.testing.assert_array_equal(image.predictions.ious(image.truth), np.eye(2))
    assert image.predictions.classes.tolist() == [0, 0 if without else 1]
    assert image.predictions.scores.tolist() == [1, 1]


@pytest.mark.parametrize("name", ["geojson", "cellpose"])
def test_ground_truth_of_other_tools(tmp_path, squares, name):
    truth = read_truth(getattr(made, name)(tmp_path))
    assert truth.class_names == (["cell"] if name == "cellpose" else ["RBC", "WBC"])
    (image,) = truth.images
    assert (image.file_name, image.path) == ("a.png", tmp_path / "a.png")
    expected = squares[0].images[0].truth
    np.testing.assert_array_equal(image.truth.ious(expected), np.eye(2))
    assert image.truth.classes.tolist() == ([0, 0] if name == "cellpose" else [0, 1])
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match="1 images are not found; give their folder, --images"):
        read_truth(tmp_path)


def test_cells_that_have_only_a_box_are_refused(tmp_path, squares):
    with pytest.raises(InputError, match=r"b\.json: 1 cells with a box and no outline"):
        read_predictions(made.labelme(tmp_path), squares[1])


def test_yolo_has_scores_and_no_file_for_an_image_without_cells(tmp_path, squares):
    folder = made.yolo(tmp_path) / "labels" / "train"
    lines = (folder / "a.txt").read_text().splitlines()
    (folder / "a.txt").write_text(f"{lines[0]} 0.75\n{lines[1]} 0.5\n")
    (folder / "b.txt").unlink()
    (tmp_path / "data.yaml").rename(folder / "data.yaml")
    a, b = read_predictions(folder, squares[1]).images
    assert (a.predictions.scores.tolist(), len(b.predictions)) == ([0.75, 0.5], 0)
