from bccd_d2.visualization.run import headline, metrics_bar, training_loss

RESULTS = {
    "bccd_val": {
        "overlap": {"IoU": 81.0, "Dice": 89.0, "mAP50": 42.0},
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
