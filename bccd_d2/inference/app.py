"""A page that finds the cells of an image that is dropped on it (extra ``app``)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bccd_d2.errors import InputError
from bccd_d2.inference.finder import CellFinder
from bccd_d2.inference.results import ImageResult
from bccd_d2.inference.writers import DEFAULT_FORMATS, FORMATS, write_formats
from bccd_d2.inference.writers.images import overview
from bccd_d2.inference.writers.tables import count_rows
from bccd_d2.io.images import open_source
from bccd_d2.io.sources import ArraySource
from bccd_d2.reporting.overlay import Color, class_color, draw_cells

DEFAULT_THRESHOLD = 0.5
LOWEST_THRESHOLD = 0.05
"""The predictor's own threshold should be this: the slider moves without the network then."""

# What visitors leave is deleted at this age, looked for as often.
_SECONDS_KEPT = 3600
# Of the picture on the page; files have the image's own size.
_MAX_SHOWN_SIDE = 2000
COUNT_HEADERS = ("class", "cells", "share (%)", "counting frame")
CELL_HEADERS = {
    "id": "cell",
    "class": "class",
    "score": "score",
    "x_px": "x (px)",
    "y_px": "y (px)",
    "area_px": "area (px)",
    "equivalent_diameter_px": "diameter (px)",
    "circularity": "circularity",
    "touches_border": "at the border",
}


@dataclass(frozen=True)
class UploadLimits:
    """What the page accepts.

    Attributes:
        megabytes: of a file.
        megapixels: of an image.
    """

    megabytes: float = 50
    megapixels: float = 40

    def __post_init__(self) -> None:
        if self.megabytes <= 0 or self.megapixels <= 0:
            raise InputError(
                f"limits: expected numbers above 0, found {self.megabytes} MB and {self.megapixels} megapixels"
            )


def find_cells(path: str | Path, predictor: CellFinder, limits: UploadLimits) -> ImageResult:
    """Find the cells of one file, with its pixels in memory.

    Args:
        path: of the image; only its first page is looked at.
        predictor: its score threshold decides which cells are kept at all.
        limits: what is accepted.

    Raises:
        InputError: the file is too large or no image; the message names it without its folder.
    """
    path = Path(path)
    try:
        megabytes = path.stat().st_size / 1e6
        if megabytes > limits.megabytes:
            raise InputError(f"{megabytes:.1f} MB, this page accepts {limits.megabytes:g} MB")
        with open_source(path, max_pixels=round(limits.megapixels * 1e6)) as source:
            megapixels = source.height * source.width / 1e6
            if megapixels > limits.megapixels:
                raise InputError(
                    f"{source.width}x{source.height} pixels, this page accepts {limits.megapixels:g} megapixels"
                )
            pixels = source.read(0, 0, source.width, source.height)
            microns = predictor.options.microns_per_pixel or source.microns_per_pixel
    except (InputError, OSError) as error:
        reason = str(error).replace(str(path), path.name)
        raise InputError(reason if path.name in reason else f"{path.name}: {reason}") from error
    kept = ArraySource(pixels, path.name, microns)
    cells = predictor.predict_source(kept)
    return ImageResult(path.stem, kept, cells[cells.areas > 0], predictor.class_names, microns)


def chosen(result: ImageResult, threshold: float, colors: Sequence[str]) -> ImageResult:
    """The cells with at least this score, in colours as the page's pickers give them.

    Args:
        result: of :func:`find_cells`.
        threshold: in [0, 1].
        colors: by class index, see :func:`parse_color`.
    """
    return replace(
        result,
        cells=result.cells[result.cells.scores >= threshold],
        colors=[parse_color(color) for color in colors],
    )


def parse_color(text: str) -> Color:
    """BGR of "#rrggbb", or of "rgba(r, g, b, a)" with fractions, as browsers' colour pickers give them.

    Raises:
        InputError: the text is neither.
    """
    try:
        if text.startswith("#") and len(text) == 7:
            red, green, blue = (int(text[start : start + 2], 16) for start in (1, 3, 5))
        else:
            red, green, blue = (
                round(float(part)) for part in text.partition("(")[2].rstrip(")").split(",")[:3]
            )
    except ValueError as error:
        raise InputError(f"colour: expected #rrggbb or rgba(r, g, b, a), found {text!r}") from error
    return blue, green, red


def format_color(color: Color) -> str:
    """BGR as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*reversed(color))


def picture(result: ImageResult) -> NDArray[np.uint8]:
    """The image with its cells, (height, width, 3) uint8 RGB, no side above 2000 pixels."""
    drawn = draw_cells(
        overview(result.source, _MAX_SHOWN_SIDE),
        result.cells,
        result.class_names,
        colors=result.colors,
        microns_per_pixel=result.microns_per_pixel,
    )
    return np.asarray(cv2.cvtColor(drawn, cv2.COLOR_BGR2RGB), np.uint8)


def count_table(result: ImageResult) -> list[list[Any]]:
    """One row per class and one for all: name, cells, share in percent, cells of the counting frame."""
    return [
        [name, number, None if share is None else round(100 * float(share), 1), framed]
        for _, name, number, share, framed, *_ in count_rows(result.name, result.counts)
    ]


def cell_table(result: ImageResult) -> list[list[Any]]:
    """One row per cell with what ``CELL_HEADERS`` names; fractions with two digits."""
    columns = [result.measurements[name].tolist() for name in CELL_HEADERS]
    return [
        [round(value, 2) if isinstance(value, float) else value for value in row] for row in zip(*columns)
    ]


def import_gradio() -> Any:
    """gradio, told not to call home.

    Raises:
        InputError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise InputError("the page needs gradio; pip install 'bccd_d2[app]'") from error
    return gradio


def build_app(predictor: CellFinder, limits: UploadLimits, example: Path | None = None) -> Any:
    """The page, a ``gradio.Blocks`` to be launched.

    Args:
        predictor: finds the cells; its score threshold should be :data:`LOWEST_THRESHOLD`.
        limits: of uploads.
        example: an image that a visitor can try.

    Raises:
        InputError: gradio is not installed.
    """
    gr = import_gradio()

    @contextmanager
    def messages() -> Iterator[None]:
        """Bad input as a message on the page that stays until it is read."""
        try:
            yield
        except (InputError, OSError, MemoryError) as error:
            text = str(error) or "not enough memory for this image"
            raise gr.Error(text, duration=None, title="Not done", print_exception=False) from error

    def show(result: ImageResult | None, threshold: float, *colors: str) -> list[Any]:
        if result is None:
            return [None, None, None]
        with messages():
            visible = chosen(result, threshold, colors)
            return [picture(visible), count_table(visible), cell_table(visible)]

    def find(path: str | None, threshold: float, *colors: str) -> list[Any]:
        if path is None:
            return [None, *show(None, threshold)]
        with messages():
            result = find_cells(path, predictor, limits)
        return [result, *show(result, threshold, *colors)]

    def write(
        previous: str | None,
        result: ImageResult | None,
        formats: Sequence[str],
        threshold: float,
        *colors: str,
    ) -> tuple[list[str], str]:
        with messages():
            if result is None or not formats:
                raise InputError("Choose an image and one or more formats first.")
            delete(previous)
            folder = tempfile.mkdtemp(prefix="bccd_d2-")
            written = write_formats(chosen(result, threshold, colors), Path(folder), formats)
            # Downloads have no folders, and two formats are PNG.
            named = [path.rename(path.with_name(f"{path.parent.name}-{path.name}")) for path in written]
            return [str(path) for path in named], folder

    with gr.Blocks(
        analytics_enabled=False, title="Blood cells", delete_cache=(_SECONDS_KEPT, _SECONDS_KEPT)
    ) as app:
        found = gr.State(time_to_live=_SECONDS_KEPT)
        made = gr.State(time_to_live=_SECONDS_KEPT, delete_callback=delete)
        gr.Markdown(
            "# Blood cells\n"
            f"Drop an image of a stained smear: PNG, JPEG, BMP or TIFF up to {limits.megabytes:g} MB and "
            f"{limits.megapixels:g} megapixels. It stays on the machine that runs this page and is deleted within "
            "two hours. For research, not for diagnosis."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                upload = gr.File(label="Image", type="filepath", height=140, elem_id="upload")
                if example is not None:
                    gr.Button("Try a synthetic smear", size="sm").click(lambda: str(example), None, upload)
                threshold = gr.Slider(
                    LOWEST_THRESHOLD,
                    1,
                    DEFAULT_THRESHOLD,
                    step=0.01,
                    label="Score threshold",
                    elem_id="threshold",
                )
                with gr.Row():
                    colors = [
                        gr.ColorPicker(format_color(class_color(index)), label=name, min_width=80)
                        for index, name in enumerate(predictor.class_names)
                    ]
                counts = gr.Dataframe(
                    headers=list(COUNT_HEADERS), label="Counts", interactive=False, elem_id="counts"
                )
                formats = gr.CheckboxGroup(
                    list(FORMATS), value=list(DEFAULT_FORMATS), label="Formats", elem_id="formats"
                )
                make = gr.Button("Make files", elem_id="make")
                files = gr.File(label="Files", file_count="multiple", interactive=False, elem_id="files")
            with gr.Column(scale=2):
                overlay = gr.Image(
                    show_label=False,  # the label would cover the legend of the picture
                    format="png",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="overlay",
                )
                cells = gr.Dataframe(
                    headers=list(CELL_HEADERS.values()),
                    label="Cells",
                    interactive=False,
                    max_height=320,
                    elem_id="cells",
                )
        looks = [threshold, *colors]
        shown = [overlay, counts, cells]
        upload.change(find, [upload, *looks], [found, *shown])
        for look in looks:
            look.change(show, [found, *looks], shown, show_progress="hidden", trigger_mode="always_last")
        make.click(write, [made, found, formats, *looks], [files, made])
    return app


def delete(folder: str | None) -> None:
    """Delete a folder, if there is one."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def launch_app(app: Any, limits: UploadLimits, **options: Any) -> Any:
    """Launch a page of :func:`build_app`; files beyond the limit are refused while they are uploaded.

    Args:
        app: the page.
        limits: of uploads.
        options: of ``gradio.Blocks.launch``.
    """
    # One image at a time; visitors wait in line.
    return app.queue(default_concurrency_limit=1).launch(
        max_file_size=round(limits.megabytes * 1e6), share=False, footer_links=[], **options
    )
