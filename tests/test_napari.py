"""The plugin of napari: its layers without a window, its widget in napari's own test viewer."""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

if "DISPLAY" not in os.environ:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("napari", reason="napari is absent: pip install 'bccd_d2[napari]'")

from napari.components import ViewerModel
from npe2 import PluginManifest
from npe2.manifest.utils import import_python_name

from bccd_d2.engine.corrected import read_corrected
from bccd_d2.errors import InputError
from bccd_d2.inference.results import ImageResult
from bccd_d2.io.sources import ArraySource
from bccd_d2.napari import widget as module
from bccd_d2.napari.layers import add_layers, cells_of, pixels_of, rgba, save_correction, set_class
from bccd_d2.napari.widget import CellWidget
from bccd_d2.structures.cells import Cells
from bccd_d2.synthetic import draw_smear
from tests.inference.tiny_network import CLASS_NAMES, write_tiny_run

NAMES = ["RBC", "WBC"]
HEIGHT, WIDTH = 120, 160
IMAGE = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]


def disc(x, y, radius):
    return np.hypot(COLUMNS - x, ROWS - y) <= radius


@pytest.fixture
def result():
    """Two red cells and a white one that has a hole."""
    masks = [disc(30, 30, 15), disc(90, 40, 20) & ~disc(90, 40, 3), disc(150, 100, 15)]
    cells = Cells.from_masks(HEIGHT, WIDTH, masks, classes=[0, 1, 0], scores=[0.9, 0.8, 0.7])
    return ImageResult("field 1", ArraySource(IMAGE), cells, NAMES)


@pytest.fixture
def layers(result):
    viewer = ViewerModel()
    image = viewer.add_image(IMAGE, rgb=True, name="field 1", scale=(0.5, 0.5))
    return viewer, *add_layers(viewer, image, result)


def test_cells_are_layers_with_class_score_and_measurements_in_their_colours(layers, result):
    _, labels, shapes = layers
    assert [tuple(layer.scale) for layer in (labels, shapes)] == [(0.5, 0.5)] * 2
    np.testing.assert_array_equal(labels.data, result.cells.label_image())
    for layer in (labels, shapes):
        assert list(layer.features["class"]) == ["RBC", "WBC", "RBC"]
        np.testing.assert_array_equal(layer.features["area_px"], result.cells.areas)
    assert list(labels.features["index"]) == [1, 2, 3]
    for index, category in enumerate(result.cells.classes):
        np.testing.assert_allclose(shapes.edge_color[index], rgba(category))
        np.testing.assert_allclose(labels.get_color(index + 1), rgba(category))


def test_layers_that_were_not_changed_give_the_same_cells(layers, result):
    _, labels, shapes = layers
    from_labels = cells_of(labels, HEIGHT, WIDTH, NAMES, "RBC")
    from_shapes = cells_of(shapes, HEIGHT, WIDTH, NAMES, "RBC")
    assert np.diag(result.cells.ious(from_labels)).tolist() == [1, 1, 1]
    assert np.diag(result.cells.ious(from_shapes)).min() > 0.95  # few corners, and the hole is filled
    for cells in (from_labels, from_shapes):
        assert cells.classes.tolist() == [0, 1, 0]


def test_corrections_are_read_by_the_adaptation(layers, tmp_path):
    _, _, shapes = layers
    shapes.selected_data = {1}
    assert set_class(shapes, "RBC", NAMES) == 1
    shapes.selected_data = {2}
    shapes.remove_selected()
    assert set_class(shapes, "WBC", NAMES) == 0
    # Corners in the middle of pixels: 20 rows of 10 columns.
    shapes.add_rectangles(np.array([[59.5, 9.5], [59.5, 19.5], [79.5, 19.5], [79.5, 9.5]]))
    shapes.add_ellipses(np.array([[70, 40], [70, 60], [100, 60], [100, 40]]))
    cells = cells_of(shapes, HEIGHT, WIDTH, NAMES, "RBC")
    assert cells.classes.tolist() == [0, 0, 1, 1]
    assert cells.windows[2].tolist() == [10, 60, 20, 80] and cells.areas[2] == 200
    assert cells.areas[3] == pytest.approx(np.pi * 10 * 15, rel=0.05)  # by the pixels on its outline
    path = save_correction(tmp_path / "corrected", "field 1", IMAGE, cells, NAMES)
    document, root = read_corrected(tmp_path / "corrected", None, None, None)
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert [names[a["category_id"]] for a in document["annotations"]] == ["RBC", "RBC", "WBC", "WBC"]
    assert [a["area"] for a in document["annotations"]] == cells.areas.tolist()
    assert root / document["images"][0]["file_name"] == path.with_suffix(".png").resolve()


def test_a_painted_label_is_a_cell_of_the_chosen_class(layers):
    _, labels, _ = layers
    labels.data[5:10, 100:110] = 4
    labels.data[labels.data == 1] = 0
    labels.selected_label = 4
    set_class(labels, "WBC", NAMES)
    labels.data[100:105, 10:20] = 5  # without a class
    cells = cells_of(labels, HEIGHT, WIDTH, NAMES, "RBC")
    assert cells.classes.tolist() == [1, 0, 1, 0]
    assert cells.areas[-2:].tolist() == [50, 50]


def test_what_is_no_cell_is_refused(layers, tmp_path):
    viewer, _, shapes = layers
    with pytest.raises(InputError, match="no cells, expected"):
        save_correction(tmp_path, "a", IMAGE, Cells.from_masks(9, 9, []), NAMES)
    with pytest.raises(InputError, match="class 'WBC': expected one of RBC"):
        cells_of(shapes, HEIGHT, WIDTH, ["RBC"], "RBC")
    shapes.add_lines(np.array([[0, 0], [9, 9]]))
    with pytest.raises(InputError, match="field 1 cells: a line, expected polygons"):
        cells_of(shapes, HEIGHT, WIDTH, NAMES, "RBC")
    with pytest.raises(InputError, match=r"stack: shape \(2, 5, 6\), expected one image"):
        pixels_of(viewer.add_image(np.zeros((2, 5, 6), np.uint8), name="stack"))


def test_pixels_are_what_the_reader_gives():
    viewer = ViewerModel()
    rgb = np.zeros((4, 5, 4), np.uint8)
    rgb[..., 0] = 255
    assert pixels_of(viewer.add_image(rgb, rgb=True))[0, 0].tolist() == [0, 0, 255]
    deep = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (64, 1))  # a camera of 12 bits
    grey = pixels_of(viewer.add_image(deep))
    assert grey.shape == (64, 64, 3) and grey[0, -1].tolist() == [255] * 3


def test_napari_finds_the_plugin():
    manifest = PluginManifest.from_file(Path(module.__file__).parents[1] / "napari.yaml")
    (command,) = manifest.contributions.commands
    assert import_python_name(command.python_name) is CellWidget
    text = (Path(module.__file__).parents[2] / "setup.py").read_text(encoding="utf-8")
    assert '"napari.manifest": ["bccd_d2 = bccd_d2:napari.yaml"]' in text


ADAPT = """
import sys
print(*sys.argv[1:])
print("\x1b[32m[11/28 09:51:38 bccd_d2.data]: \x1b[0mof the log")
print("cells to paste: 100%|##########| 1/1 of the log")
print("|  category  | #instances of the log |")
if STATUS == 2:
    import time
    time.sleep(600)
for iteration in (1, 2):
    print(f"iteration {iteration}/2  loss 1.0", flush=True)
print("| 1 training image | before | after |")
sys.exit(STATUS)
"""


@pytest.mark.skipif(
    importlib.util.find_spec("pytestqt") is None, reason="pytest-qt is absent: pip install pytest-qt"
)
@pytest.mark.skipif(
    sys.platform == "linux" and "DISPLAY" not in os.environ,
    reason="napari's window needs OpenGL, which Qt has under an X server only: run with xvfb-run",
)
@pytest.mark.parametrize("status", [0, 1, 2])
def test_find_correct_and_retrain(make_napari_viewer, qtbot, tmp_path, monkeypatch, status):
    (tmp_path / "run").mkdir()
    write_tiny_run(tmp_path / "run")
    viewer = make_napari_viewer()
    viewer.add_image(draw_smear(1, 260, 200).image[..., ::-1], rgb=True, name="smear")
    widget = CellWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.run.value, widget.score.value = str(tmp_path / "run"), 0.35
    widget.diameter.value = "large"
    widget.find.changed.emit(True)
    assert widget.message.value == "error: diameter: expected a number of pixels or auto, found 'large'"
    widget.retrain.changed.emit(True)
    assert widget.message.value == "error: correction: choose a layer"
    widget.diameter.value = "40"
    widget.find.changed.emit(True)
    qtbot.waitUntil(lambda: widget.find.enabled, timeout=120_000)
    assert widget.message.value.startswith("error: diameter is given, but INPUT.CELL_DIAMETER")
    widget.diameter.value = "auto"
    widget.find.changed.emit(True)
    viewer.add_image(IMAGE, rgb=True, name="other", scale=(2, 2))
    widget.image.value = viewer.layers["other"]  # while the cells of the first are looked for
    qtbot.waitUntil(lambda: widget.find.enabled, timeout=120_000)
    assert len(viewer.layers) == 4, widget.message.value
    shapes = viewer.layers["smear cells"]
    assert tuple(shapes.scale) == (1, 1)
    widget.image.value = viewer.layers["smear"]
    assert widget.corrected.value is shapes
    assert set(shapes.features["class"]) <= set(CLASS_NAMES) == set(widget.cell_class.choices)
    assert widget.message.value.startswith(f"{len(shapes.data)} cells: ")

    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "adapt.py").write_text(ADAPT.replace("STATUS", str(status)))
    monkeypatch.setattr(module, "shipped_folder", tmp_path.joinpath)
    widget.folder.value, widget.output.value = tmp_path / "corrected", tmp_path / "ours"
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "of an earlier training").touch()
    qtbot.waitUntil(lambda: widget.find.enabled, timeout=10_000)
    widget.retrain.changed.emit(True)
    assert widget.retrain.text == "Stop"
    if status == 2:
        qtbot.waitUntil(lambda: "--corrected" in widget.message.value, timeout=60_000)
        widget.retrain.changed.emit(True)
    qtbot.waitUntil(lambda: widget.retrain.text == "Retrain on this", timeout=60_000)
    text = widget.message.value
    assert (
        f"--corrected {tmp_path / 'corrected'} --output {tmp_path / 'ours-2'} --run {tmp_path / 'run'}"
        in text
    )
    assert ("| 1 training image | before | after |" in text) == (status < 2)
    assert "of the log" not in text
    bar = widget.message.native.verticalScrollBar()
    assert bar.value() == bar.maximum()  # the last line is in view
    assert text.splitlines()[-1].endswith(("after |", "ended with status 1", "stopped")[status])
    assert widget.run.value == str(tmp_path / ("run" if status else "ours-2"))
    assert sorted(path.name for path in (tmp_path / "corrected").iterdir()) == ["smear.json", "smear.png"]
