"""Figures of a training run."""

import json

import pytest

from bccd_d2.errors import InputError
from bccd_d2.reporting.run_figures import read_records, training_loss


def test_loss_curves_have_one_line_per_loss_and_the_learning_rate():
    records = [
        {"iteration": i, "total_loss": 2.0 / (i + 1), "loss_mask": 1.0 / (i + 1), "lr": 0.1} for i in range(3)
    ]
    validation = [{"iteration": i, "validation/total_loss": 3.0 + i} for i in (1, 3)]
    loss, rate = training_loss(records, validation).axes
    assert [line.get_label() for line in loss.lines] == ["total", "total, validation", "mask"]
    assert list(loss.lines[0].get_ydata()) == [2.0, 1.0, 2 / 3]
    assert loss.lines[1].get_xydata().tolist() == [[1, 4], [3, 6]]
    assert list(rate.lines[0].get_ydata()) == [0.1] * 3
    assert len(training_loss(records).axes[0].lines) == 2


def test_after_a_resumed_run_the_later_record_counts_and_an_unfinished_line_does_not(tmp_path):
    log = tmp_path / "metrics.json"
    records = [
        {"iteration": 19, "total_loss": 1.0},
        {"iteration": 19, "total_loss": 2.0},
        {"iteration": 9, "a": 0},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    log.write_text(lines + '{"iteration": 39, "total')
    assert read_records(log, "total_loss") == [records[1]]
    log.write_text(lines + "3\n")
    with pytest.raises(InputError, match="expected one JSON object with an iteration per line"):
        read_records(log, "total_loss")
