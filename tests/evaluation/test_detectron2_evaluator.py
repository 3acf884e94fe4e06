import json

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from bccd_d2.config import get_bccd_cfg
from bccd_d2.data.registration import register_bccd
from bccd_d2.errors import InputError
from bccd_d2.evaluation.dataset import read_evaluation_set
from bccd_d2.evaluation.detectron2_evaluator import CellEvaluator
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.files import write_json
from tests.evaluation.synthetic_cells import rectangles

A, B, C = (50, 50, 20, 20), (120, 50, 20, 20), (50, 120, 20, 20)
OPTIONS = EvaluationOptions(bootstrap_samples=0)


@pytest.fixture
def dataset(tmp_path):
    """Two images with two cells and one; registered as ``metrics_val``."""
    cells = rectangles([A, B, C])
    write_json(
        tmp_path / "annotations" / "instances_val.json",
        {
            "images": [
                {"id": i, "file_name": f"{i}.png", "height": cells.height, "width": cells.width}
                for i in (1, 2)
            ],
            "categories": [{"id": 3, "name": "RBC"}, {"id": 4, "name": "WBC"}],
            "annotations": [
                {
                    "id": index + 1,
                    "image_id": 1 + index // 2,
                    "category_id": 3,
                    "iscrowd": 0,
                    "area": 400,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": rle,
                }
                for index, (rle, (x0, y0, x1, y1)) in enumerate(zip(cells.rles(), cells.windows.tolist()))
            ],
        },
    )
    for i in (1, 2):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((cells.height, cells.width, 3), 200, np.uint8))
    register_bccd(tmp_path, prefix="metrics")
    yield tmp_path
    DatasetCatalog.remove("metrics_val")
    MetadataCatalog.remove("metrics_val")


def run(outputs, output_dir=None, options=OPTIONS, **more):
    evaluator = CellEvaluator("metrics_val", options, output_dir=output_dir, **more)
    evaluator.reset()
    for image_id, cells in enumerate(outputs, start=1):
        evaluator.process([{"image_id": image_id}], [{"cells": cells}])
    return evaluator.evaluate()


def test_a_run_and_its_file_are_evaluated_alike(dataset, tmp_path):
    # The first image right but for a shift of 4 (IoU 2/3); the second empty.
    results = run(
        [rectangles([(54, 50, 20, 20), B], scores=[0.9, 0.8]), rectangles([])], str(tmp_path / "inference")
    )
    # Right at 0.50 to 0.65 both (recall 2/3), beyond one of two predictions.
    assert results["segm"]["AP50"] == pytest.approx(100 * 67 / 101)
    assert results["instances"]["F1"] == pytest.approx(100 * 4 / 5)
    assert results["overlap"]["IoU"] == pytest.approx(100 * (320 + 400) / (480 + 400 + 400))
    assert "AP-RBC" in results["bbox"]
    assert "AP-WBC" not in results["bbox"]
    written = tmp_path / "inference" / "coco_instances_results.json"
    assert {entry["category_id"] for entry in json.loads(written.read_text())} == {3}
    from_files = evaluate(
        read_evaluation_set(dataset / "annotations" / "instances_val.json", written), OPTIONS
    )
    assert from_files.detectron2_results() == results
    assert json.loads((tmp_path / "inference" / "metrics.json").read_text())["class_names"] == ["RBC", "WBC"]


def test_options_come_from_the_configuration():
    cfg = get_bccd_cfg()
    cfg.TEST.DETECTIONS_PER_IMAGE, cfg.TEST.SIZE_EDGES = 300, [30.0, 90.0]
    options = EvaluationOptions.from_config(cfg)
    assert options == EvaluationOptions(max_detections=300, size_edges=(30.0, 90.0))
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS = [0.7]
    assert EvaluationOptions.from_config(cfg).score_threshold == 0
    cfg.TEST.SIZE_EDGES = [90.0, 30.0]
    with pytest.raises(InputError, match=r"TEST\.SIZE_EDGES: expected two rising numbers"):
        EvaluationOptions.from_config(cfg)


def test_the_classes_of_model_and_data_set_are_joined_by_name(dataset, caplog):
    """The data set lists RBC and WBC; the model counts its classes in another order and knows platelets, too."""
    cells = rectangles([A, B, C], classes=[2, 2, 0], scores=[0.9, 0.8, 0.7])
    outputs = [cells, rectangles([C], classes=[2])]
    results = run(outputs, class_names=["Platelets", "WBC", "RBC"])
    assert results["segm"]["AP-RBC"] == pytest.approx(100)
    # The platelet is neither right nor wrong.
    assert results["instances"]["F1"] == pytest.approx(100)
    assert "does not list the class Platelets: 1 predictions are left out" in caplog.text
    with pytest.raises(InputError, match="a prediction of class 2, expected one of 2"):
        run(outputs)


def test_a_data_set_without_the_classes_that_are_predicted_is_evaluated(dataset):
    outputs = [rectangles([A], classes=[1]), rectangles([])]
    results = run(outputs, class_names=["RBC", "Platelets"])
    assert (results["segm"]["AP"], results["instances"]["F1"]) == (0, 0)
    assert "AP-Platelets" not in results["segm"]
