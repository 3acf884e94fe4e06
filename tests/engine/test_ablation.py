import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from bccd_d2.config import load_config
from bccd_d2.engine import ablation
from bccd_d2.engine.ablation import (
    AblationPlan,
    ablation_table,
    difference_table,
    predict_laboratories,
    run_ablation,
)
from bccd_d2.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
LITE = REPOSITORY / "configs" / "mask_rcnn_R_18_FPN_lite.yaml"
PLAN = {"config": "c.yaml", "options": {}, "seeds": [1], "rows": {"base": {}, "other": {"INPUT.SCALE": 1.0}}}


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs" / "ablations").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_plan_names_keys_that_exist(path):
    plan = AblationPlan.read(path)
    for row in plan.rows.values():
        changes = {key: value for key, value in row.items() if key not in ("evaluate", "checkpoint")}
        words = [str(word) for pair in {**plan.options, **changes}.items() for word in pair]
        load_config(REPOSITORY / plan.config, words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": {}}, "rows: expected a dict"),
        ({"rows": {"a": None}}, "rows: a: expected a dict of configuration keys, found None"),
        ({"rows": {"a": {}, "b": {"evaluate": "c"}}}, "rows: b: evaluate: expected one of a, found 'c'"),
        ({"rows": {"a": {"checkpoint": "x.pth"}}}, "rows: a: checkpoint has no effect in a row without"),
        ({"rows": {"A b": {}, "a_b": {}}}, "rows: a_b: would share its folder with 'A b': rename one"),
        ({"extra": 1}, "expected the keys config, options, seeds, rows, found"),
    ],
)
def test_a_wrong_plan_is_named(tmp_path, change, message):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN | change))
    with pytest.raises(InputError, match=message) as caught:
        AblationPlan.read(path)
    assert str(path) in str(caught.value)


def test_the_options_of_a_plan_are_changed_by_key_and_value():
    plan = AblationPlan(Path("c.yaml"), {"SOLVER.MAX_ITER": 600, "INPUT.SCALE": 1.0}, [1], {"base": {}})
    changed = plan.changed(["INPUT.SCALE", "0.5", "INPUT.WHITE_BALANCE", "False"])
    assert changed.options == {"SOLVER.MAX_ITER": 600, "INPUT.SCALE": "0.5", "INPUT.WHITE_BALANCE": "False"}
    with pytest.raises(InputError, match="expected KEY VALUE pairs"):
        plan.changed(["INPUT.SCALE"])


def result(ap):
    metrics = {
        "segm": {"AP": ap, "AP50": 90, "AP75": 80},
        "overlap": {"IoU": 85, "Dice": 92},
        "instances": {"F1": 89},
    }
    return {"bccd_val": metrics}


def test_the_table_gives_mean_and_spread():
    lines = ablation_table({"base": [result(70), result(74)], "other": [result(75)]}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["row", "seeds", "mask AP", "mask AP50", "mask AP75", "IoU", "Dice", "F1"]
    # mean (70 + 74) / 2, sample standard deviation sqrt(2 * 2^2 / 1) = 2.828
    assert cells[2][:4] == ["base", "2", "0.720 ± 0.028", "0.900 ± 0.000"]
    assert cells[3][:3] == ["other", "1", "0.750"]


def test_differences_are_taken_seed_by_seed():
    table = difference_table({"base": [result(70), result(74)], "other": [result(73), result(76)]})
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert cells[0][:3] == ["minus base", "seeds", "mask AP"]
    # +3 and +2: mean 2.5, deviation 0.707, although the rows themselves differ by 4 and 3 between seeds
    assert cells[2][:4] == ["other", "2", "+0.025 ± 0.007", "+0.000 ± 0.000"]
    assert difference_table({"base": [result(70)]}) == ""


def test_a_row_that_evaluates_takes_the_weights_and_keys_of_another(monkeypatch, tmp_path):
    calls = []

    def train_net(config, data_root, folder, options, flag):
        calls.append((folder.relative_to(tmp_path).as_posix(), dict(options), flag))
        return result(70)

    monkeypatch.setattr(ablation, "_train_net", train_net)
    rows = {
        "best": {"evaluate": "own", "checkpoint": "model_best.pth", "TEST.TTA.ENABLED": True},
        "own": {"MODEL_EMA.ENABLED": True},
    }
    results = run_ablation(AblationPlan(LITE, {"SOLVER.MAX_ITER": 2}, [7], rows), tmp_path, tmp_path, {})
    assert list(results["data"]) == ["best", "own"]
    own = {"SOLVER.MAX_ITER": 2, "MODEL_EMA.ENABLED": True, "SEED": 7}
    weights = str(tmp_path / "own" / "seed7" / "model_best.pth")
    assert calls == [
        ("own/seed7", own, "--resume"),
        ("best/seed7", {**own, "TEST.TTA.ENABLED": True, "MODEL.WEIGHTS": weights}, "--eval-only"),
    ]


def test_results_of_another_plan_are_not_reused(monkeypatch, tmp_path):
    ran = []

    def run(command, **_):
        folder = Path(command[command.index("OUTPUT_DIR") + 1])
        (folder / "results.json").write_text(json.dumps(result(70)))
        ran.append(folder.name)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr("subprocess.run", run)

    def ablate(options, rows):
        return run_ablation(AblationPlan(LITE, options, [7], rows), tmp_path, tmp_path, {})

    rows = {"base": {}, "other": {"INPUT.SCALE": 1.0}}
    ablate({"SOLVER.MAX_ITER": 2}, rows)
    ablate({"SOLVER.MAX_ITER": 2}, rows)
    assert len(ran) == 2  # the second time all is there
    with pytest.raises(
        InputError, match=r"seed7 was made by another plan \(SOLVER\.MAX_ITER 2 there, 3 now\)"
    ):
        ablate({"SOLVER.MAX_ITER": 3}, rows)
    with pytest.raises(
        InputError, match=r"other/seed7 was made by another plan \(INPUT\.SCALE 1\.0 there, 0\.25 now"
    ):
        ablate({"SOLVER.MAX_ITER": 2}, {**rows, "other": {"INPUT.SCALE": 0.25}})
    (tmp_path / "base" / "seed7" / "plan.json").unlink()
    with pytest.raises(InputError, match="holds a run without plan"):
        ablate({"SOLVER.MAX_ITER": 2}, rows)
    assert len(ran) == 2


def test_what_a_prediction_gave_is_one_line_of_the_table_and_not_predicted_again(tmp_path):
    (tmp_path / "voc" / "annotations").mkdir(parents=True)
    (tmp_path / "voc" / "annotations" / "instances_val.json").touch()
    part = {
        "class_names": ["RBC", "WBC"],
        "confusion": [[90, 2, 8], [1, 18, 1], [4, 0, 0]],  # rows true, columns predicted, the last for none
        "intervals": {"all": {"mAP@0.5": {"value": 0.9}}},
        "instances": {key: {"all classes": {"f1": f1}} for key, f1 in (("all", 0.8), ("interior", 0.85))},
    }
    judged = tmp_path / "base" / "seed7" / "predicted_voc_val" / "judged"
    judged.mkdir(parents=True)
    (judged / "metrics.json").write_text(json.dumps({"parts": {"Val": part}}))
    plan = AblationPlan(LITE, {"DATASETS.TEST": ["voc_val"]}, [7], {"base": {}, "same": {"evaluate": "base"}})
    _, _, line = predict_laboratories(plan, tmp_path, tmp_path).splitlines()
    row = [cell.strip() for cell in line.strip("|").split("|")]
    assert row == ["base", "7", "voc_val", "0.900", "0.800", "0.850", "2 of 92", "18 of 20"]
