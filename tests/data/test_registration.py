import json

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools import mask as mask_util

from bccd_d2.data.registration import class_names, register_bccd
from bccd_d2.errors import InputError
from bccd_d2.structures.coco import read_coco

NAMES = [f"registration_{part}" for part in ("train", "val", "test")]


@pytest.fixture(autouse=True)
def clean_catalog():
    yield
    for name in NAMES:
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def make(folder, part="train", categories=("RBC", "WBC"), image_root="../pictures"):
    """A converted data set of one image with one square cell of the last category, its image beside it."""
    root = folder / "converted"
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "pictures").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "pictures" / "a.png"), np.zeros((20, 30, 3), np.uint8))
    mask = np.zeros((20, 30), np.uint8, order="F")
    mask[5:10, 0:6] = 1
    rle = mask_util.encode(mask)
    document = {
        "info": {"image_root": image_root},
        "images": [{"id": 7, "file_name": "a.png", "height": 20, "width": 30}],
        # ids that are not contiguous, and not in order
        "categories": [{"id": 9 - i, "name": name} for i, name in enumerate(categories)][::-1],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 9,
                "bbox": [0, 5, 6, 5],
                "area": 30,
                "iscrowd": 0,
                "border": True,
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            }
        ],
    }
    path = root / "annotations" / f"instances_{part}.json"
    path.write_text(json.dumps(document))
    return root, path


def test_a_registered_set_loads_with_its_images_and_border_flags(tmp_path):
    root, json_file = make(tmp_path)
    assert register_bccd(root, "registration") == {"registration_train": json_file}
    (record,) = DatasetCatalog.get("registration_train")
    assert cv2.imread(record["file_name"]).shape == (20, 30, 3)
    (annotation,) = record["annotations"]
    assert annotation["border"] is True
    assert mask_util.decode(annotation["segmentation"]).sum() == 30
    metadata = MetadataCatalog.get("registration_train")
    assert metadata.thing_classes == class_names(read_coco(json_file)) == ["WBC", "RBC"]
    assert annotation["category_id"] == 1


def test_a_folder_of_data_sets_is_registered_by_their_names(tmp_path):
    make(tmp_path / "registration")
    root = tmp_path / "sources"
    root.mkdir()
    (tmp_path / "registration" / "converted").rename(root / "registration")
    assert list(register_bccd(root)) == ["registration_train"]


def test_the_cell_diameter_of_an_image_is_that_of_its_whole_cells(tmp_path):
    root, json_file = make(tmp_path)
    document = json.loads(json_file.read_text())
    (cell,) = document["annotations"]
    document["images"].append({**document["images"][0], "id": 8, "file_name": "other.png"})
    widths = {7: [5, 6, 7, 8, 30], 8: [20]}  # four cells tell their image's magnification, one does not
    document["annotations"] = [
        {
            **cell,
            "image_id": image,
            "bbox": [],
            "segmentation": [[0, 0, w, 0, w, 10, 0, 10]],
            "border": w == 30,
        }
        for image, found in widths.items()
        for w in found
    ]
    json_file.write_text(json.dumps(document))
    register_bccd(root, "registration")
    first, second = DatasetCatalog.get("registration_train")
    assert first["cell_diameter"] == pytest.approx((60 / np.pi) ** 0.5 + (70 / np.pi) ** 0.5)
    assert second["cell_diameter"] == pytest.approx(2 * (70 / np.pi) ** 0.5)  # of the five whole cells


def test_registering_another_folder_replaces_the_first(tmp_path):
    first, _ = make(tmp_path / "a")
    second, _ = make(tmp_path / "b", categories=("cell",))
    register_bccd(first, "registration")
    DatasetCatalog.get("registration_train")
    register_bccd(second, "registration")
    DatasetCatalog.get("registration_train")
    assert MetadataCatalog.get("registration_train").thing_classes == ["cell"]


def test_missing_annotations_and_images_are_named(tmp_path):
    with pytest.raises(InputError, match=r"expected annotations/instances_train\.json") as caught:
        register_bccd(tmp_path, "registration")
    assert str(tmp_path) in str(caught.value)
    root, _ = make(tmp_path, image_root="../elsewhere")
    register_bccd(root, "registration")
    with pytest.raises(InputError, match=r"a\.png is not there; convert again"):
        DatasetCatalog.get("registration_train")


@pytest.mark.parametrize("text", ["", "{}"])
def test_a_file_that_is_no_coco_json_is_named(tmp_path, text):
    root, path = make(tmp_path)
    path.write_text(text)
    register_bccd(root, "registration")
    with pytest.raises(InputError, match=r"instances_train\.json: (not JSON|no sound COCO document)"):
        DatasetCatalog.get("registration_train")


def test_classes_without_annotations_are_read_by_name(tmp_path):
    root, json_file = make(tmp_path, categories=("RBC", "WBC", "Platelets"))
    document = json.loads(json_file.read_text())

    def record(info, image):
        changed = {**document, "info": {**document["info"], **info}}
        changed["images"] = [{**document["images"][0], **image}]
        json_file.write_text(json.dumps(changed))
        register_bccd(root, "registration")
        return DatasetCatalog.get("registration_train")[0]

    # Contiguous ids follow the categories' own: Platelets 7, WBC 8, RBC 9.
    default = {"unlabeled_categories": ["Platelets", "RBC"], "unlabeled_sizes": [8, 45]}
    found = record(default, {})
    assert (found["unlabeled_classes"], found["unlabeled_sizes"]) == ([0, 2], [8.0, 45.0])
    found = record(default, {"unlabeled_categories": ["WBC"], "unlabeled_sizes": [50, 90]})
    assert (found["unlabeled_classes"], found["unlabeled_sizes"]) == ([1], [50.0, 90.0])
    for found in (record({}, {}), record(default, {"unlabeled_categories": []})):
        assert not {"unlabeled_classes", "unlabeled_sizes"} & found.keys()
    with pytest.raises(
        InputError, match=r"image 'a\.png': unlabeled_categories \['PLT'\].*Platelets, WBC, RBC"
    ):
        record({}, {"unlabeled_categories": ["PLT"]})
    for sizes in ([45, 8], [8], "8", [None, 3]):
        with pytest.raises(InputError, match=r"unlabeled_sizes .*expected \[lowest, highest\]"):
            record(default, {"unlabeled_sizes": sizes})
