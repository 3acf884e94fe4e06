"""Charts and case figures of an evaluation show what they are given."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from bccd_d2.evaluation.average_precision import PrecisionRecallCurve
from bccd_d2.evaluation.bootstrap import HEADLINE, Interval
from bccd_d2.evaluation.calibration import Reliability
from bccd_d2.evaluation.dataset import EvaluationImage
from bccd_d2.evaluation.error_bins import BINS, ImageErrors
from bccd_d2.evaluation.error_table import ErrorBin, ErrorTable
from bccd_d2.reporting import evaluation_figures as figures
from bccd_d2.reporting.cases import Case, case_grid
from bccd_d2.reporting.wording import BIN_COLORS
from bccd_d2.structures.cells import Cells


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def table(**counts):
    bins = {name: ErrorBin(*counts.get(name, (0, 0)), 0.0, 0.0, 0.25, 0.1) for name in BINS}
    splits = {
        "contrast_bin": {
            g: {"truth": {"correct": 3, "false negative": 1}, "prediction": {}}
            for g in ("high", "low", "medium")
        },
        "class": {"cell": {"truth": {"correct": 9}, "prediction": {}}},
    }
    return ErrorTable(bins, splits, (10.0, 20.0))


def test_curves_mark_the_threshold_in_use():
    curve = PrecisionRecallCurve(0.5, [0.5, 0.5, 1.0], [1.0, 0.5, 0.67], [0.9, 0.8, 0.3], 0.3, 0.8)
    (axes,) = figures.precision_recall_curves({"RBC": curve}, 0.5).axes
    line, best, used = axes.lines
    assert list(line.get_xdata()) == [0.5, 0.5, 1.0]
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (1.0, 0.67)
    assert (used.get_xdata()[0], used.get_ydata()[0]) == (0.5, 0.5), "the last with a score of 0.5 or more"
    assert used.get_label() == "in use: score 0.50"


def test_nothing_to_draw_is_said():
    empty = PrecisionRecallCurve(0.5, [], [], [], None, None)
    assert "no ground truth or no predictions" in texts(figures.precision_recall_curves({"RBC": empty}))
    assert "no errors" in texts(figures.error_bars(table(correct=(5, 5))))
    none = Reliability([0, 0.5, 1], [0, 0], [None, None], [None, None], None)
    assert "no predictions" in texts(figures.reliability_curve(none))


def test_confusion_shows_counts_and_shares_of_the_row():
    shown = texts(figures.confusion_matrix([[8, 1, 1], [0, 0, 0], [5, 0, 0]], ["RBC", "WBC"]))
    assert {"8\n80%", "1\n10%", "5", "not found", "no cell there"} <= set(shown)


def test_error_bars_have_the_bins_that_hold_something():
    (axes,) = figures.error_bars(
        table(**{"false negative": (3, 0), "false positive": (0, 2), "correct": (9, 9)})
    ).axes
    assert {label.get_text() for label in axes.get_yticklabels()} == {"false negative", "false positive"}
    widths = {(to_hex(bar.get_facecolor()), bar.get_width()) for bar in axes.patches if bar.get_width()}
    assert widths == {(BIN_COLORS["false negative"], 3), (BIN_COLORS["false positive"], 2)}
    assert " 3 / 0  AP50 +0.250 if fixed" in texts(axes.figure)


def test_splits_are_in_order_and_a_single_group_is_left_out():
    (axes,) = figures.error_splits(table()).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["contrast: low (4)", "contrast: medium (4)", "contrast: high (4)"]
    assert sorted({round(bar.get_width(), 2) for bar in axes.patches}) == [0.25, 0.75]


def test_metrics_are_bars_and_intervals_are_whiskers():
    intervals = dict.fromkeys(HEADLINE, Interval("no ground truth", None, None))
    intervals |= {"AP": Interval(0.7, 0.6, 0.75), "F1": Interval(0.9, None, None)}
    part = SimpleNamespace(name="Val", evaluation=SimpleNamespace(intervals={"all": intervals}))
    (axes,) = figures.metrics_bar([part]).axes
    bars = {HEADLINE[round(bar.get_x() + bar.get_width() / 2)]: bar.get_height() for bar in axes.patches}
    assert bars == {"AP": 0.7, "F1": 0.9}
    assert [label.get_text() for label in axes.get_xticklabels()] == list(HEADLINE)
    segments = axes.collections[0].get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in segments], [[0.6, 0.75], [0.9, 0.9]])


@pytest.mark.parametrize("number", [1, 3])
def test_cases_are_outlined_in_the_colours_of_their_bins(number):
    mask = np.zeros((60, 80), bool)
    mask[10:30, 10:40] = True
    cells, none = Cells.from_masks(60, 80, [mask]), Cells.from_masks(60, 80, [])
    image = EvaluationImage(1, "x.png", None, cells, none, cells[np.array([0, 0])])
    errors = ImageErrors(["false negative"], ["duplicate", None], [None], [0, None])
    case = Case(np.full((60, 80, 3), 200, np.uint8), image, errors, "one image")
    figure = case_grid([case] * number, "Worst")
    assert len(figure.axes) == (1 if number == 1 else 4)
    truth, predicted = figure.axes[0].collections
    assert to_hex(truth.get_color()[0]) == BIN_COLORS["false negative"]
    assert to_hex(predicted.get_color()[0]) == BIN_COLORS["duplicate"]
    assert truth.get_linestyle()[0][1] is not None and predicted.get_linestyle()[0][1] is None
    assert len(predicted.get_segments()) == 1, "the second has a score below the threshold"
    outline = truth.get_segments()[0]
    assert (outline.min(axis=0).tolist(), outline.max(axis=0).tolist()) == ([10, 10], [39, 29])
    assert {"false negative", "duplicate", "annotated", "predicted"} <= {
        t.get_text() for t in figure.legends[0].get_texts()
    }
