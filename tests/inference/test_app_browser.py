"""The page in a real browser, with a tiny network behind it."""

import csv
import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from bccd_d2.inference.app import LOWEST_THRESHOLD, UploadLimits, build_app, launch_app
from bccd_d2.inference.finder import PredictionOptions
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.synthetic import draw_smear
from tests.inference.tiny_network import CLASS_NAMES, write_tiny_run

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PATIENCE = 30_000  # milliseconds
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is absent"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is absent"),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"{CHROMIUM} is absent"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where the page is served."""
    folder = tmp_path_factory.mktemp("app")
    cfg = write_tiny_run(folder)
    predictor = BCCDPredictor(cfg, folder / "model_final.pth", PredictionOptions(LOWEST_THRESHOLD))
    example = folder / "synthetic smear.png"
    cv2.imwrite(str(example), draw_smear(1, 260, 200).image)
    limits = UploadLimits(megabytes=0.5, megapixels=0.1)
    app = build_app(predictor, limits, example)
    _, url, _ = launch_app(app, limits, prevent_thread_lock=True, quiet=True)
    yield url
    app.close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The page, just opened; nothing may be asked of another machine."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    foreign = []
    page.on("request", lambda request: foreign.append(request.url))
    page.goto(address)
    page.get_by_role("button", name="Make files").wait_for()
    yield page
    page.close()
    assert [url for url in foreign if not url.startswith((address, "data:", "blob:"))] == []


def upload(page, path):
    page.locator("#upload input[type=file]").set_input_files(str(path))


def counted(page):
    """Cells of all classes by the table of counts."""
    page.locator("#counts").get_by_text("all", exact=True).first.wait_for()
    words = page.locator("#counts").inner_text().split()
    return int(words[words.index("all") + 1])


def test_an_image_is_uploaded_shown_counted_and_downloaded(page, tmp_path):
    image = tmp_path / "my smear.png"
    cv2.imwrite(str(image), draw_smear(2, 222, 150).image)
    upload(page, image)
    shown = page.locator("#overlay img")
    shown.wait_for()
    assert shown.evaluate("picture => [picture.naturalWidth, picture.naturalHeight]") == [222, 150]
    number = counted(page)
    assert number > 3
    assert [name for name in CLASS_NAMES if name in page.locator("#counts").inner_text()] == CLASS_NAMES

    page.locator("#formats").get_by_label("geojson").check()
    page.get_by_role("button", name="Make files").click()
    page.locator("#files a").nth(3).wait_for()
    with page.expect_download() as download:
        page.locator("#files a", has_text="KB").nth(2).click()
    names = page.locator("#files").inner_text()
    assert "coco-my smear" in names and "geojson-my smear" in names and "overlays-my smear" in names
    rows = list(csv.DictReader(Path(download.value.path()).read_text(encoding="utf-8").splitlines()))
    assert download.value.suggested_filename == "csv-my smear.csv"
    assert len(rows) == number


def test_the_threshold_and_the_example(page):
    page.get_by_role("button", name="Try a synthetic smear").click()
    page.locator("#overlay img").wait_for()
    before, picture = counted(page), page.locator("#overlay img").get_attribute("src")
    slider = page.locator("#threshold input[type=range]")
    slider.focus()
    slider.press("End")
    page.wait_for_function(
        "before => document.querySelector('#overlay img').src != before", arg=picture, timeout=PATIENCE
    )
    assert before > 3
    page.wait_for_timeout(300)
    assert counted(page) == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.png", b"these are notes", "notes.png"),
        ("large.png", None, "large.png: 400x400 pixels"),
        ("heavy.bmp", b"\0" * 600_000, "size"),
    ],
)
def test_what_is_no_image_or_too_large_gives_a_message(page, tmp_path, name, content, message):
    path = tmp_path / name
    if content is None:
        cv2.imwrite(str(path), np.full((400, 400, 3), 200, np.uint8))
    else:
        path.write_bytes(content)
    upload(page, path)
    toast = page.locator(".toast-body", has_text=message)
    toast.first.wait_for()
    assert "Traceback" not in page.content()
    assert page.locator("#overlay img").count() == 0
