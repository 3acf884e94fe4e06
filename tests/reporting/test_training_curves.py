import json

from bccd_d2.reporting.run_figures import read_records
from bccd_d2.reporting.training_curves import headline, metrics_bar, training_loss

RESULTS = {
    "bccd_val": {
        "overlap": {"IoU": 81.0, "Dice": 89.0},
        "bbox": {"AP50": 42.0},
        "segm": {"AP": 70.0, "AP50": 90.0},
    }
}


def test_headline_is_in_fractions_and_leaves_out_what_is_missing():
    assert headline(RESULTS["bccd_val"]) == {
        "IoU": 0.81,
        "Dice": 0.89,
        "box mAP@0.5": 0.42,
        "mask AP": 0.7,
        "mask AP50": 0.9,
    }


def test_bars_stand_for_the_values():
    (axes,) = metrics_bar(RESULTS).axes
    assert [round(bar.get_height(), 2) for bar in axes.patches] == [0.81, 0.89, 0.42, 0.7, 0.9]
    assert [label.get_text() for label in axes.get_xticklabels()][:2] == ["IoU", "Dice"]


def test_loss_curves_have_a_line_a_loss_and_the_rate():
    records = [
        {"iteration": i, "total_loss": 2.0 / (i + 1), "loss_mask": 1.0 / (i + 1), "lr": 0.1} for i in range(3)
    ]
    loss, rate = training_loss(records).axes
    assert [line.get_label() for line in loss.lines] == ["total", "mask"]
    assert list(loss.lines[0].get_ydata()) == [2.0, 1.0, 2 / 3]
    assert list(rate.lines[0].get_ydata()) == [0.1] * 3


def test_validation_loss_has_its_own_iterations():
    records = [{"iteration": i, "total_loss": 2.0, "loss_mask": 1.0} for i in range(4)]
    validation = [{"iteration": i, "validation/total_loss": 3.0 + i} for i in (1, 3)]
    loss, _ = training_loss(records, validation).axes
    line = loss.lines[1]
    assert line.get_label() == "total, validation"
    assert list(line.get_xdata()) == [1, 3]
    assert list(line.get_ydata()) == [4.0, 6.0]


def test_after_a_resumed_run_the_later_record_counts(tmp_path):
    records = [
        {"iteration": 19, "total_loss": 1.0},
        {"iteration": 19, "total_loss": 2.0},
        {"iteration": 9, "a": 0},
    ]
    (tmp_path / "metrics.json").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert read_records(tmp_path / "metrics.json", "total_loss") == [records[1]]
