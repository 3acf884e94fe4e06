from pathlib import Path

import pytest
import yaml

from bccd_d2.config import load_config
from bccd_d2.engine.ablation import AblationPlan, ablation_table
from bccd_d2.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
PLAN = {"config": "c.yaml", "options": {}, "seeds": [1], "rows": {"base": {}, "other": {"INPUT.SCALE": 1.0}}}


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs" / "ablations").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_plan_names_keys_that_exist(path):
    plan = AblationPlan.read(path)
    for changes in plan.rows.values():
        words = [str(word) for pair in {**plan.options, **changes}.items() for word in pair]
        load_config(REPOSITORY / plan.config, words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": {}}, "rows: expected a dict"),
        ({"rows": {"a": None}}, "rows: a: expected a dict of configuration keys, found None"),
        ({"seeds": 3}, "seeds: expected a list, found 3"),
        ({"extra": 1}, "expected the keys config, options, seeds, rows, found"),
    ],
)
def test_a_wrong_plan_is_named(tmp_path, change, message):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN | change))
    with pytest.raises(InputError, match=message) as caught:
        AblationPlan.read(path)
    assert str(path) in str(caught.value)


def result(ap):
    return {"bccd_val": {"segm": {"AP": ap, "AP50": 90, "AP75": 80}, "overlap": {"IoU": 85, "Dice": 92}}}


def test_the_table_gives_mean_and_spread():
    lines = ablation_table({"base": [result(70), result(74)], "other": [result(75)]}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["row", "seeds", "mask AP", "mask AP50", "mask AP75", "IoU", "Dice"]
    # mean (70 + 74) / 2, sample standard deviation sqrt(2 * 2^2 / 1) = 2.828
    assert cells[2] == [
        "base",
        "2",
        "0.720 ± 0.028",
        "0.900 ± 0.000",
        "0.800 ± 0.000",
        "0.850 ± 0.000",
        "0.920 ± 0.000",
    ]
    assert cells[3][:3] == ["other", "1", "0.750"]
