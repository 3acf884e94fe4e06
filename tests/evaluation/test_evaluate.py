import json

import numpy as np
import pytest

from bccd_d2.conversion.pairs import find_pairs
from bccd_d2.evaluation.dataset import read_evaluation_set
from bccd_d2.evaluation.evaluate import evaluate
from bccd_d2.evaluation.options import ALL_CLASSES, EvaluationOptions
from bccd_d2.files import write_json
from bccd_d2.io.masks import read_mask
from bccd_d2.segmentation.instances import label_instances
from bccd_d2.structures.cells import Cells
from tests.evaluation.synthetic_cells import evaluation_set, image, rectangles

A, B, C, AT_BORDER = (50, 50, 20, 20), (120, 50, 20, 20), (50, 120, 20, 20), (0, 100, 20, 20)
QUICK = EvaluationOptions(bootstrap_samples=5)


@pytest.fixture(scope="module")
def found():
    """Two images: one perfect; one with a wrong class, an invention, a miss and a border cell that was not labelled."""
    perfect = rectangles([A, B], classes=[0, 1])
    truth = rectangles([A, B, C], classes=[0, 1, 0])
    predictions = rectangles(
        [A, B, (150, 150, 30, 30), AT_BORDER, C], classes=[0, 0, 0, 0, 0], scores=[0.9, 0.8, 0.7, 0.6, 0.3]
    )
    images = [image(perfect, perfect, image_id=1), image(truth, predictions, image_id=2)]
    return evaluate(evaluation_set(images, ("RBC", "WBC", "Platelets")), QUICK)


def test_all_and_interior_stand_side_by_side(found):
    everything, interior = (found.instances[region][ALL_CLASSES] for region in ("all", "interior"))
    # 4 right, the invention and the unlabelled border cell wrong, 1 missed.
    assert (everything.predicted, everything.cells) == (6, 5)
    assert (interior.predicted, interior.cells) == (5, 5)
    assert everything.f1 == pytest.approx(8 / 11)
    assert interior.f1 == pytest.approx(8 / 10)
    assert found.average_precision["segm"]["interior"].overall.AP50 > (
        found.average_precision["segm"]["all"].overall.AP50
    )


def test_counts_and_confusion(found):
    counts = found.counts["all"][ALL_CLASSES]
    assert (counts.true, counts.predicted) == ([2, 3], [2, 4])
    # Rows true, columns predicted: RBC, WBC, Platelets, none.
    assert found.confusion == [[2, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0]]


def test_errors_are_counted_and_split(found):
    bins = {
        name: (b.true_cells, b.predictions)
        for name, b in found.errors.bins.items()
        if b.true_cells or b.predictions
    }
    assert bins == {
        "correct": (3, 3),
        "misclassified": (1, 1),
        "false negative": (1, 0),
        "false positive": (0, 1),
        "border": (0, 1),
    }
    assert found.errors.bins["false negative"].true_share == pytest.approx(1 / 5)
    assert found.errors.bins["border"].predicted_share == pytest.approx(1 / 6)
    assert found.errors.bins["misclassified"].AP50_gain > 0
    assert found.errors.bins["correct"].AP50_gain is None
    assert found.errors.splits["class"]["RBC"] == {
        "truth": {"correct": 2, "false negative": 1},
        "prediction": {"correct": 2, "misclassified": 1, "false positive": 1, "border": 1},
    }
    assert set(found.errors.splits["size"]) == {"small"}
    assert found.errors.splits["contrast_bin"] == {}


def test_records(found):
    first, second = found.per_image
    assert (first["f1"], first["pq"], first["iou"]) == (1, 1, 1)
    assert (second["cells"], second["predicted"], second["true_positives"]) == (3, 4, 2)
    errors = [second[f"errors {name}"] for name in ("false negative", "border", "misclassified")]
    assert errors == [1, 1, 2]
    assert len(found.per_cell) == 5 + 6
    missed = next(record for record in found.per_cell if record["bin"] == "false negative")
    assert (missed["kind"], missed["index"], missed["class"], missed["score"]) == ("truth", 2, "RBC", None)
    # The prediction on it has a score below the threshold, so it is not there.
    assert (missed["iou"], missed["area_px"], missed["x0"], missed["y1"]) == (0, 400, 50, 140)
    border = next(record for record in found.per_cell if record["bin"] == "border")
    assert (border["kind"], border["index"], border["score"]) == ("prediction", 3, 0.6)
    assert border["touches_border"]


def test_json_holds_no_nan_and_reads_back(found):
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["instances"]["all"]["Platelets"]["f1"] == "no ground truth"
    assert not {"per_cell", "image_errors"} & json.loads(text).keys()


@pytest.mark.real_data
def test_real_truth_is_perfect_against_itself(real_pairs_root, tmp_path):
    pair = find_pairs(real_pairs_root)[0]
    cells = Cells.from_label_image(label_instances(read_mask(pair.mask)).labels)
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": rle}
        for i, rle in enumerate(cells.rles(), start=1)
    ]
    head = {"id": 1, "file_name": str(pair.image), "height": cells.height, "width": cells.width}
    categories = [{"id": 1, "name": "cell"}]
    write_json(
        tmp_path / "truth.json", {"images": [head], "annotations": annotations, "categories": categories}
    )
    dataset = read_evaluation_set(tmp_path / "truth.json")
    found = evaluate(dataset.with_predictions({1: cells}), EvaluationOptions(bootstrap_samples=0))
    assert found.headline() == pytest.approx(dict.fromkeys(found.headline(), 1.0))
    assert found.instances["all"][ALL_CLASSES].hausdorff == 0
    assert found.errors.bins["correct"].true_cells == len(cells) > 20
    contrast = [record["contrast"] for record in found.per_cell if record["contrast"] is not None]
    assert np.median(contrast) > 20


def test_map_at_half_is_cocos_mean_over_the_classes_and_the_class_blind_mean_of_images_has_another_name():
    # One of two red cells and the white cell are found; the platelet is called red, below the score threshold.
    truth = rectangles([A, B, C, (150, 150, 20, 20)], classes=[0, 0, 1, 2])
    predictions = rectangles([A, C, (150, 150, 20, 20)], classes=[0, 1, 0], scores=[0.9, 0.8, 0.4])
    found = evaluate(evaluation_set([image(truth, predictions)], ("RBC", "WBC", "Platelets")), QUICK)
    # RBC: recall 1/2 at precision 1, 51 of COCO's 101 recalls; WBC 1; Platelets 0.
    by_class = {name: table.AP50 for name, table in found.average_precision["bbox"]["all"].by_class.items()}
    assert by_class == pytest.approx({"RBC": 51 / 101, "WBC": 1, "Platelets": 0})
    assert found.headline()["mAP@0.5"] == pytest.approx((51 / 101 + 1 + 0) / 3)
    # Whatever the class and from the score threshold on: 2 of 4 boxes.
    assert found.overlap.AP50_per_image == pytest.approx(0.5)
    assert found.per_image[0]["ap50"] == pytest.approx(0.5)
