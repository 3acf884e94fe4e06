"""The widget of napari: choose a model, find cells, correct them, save the correction, and train further on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported

# isort: split
import torch
from magicgui import widgets
from napari import Viewer
from napari.layers import Image, Labels, Shapes
from napari.qt.threading import create_worker

from bccd_d2.cell_types.typer import CellTyper, find_classifiers
from bccd_d2.errors import InputError
from bccd_d2.files import shipped_folder
from bccd_d2.inference.model_files import SHIPPED_MODEL, WEIGHTS_FOLDER, find_model, model_names
from bccd_d2.inference.options import AUTO, DEFAULT_SCORE_THRESHOLD, PredictionOptions
from bccd_d2.inference.predict_file import predict_image
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.inference.results import ImageResult
from bccd_d2.io.sources import ArraySource
from bccd_d2.napari.layers import add_layers, cells_of, pixels_of, save_correction, set_class

_ITERATION = re.compile(r"iteration (\d+)/(\d+)")
_LINES_SHOWN = 12
# Progress bars, notes of torch, and what Detectron2 logs, with tables: warnings and errors begin with their level.
_NOT_SHOWN = re.compile(r"(\x1b\[\d+m)*(\[\d\d/\d\d |[\w ]*: +\d+%\||[WI]\d{4} |\|(  |:))")


class CellWidget(widgets.Container):
    """Finds the cells of the chosen image layer, and trains the model further on corrected layers."""

    def __init__(self, napari_viewer: Viewer) -> None:
        self._viewer = napari_viewer
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self.image = self._layer_choice("image", Image)
        self.model = widgets.ComboBox(label="model", choices=model_names(), value=SHIPPED_MODEL)
        self.run = widgets.LineEdit(label="or run folder", tooltip="of tools/train_net.py or tools/adapt.py")
        self.diameter = widgets.LineEdit(
            label="diameter", value=AUTO, tooltip="of a red cell in pixels, or auto to estimate it"
        )
        self.score = widgets.FloatSlider(
            label="score threshold", min=0.05, max=0.99, step=0.01, value=DEFAULT_SCORE_THRESHOLD
        )
        self.types = widgets.CheckBox(text="types of white and red cells")
        self.no_overlap = widgets.CheckBox(text="no overlap")
        self.split_touching = widgets.CheckBox(text="split touching cells")
        self.find = widgets.PushButton(text="Find cells")
        self.corrected = self._layer_choice("correction", (Shapes, Labels))
        self.cell_class = widgets.ComboBox(label="class", choices=[])
        self.set_class = widgets.PushButton(text="Set class of selected and new cells")
        self.folder = widgets.FileEdit(label="save to", mode="d", value=Path("corrected"))
        self.save = widgets.PushButton(text="Save correction")
        self.output = widgets.FileEdit(label="new model", mode="d", value=Path("models/ours"))
        self.retrain = widgets.PushButton(text="Retrain on this")
        self.progress = widgets.ProgressBar(value=0, min=0, max=1, visible=False)
        self.message = widgets.TextEdit(value="For research, not for diagnosis.")
        self.message.read_only = True
        super().__init__(
            widgets=[
                *(self.image, self.model, self.run, self.diameter, self.score),
                *(self.types, self.no_overlap, self.split_touching, self.find),
                *(self.corrected, self.cell_class, self.set_class, self.folder, self.save),
                *(self.output, self.retrain, self.progress, self.message),
            ]
        )
        for signal in (napari_viewer.layers.events.inserted, napari_viewer.layers.events.removed):
            signal.connect(lambda _: self.reset_choices())
        self.find.changed.connect(self._find)
        self.set_class.changed.connect(self._set_class)
        self.save.changed.connect(lambda: self._try(self._save))
        self.retrain.changed.connect(self._retrain)

    def _layer_choice(self, label: str, kinds: Any) -> widgets.ComboBox:
        layers = self._viewer.layers
        return widgets.ComboBox(
            label=label,
            choices=lambda _: [layer for layer in layers if isinstance(layer, kinds)],
        )

    def _find(self) -> None:
        """Predict in a thread, so that the viewer stays alive."""

        def start() -> None:
            layer = _chosen(self.image, "image")
            self._start(self._prediction(layer), lambda result: self._show(result, layer))

        self._try(start)

    def _prediction(self, layer: Image) -> Callable[[], ImageResult | str]:
        """What finds the cells; it returns what is wrong with the input, which a worker would take for a fault."""
        files = find_model(run=Path(self.run.value)) if self.run.value else find_model(name=self.model.value)
        options = PredictionOptions(
            score_threshold=self.score.value,
            diameter=_diameter(self.diameter.value),
            no_overlap=self.no_overlap.value,
            split_touching=self.split_touching.value,
        )
        with_types = self.types.value

        def predict() -> ImageResult | str:
            try:
                predictor = _load(files.config, files.weights)
                predictor.options = options
                typer = _load_typer(tuple(predictor.class_names)) if with_types else None
                result = predict_image(ArraySource(pixels_of(layer)), layer.name, predictor, typer=typer)
                result.measurements  # noqa: B018  measured here rather than in the viewer's thread
            except (InputError, OSError) as error:
                return f"error: {error}"
            return result

        return predict

    def _show(self, result: ImageResult | str, image: Image) -> None:
        if isinstance(result, str):
            self._say(result)
            return
        _, shapes = add_layers(self._viewer, image, result)
        self.corrected.value = shapes
        self.cell_class.choices = list(result.class_names)
        counts = ", ".join(f"{number} {name}" for name, number in result.counts.cells.items())
        self._say(f"{len(result.cells)} cells: {counts}")

    def _set_class(self) -> None:
        def change() -> str:
            layer = _chosen(self.corrected, "correction")
            names = list(self.cell_class.choices)
            return f"{set_class(layer, self.cell_class.value, names)} cells are {self.cell_class.value}"

        self._try(lambda: self._say(change()))

    def _save(self) -> Path:
        layer, image = _chosen(self.corrected, "correction"), _chosen(self.image, "image")
        pixels, names = pixels_of(image), list(self.cell_class.choices)
        if not names:
            raise InputError("find cells first: the classes of the correction are those of the model")
        cells = cells_of(layer, pixels.shape[0], pixels.shape[1], names, self.cell_class.value)
        path = save_correction(self.folder.value, image.name, pixels, cells, names)
        self._say(f"{len(cells)} cells of {image.name}: {path}")
        return path

    def _retrain(self) -> None:
        """Save, and run tools/adapt.py in a process; a second press stops it."""
        if self._process is not None:
            self._stopped = True
            self._process.terminate()
            return

        def start() -> None:
            folder = self._save().parent
            model = ["--run", self.run.value] if self.run.value else ["--model", self.model.value]
            output = _free_folder(Path(self.output.value))
            if output != Path(self.output.value):
                self.output.value = output
            command = [sys.executable, str(shipped_folder("tools") / "adapt.py"), "--corrected", str(folder)]
            lines = self._training([*command, "--output", str(output), *model])
            self.retrain.text, self._stopped = "Stop", False
            worker = self._start(lines, lambda status: self._trained(status, output))
            worker.yielded.connect(self._show_line)

        self._try(start)

    def _training(self, command: list[str]) -> Callable[[], Iterator[str]]:
        """Its lines while it runs; its exit status at the end."""
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
        process = self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=environment,
        )

        def lines() -> Any:
            assert process.stdout is not None
            for line in process.stdout:
                yield line.rstrip()
            return process.wait()

        return lines

    def _show_line(self, line: str) -> None:
        if _NOT_SHOWN.match(line):
            return
        if found := _ITERATION.match(line):
            self.progress.max, self.progress.value = int(found[2]), int(found[1])
        self._say("\n".join([*self.message.value.splitlines(), line][-_LINES_SHOWN:]))
        bar = self.message.native.verticalScrollBar()
        bar.setValue(bar.maximum())

    def _trained(self, status: int, output: Path) -> None:
        self._process, self.retrain.text = None, "Retrain on this"
        if status == 0:
            self.run.value = str(output)  # what the next search uses
        else:
            self._show_line("stopped" if self._stopped else f"the training ended with status {status}")

    def _start(self, function: Callable[[], Any], done: Callable[[Any], None]) -> Any:
        """Run a function or a generator in a thread, and hand its result to ``done`` in the viewer's thread."""

        def stop() -> None:
            self.progress.visible, self.find.enabled = False, True

        worker = create_worker(function, _start_thread=False)
        worker.returned.connect(done)
        worker.finished.connect(stop)
        self.find.enabled = False
        self.progress.max = self.progress.value = 0  # busy, of unknown length
        self.progress.visible = True
        worker.start()
        return worker

    def _try(self, action: Callable[[], Any]) -> None:
        """Say what is wrong with the input."""
        try:
            action()
        except (InputError, OSError) as error:
            self._say(f"error: {error}")

    def _say(self, text: str) -> None:
        self.message.value = text


def _chosen(choice: widgets.ComboBox, what: str) -> Any:
    if choice.value is None:
        raise InputError(f"{what}: choose a layer")
    return choice.value


def _free_folder(folder: Path) -> Path:
    """``folder``, or with a number behind it where something is in it: each training has a folder of its own."""
    names = chain([folder], (folder.with_name(f"{folder.name}-{number}") for number in count(2)))
    return next(path for path in names if not path.exists() or not any(path.iterdir()))


def _diameter(text: str) -> float | Literal["auto"]:
    if text.strip() == AUTO:
        return AUTO
    with suppress(ValueError):
        return float(text)
    raise InputError(f"diameter: expected a number of pixels or {AUTO}, found {text!r}")


@lru_cache(maxsize=1)
def _load(config: str, weights: str) -> BCCDPredictor:
    return BCCDPredictor(config, weights, device="cuda" if torch.cuda.is_available() else None)


@lru_cache(maxsize=1)
def _load_typer(class_names: tuple[str, ...]) -> CellTyper:
    return CellTyper.load(find_classifiers(WEIGHTS_FOLDER, class_names))
