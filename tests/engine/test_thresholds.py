import importlib.util
import json
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
import yaml

from bccd_d2.commands import run_command
from bccd_d2.config import load_config
from bccd_d2.config.checks import score_thresholds
from bccd_d2.engine.thresholds import tune
from bccd_d2.evaluation.dataset import EvaluationImage, EvaluationSet
from bccd_d2.evaluation.options import EvaluationOptions
from bccd_d2.modeling.suppression import MaskSuppression
from bccd_d2.structures.cells import Cells

TOOL = Path(__file__).resolve().parents[2] / "tools" / "tune_thresholds.py"
LITE = TOOL.parents[1] / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"
SIDE = 60


def square(x: int, y: int, side: int = 10) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def cells(*rows):
    """(x, y, side, class, score)"""
    return Cells.from_masks(
        SIDE,
        SIDE,
        [square(*row[:3]) for row in rows],
        classes=[r[3] for r in rows],
        scores=[r[4] for r in rows],
    )


TRUTH = cells((0, 0, 10, 0, 1), (20, 0, 10, 0, 1), (40, 0, 10, 0, 1), (0, 30, 10, 1, 1))
# Class 0: right at 0.9, wrong at 0.7, right at 0.6, wrong at 0.3, 0.2. F1: 2/4, 2/5, 4/6, 4/7, 4/8: best down to 0.6.
# Class 1: wrong at 0.8, right at 0.4: F1 0, 2/3.
PREDICTIONS = cells(
    (0, 0, 10, 0, 0.9), (20, 20, 10, 0, 0.7), (20, 0, 10, 0, 0.6), (40, 20, 10, 0, 0.3), (50, 50, 10, 0, 0.2),
    (20, 40, 10, 1, 0.8), (0, 30, 10, 1, 0.4),
)  # fmt: skip


def dataset(predictions=PREDICTIONS, ignore=None, names=("RBC", "WBC", "Platelets")):
    image = EvaluationImage(1, "a.png", None, TRUTH, ignore or cells(), predictions)
    return EvaluationSet([image], names, [1, 2, 3])


def test_the_threshold_with_the_greatest_f1_is_found_for_each_class():
    red, white, platelets = tune(dataset(), score_before=0.65).classes
    assert red.threshold == pytest.approx(0.45)
    assert (red.f1, red.f1_before) == pytest.approx((4 / 6, 2 / 5))
    # Nothing follows 0.4 but the lowest score of all.
    assert white.threshold == pytest.approx(0.2)
    assert (white.f1, white.f1_before) == pytest.approx((2 / 3, 0))
    assert tune(dataset(), lowest_score=0.1).classes[1].threshold == pytest.approx(0.25)
    # No platelet is annotated: nothing is known.
    assert (platelets.threshold, platelets.f1, platelets.f1_before) == (0.65, None, None)


def test_what_lies_in_a_region_to_ignore_is_no_false_positive():
    # The wrong ones at 0.7 and 0.3 do not count any more: 2/4, 4/5, 4/6.
    red = tune(dataset(ignore=cells((15, 15, 45, 0, 1)))).classes[0]
    assert red.f1 == pytest.approx(4 / 5)


def test_mask_suppression_is_chosen_where_it_helps():
    inside = cells((0, 0, 10, 0, 0.9), (1, 1, 6, 0, 0.85), (20, 0, 10, 0, 0.8), (40, 0, 10, 0, 0.7))
    suppressions = (None, MaskSuppression("iou", 0.5), MaskSuppression("containment", 0.5))
    tuning = tune(dataset(inside), suppressions=suppressions)
    assert tuning.mask_suppression == suppressions[2]
    assert (tuning.classes[0].f1, tuning.classes[0].f1_before) == pytest.approx((1, 6 / 7))
    apart = cells((0, 0, 10, 0, 0.9), (20, 0, 10, 0, 0.8))
    assert tune(dataset(apart), suppressions=suppressions).mask_suppression is None


def rle(mask):
    found = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


@pytest.fixture
def run(tmp_path):
    """OUTPUT_DIR of a run on a converted data set, and the command."""
    entries = [
        {
            "image_id": 1,
            "category_id": int(one.classes[0]) + 1,
            "segmentation": one.rles()[0],
            "score": one.scores[0],
        }
        for one in (PREDICTIONS[[k]] for k in range(len(PREDICTIONS)))
    ]
    whole = TRUTH.full_masks()
    annotations = [
        {"id": k + 1, "image_id": 1, "category_id": int(TRUTH.classes[k]) + 1, "segmentation": rle(whole[k]),
         "bbox": [*TRUTH.boxes[k, :2].tolist(), 10.0, 10.0], "area": 100, "iscrowd": 0}
        for k in range(len(TRUTH))
    ]  # fmt: skip
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": SIDE, "width": SIDE}],
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(("RBC", "WBC", "Platelets"))],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(document))
    folder = tmp_path / "run" / "inference" / "bccd_val"
    folder.mkdir(parents=True)
    (folder / "coco_instances_results.json").write_text(json.dumps(entries))
    names = ["DATASETS.CLASS_NAMES", "['RBC', 'WBC', 'Platelets']", "MODEL.ROI_HEADS.NUM_CLASSES", "3"]
    cfg = load_config(LITE, [*names, "DATASETS.ROOT", str(tmp_path)])
    (tmp_path / "run" / "config.yaml").write_text(cfg.dump())
    return tmp_path / "run"


def command(*arguments, status=0):
    spec = importlib.util.spec_from_file_location("tune_thresholds", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: module.main(list(map(str, arguments))))
    assert ended.value.code == status


def test_the_command_writes_what_a_configuration_includes(run, capsys):
    command("--run", run)
    assert "0.667" in capsys.readouterr().out
    (run / "tuned.yaml").write_text('_BASE_: ["config.yaml", "thresholds.yaml"]\n')
    cfg = load_config(run / "tuned.yaml")
    assert score_thresholds(cfg) == pytest.approx([0.45, 0.225, 0.5])
    assert EvaluationOptions.from_config(cfg).score_threshold == 0
    assert not cfg.MODEL.ROI_HEADS.MASK_NMS.ENABLED
    command("--run", run, status=1)
    assert "thresholds.yaml exists; give --overwrite" in capsys.readouterr().err
    command("--run", run, "--mask-nms", "--overwrite")
    assert yaml.safe_load((run / "thresholds.yaml").read_text())["MODEL"]["ROI_HEADS"]["MASK_NMS"] == {
        "ENABLED": False
    }


def test_the_command_refuses_the_test_part_and_predictions_that_are_cut(run, capsys):
    command("--run", run, "--dataset", "bccd_test", status=1)
    assert "bccd_test: expected the validation part" in capsys.readouterr().err
    command("--run", run, "--predictions", run / "none.json", status=1)
    assert "none.json is not there: expected what 'python tools/train_net.py" in capsys.readouterr().err
    cut = load_config(run / "config.yaml", ["MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS", "[0.5, 0.5, 0.5]"])
    (run / "config.yaml").write_text(cut.dump())
    command("--run", run, status=1)
    assert "SCORE_THRESH_PER_CLASS has left out predictions" in capsys.readouterr().err
    assert not (run / "thresholds.yaml").exists()
