"""A page that finds the cells of an image that somebody drops on it (extra ``app``)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bccd_d2.errors import InputError
from bccd_d2.inference.batch import Predictor
from bccd_d2.inference.result import ImageResult
from bccd_d2.inference.upload import (
    CELL_HEADERS,
    COUNT_HEADERS,
    UploadLimits,
    cell_table,
    chosen,
    count_table,
    find_cells,
    format_color,
    picture,
)
from bccd_d2.inference.writers import DEFAULT_FORMATS, FORMATS, write_formats
from bccd_d2.reporting.overlay import class_color

DEFAULT_THRESHOLD = 0.5
LOWEST_THRESHOLD = 0.05
"""The predictor's own threshold should be this: the slider moves without the network then."""

# What visitors leave is deleted at this age, looked for as often.
_SECONDS_KEPT = 3600


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


def build_app(predictor: Predictor, limits: UploadLimits, example: Path | None = None) -> Any:
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
                    gr.Button("Try a drawn smear", size="sm").click(lambda: str(example), None, upload)
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
