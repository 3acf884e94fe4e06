"""Make the pictures of docs/app.md and docs/napari.md: six steps from the fields of a smear to a model of one's own.

    python docs/screenshots.py                                   # synthetic smears, as in the documentation
    python docs/screenshots.py --input IMAGE [IMAGE ...] --output FOLDER        # photographs

The page runs in headless Chromium (playwright), napari under the display that is there: on a machine without one start
the command with xvfb-run. Where napari is absent its two pictures are left as they are, with a message. What is made of
photographs shows them: publish it only if their licence allows that.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

PAGE, CORRECTION, REPORT, PRINT = "1_page", "2_correction", "3_report", "4_report_print"
NAPARI, RETRAIN = "5_napari", "6_napari_retrain"
NAMES = (PAGE, CORRECTION, REPORT, PRINT, NAPARI, RETRAIN)
_WINDOW = (1280, 820)
_COLORS = 160
_STAGE_MIDDLE = 566  # of the picture, in pixels from the left
_PATIENCE = 3600  # seconds
_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def save(picture: Path, *, shrink: bool = True) -> None:
    """Write a picture again with a palette where it may ``shrink``: half the space, and small marks change colour."""
    if shrink:
        with Image.open(picture) as opened:
            image = opened.convert("RGB")
        palette = image.quantize(_COLORS, Image.Quantize.MEDIANCUT, kmeans=1)
        image.quantize(palette=palette, dither=Image.Dither.NONE).save(picture, optimize=True)
    print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB", flush=True)


def shoot_page(images: list[Path], drawn_class: str, output: Path) -> None:
    """The page with a result, a correction, the report on screen and its second sheet."""
    command = [sys.executable, str(ROOT / "tools" / "app.py"), "--port", "0", "--types"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as server,
        sync_playwright() as playwright,
    ):
        assert server.stdout is not None
        try:
            address = server.stdout.readline().strip()
            browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_CHROMIUM_FLAGS)
            page = browser.new_page(viewport={"width": _WINDOW[0], "height": _WINDOW[1]})
            page.set_default_timeout(1000 * _PATIENCE)
            page.goto(address)
            if images:
                page.locator("#first-files").set_input_files(images)
            else:
                page.get_by_role("button", name="Try three synthetic smears").click()
            page.locator(".field img").nth((len(images) or 3) - 1).wait_for()
            _shoot_cells(page, drawn_class, output)
            _shoot_report(page, output)
        finally:
            server.terminate()


def _shoot_cells(page: Page, drawn_class: str, output: Path) -> None:
    cells = page.evaluate("async () => (await (await fetch('/api/fields/1/cells')).json()).cells")
    shown = [cell for cell in cells if cell["score"] >= 0.5 and not cell["edge"]]
    white = [cell for cell in shown if cell["class"] == 1] or shown
    _click(page, max(white, key=lambda cell: cell["score"]))
    page.screenshot(path=output / f"{PAGE}.png")
    save(output / f"{PAGE}.png")

    # The least sure red cell is deleted, and drawn again: of the synthetic smear it is a white one.
    wrong = min((cell for cell in shown if cell["class"] == 0), key=lambda cell: cell["score"])
    _click(page, wrong)
    page.keyboard.press("Delete")
    page.locator(f"#picture path[data-number='{wrong['number']}']").wait_for(state="detached")
    corners = _corners(wrong)
    page.mouse.move(*_at(page, *_middle(corners)))
    page.mouse.wheel(0, -600)
    page.wait_for_timeout(500)
    page.mouse.down()
    page.mouse.move(_STAGE_MIDDLE, _at(page, *_middle(corners))[1], steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Draw a cell").click()
    page.locator("#draw-class").select_option(drawn_class)
    page.mouse.move(*_at(page, *corners[0]))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*_at(page, *corner))
    page.mouse.up()
    page.locator("#cell").get_by_text("drawn by you").wait_for()
    page.get_by_role("button", name="Draw a cell").click()
    page.locator("#picture path.selected").wait_for()
    page.screenshot(path=output / f"{CORRECTION}.png")
    save(output / f"{CORRECTION}.png")


def _shoot_report(page: Page, output: Path) -> None:
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Smear report").click()
    report = opened.value
    report.set_viewport_size({"width": 960, "height": 1180})
    report.wait_for_load_state("networkidle")
    report.screenshot(path=output / f"{REPORT}.png")
    save(output / f"{REPORT}.png", shrink=False)
    if shutil.which("pdftoppm") is None:
        print(f"{PRINT} is left as it is: pdftoppm is absent (Debian: poppler-utils)", flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        pdf = Path(folder) / "report.pdf"
        report.pdf(path=pdf, prefer_css_page_size=True, print_background=True)
        target = output / PRINT
        subprocess.run(["pdftoppm", "-png", "-r", "100", "-f", "2", "-singlefile", pdf, target], check=True)
    save(output / f"{PRINT}.png", shrink=False)


def _click(page: Page, cell: dict[str, Any]) -> None:
    page.mouse.click(*_at(page, *_middle(_corners(cell))))
    page.locator("#cell dl").wait_for()


def _corners(cell: dict[str, Any]) -> list[tuple[float, float]]:
    """The outer ring of a cell of the page, in pixels of the image."""
    numbers = [float(text) for text in re.findall(r"-?[\d.]+", cell["path"].split("Z")[0])]
    return list(zip(numbers[::2], numbers[1::2]))


def _middle(corners: list[tuple[float, float]]) -> tuple[float, float]:
    columns, rows = zip(*corners)
    return sum(columns) / len(corners), sum(rows) / len(corners)


def _at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Point of the window of a pixel of the image."""
    script = """([x, y]) => {
        const point = new DOMPoint(x, y).matrixTransform(document.querySelector("#picture").getScreenCTM());
        return [point.x, point.y];
    }"""
    left, top = page.evaluate(script, [x, y])
    return left, top


def shoot_napari(image: Path | None, drawn_class: str, output: Path) -> None:
    """The widget with its layers, and while it is trained on a correction."""
    import napari
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QApplication

    from bccd_d2.inference.app.server import EXAMPLES, example_image
    from bccd_d2.io.images import open_source
    from bccd_d2.napari.widget import CellWidget

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if image is None:
            name = next(iter(EXAMPLES))
            image = Path(folder) / f"{name}.png"
            image.write_bytes(example_image(name))
        with open_source(image) as source:
            pixels = source.read(0, 0, source.width, source.height)[..., ::-1]
        viewer = napari.Viewer()
        viewer.theme = "light"
        viewer.window.resize(1360, 860)
        viewer.add_image(pixels, rgb=True, name=image.stem)
        widget = CellWidget(viewer)
        dock = viewer.window.add_dock_widget(widget, name="Blood cells")
        viewer.window._qt_window.resizeDocks([dock], [330], Qt.Orientation.Horizontal)
        os.chdir(folder)
        stack.callback(os.chdir, ROOT)

        def wait(done: Callable[[], bool]) -> None:
            end = time.monotonic() + _PATIENCE
            while not done():
                if time.monotonic() > end:
                    raise SystemExit(f"napari: not finished after {_PATIENCE} s: {widget.message.value}")
                QApplication.processEvents()
                time.sleep(0.02)

        def shoot(name: str) -> None:
            start = time.monotonic()
            wait(lambda: time.monotonic() > start + 1)
            viewer.screenshot(str(output / f"{name}.png"), canvas_only=False, flash=False)
            save(output / f"{name}.png")

        widget.types.value = True
        widget.find.changed.emit(True)
        wait(lambda: widget.find.enabled)
        cells = viewer.layers[f"{image.stem} cells"]
        viewer.reset_view()
        shoot(NAPARI)

        red = cells.features["class"] == "RBC"
        worst = int(cells.features["score"].where(red).astype(float).argmin())
        # As on the page: of the synthetic smear this is a white cell.
        widget.cell_class.value = drawn_class
        corners = cells.data[worst].copy()
        cells.selected_data = {worst}
        cells.remove_selected()
        widget.set_class.changed.emit(True)
        cells.add_polygons(corners[::3] if len(corners) > 12 else corners)
        cells.mode = "select"
        cells.selected_data = {len(cells.data) - 1}
        widget.retrain.changed.emit(True)
        wait(lambda: "iteration" in widget.message.value or widget.retrain.text != "Stop")
        shoot(RETRAIN)
        widget.retrain.changed.emit(True)  # stops it
        wait(lambda: widget.retrain.text != "Stop")
        viewer.close()


def main() -> int:
    """Make the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input", nargs="+", type=Path, default=[], metavar="IMAGE", help="fields of a smear"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "docs" / "images" / "screenshots", metavar="DIR",
        help="default docs/images/screenshots",
    )  # fmt: skip
    given = parser.parse_args()
    if missing := [str(path) for path in given.input if not path.is_file()]:
        parser.error(f"--input: no such file: {', '.join(missing)}")
    if _CHROMIUM is None:
        parser.error("chromium and google-chrome are absent")
    given.output = given.output.resolve()
    given.output.mkdir(parents=True, exist_ok=True)
    drawn_class = "RBC" if given.input else "WBC"
    shoot_page(given.input, drawn_class, given.output)
    if importlib.util.find_spec("napari") is None:
        print(f"{NAPARI} and {RETRAIN} are left as they are: pip install 'bccd_d2[napari]'")
    elif sys.platform == "linux" and "DISPLAY" not in os.environ:
        print(f"{NAPARI} and {RETRAIN} are left as they are: no display, start this with xvfb-run -a")
    else:
        shoot_napari(given.input[0] if given.input else None, drawn_class, given.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
