"""The report of a training run, found from its folder."""

import shutil
from pathlib import Path

import pytest

from bccd_d2.config import load_config
from bccd_d2.errors import InputError
from bccd_d2.evaluation.evaluator import find_run, load_predictions
from bccd_d2.reporting.run import read_run, report_run
from tests.reporting.scene import HEIGHT, WIDTH, write_scene

LITE = Path(__file__).resolve().parents[2] / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run as train_net.py leaves it, evaluated on test alone, with rules of its own."""
    folder = tmp_path_factory.mktemp("run")
    scene = write_scene(folder / "data")
    cfg = load_config(LITE)
    cfg.DATASETS.ROOT = str(scene)
    cfg.TEST.SCORE_THRESH = 0.65
    cfg.TEST.BOOTSTRAP_SAMPLES = 0
    run = folder / "model"
    (run / "inference" / "bccd_test").mkdir(parents=True)
    (run / "config.yaml").write_text(cfg.dump())
    shutil.copy(scene / "test.json", run / "inference" / "bccd_test" / "coco_instances_results.json")
    return run


def test_a_run_is_judged_by_its_own_rules(run):
    (part,) = report_run(run)
    assert part.name == "Test"
    assert part.evaluation.options.score_threshold == 0.65
    assert part.evaluation.instances["all"]["all classes"].predicted == 6 + 3
    assert (run / "evaluation" / "report.html").is_file()


def test_parts_that_a_run_does_not_have(run, tmp_path):
    with pytest.raises(InputError, match="not evaluated on val, only on test"):
        read_run(run, parts=["val"])
    with pytest.raises(InputError, match=r"instances_test\.json is not there: expected what the run"):
        find_run(run, tmp_path)
    with pytest.raises(InputError, match=r"config\.yaml is not there"):
        find_run(tmp_path)
    shutil.copy(run / "config.yaml", tmp_path)
    with pytest.raises(InputError, match="expected an evaluated run"):
        find_run(tmp_path)


def test_an_example_is_read_with_its_masks(run):
    example = load_predictions(run, "bccd_test", 0.75)
    assert example["image"].shape == (HEIGHT, WIDTH, 3)
    assert example["class_names"] == ["RBC", "WBC"]
    assert example["true_classes"] == [0, 0, 0, 1, 0, 0]
    assert sum(mask.sum() for mask in example["true_masks"]) == 6 * 1600
    # The second of two images, of whose predictions two have such a score.
    assert [mask.sum() for mask in example["predicted_masks"]] == [90 * 40, 1600]
    with pytest.raises(InputError, match="no predictions for bccd_val"):
        load_predictions(run, "bccd_val", 0.5)
