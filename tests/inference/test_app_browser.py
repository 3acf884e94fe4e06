"""The page in a real browser."""

import importlib.util
import shutil
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.inference.test_app import squares

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PATIENCE = 60_000  # milliseconds
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is absent"),
    pytest.mark.skipif(CHROMIUM is None, reason="NO PAGE IS TESTED: chromium and google-chrome are absent"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    from tests.inference.page_server import LIMITS, TypesByClass, serving

    limits = replace(LIMITS, sessions_per_client=20)  # each test has one
    with serving(tmp_path_factory.mktemp("page"), limits, typer=TypesByClass()) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The page, just opened; it asks no other machine, and no script fails."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    foreign, errors = [], []
    page.on("request", lambda request: foreign.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.get_by_role("button", name="Try three synthetic smears").wait_for()
    yield page
    context.close()
    assert [url for url in foreign if not url.startswith((address, "data:", "blob:"))] == [] and errors == []


@pytest.fixture
def upload(page, tmp_path):
    """Upload images of squares, a name and the sides each, and wait for their cells."""

    def upload(**fields):
        paths = []
        for name, sides in fields.items():
            paths.append(tmp_path / f"{name}.png")
            cv2.imwrite(str(paths[-1]), squares(*sides))
        page.locator("#first-files").set_input_files(paths)
        page.locator(".field img").nth(len(paths) - 1).wait_for()
        page.locator("#picture path[data-number]").nth(len(fields["first"]) - 1).wait_for()

    return upload


def at(page, x, y):
    """Point of the screen of a pixel of the image."""
    return page.evaluate(
        """([x, y]) => {
            const point = new DOMPoint(x, y).matrixTransform(document.querySelector("#picture").getScreenCTM());
            return [point.x, point.y];
        }""",
        [x, y],
    )


def counts(page, column="This field"):
    """Numbers of RBC, WBC, Platelet and all in a column of the table."""
    headers = page.locator("#counts th").all_inner_texts()
    rows = page.locator("#counts tbody tr").all()
    return [row.locator("td").nth(headers.index(column)).inner_text() for row in rows]


def wait_for_counts(page, expected):
    for _ in range(100):
        if counts(page) == expected:
            return
        page.wait_for_timeout(100)
    assert counts(page) == expected


def test_cells_are_clicked_corrected_drawn_and_downloaded(page, upload, tmp_path):
    upload(first=(9, 20, 30), second=(20, 20))
    assert counts(page) == ["1", "1", "1", "3"] and counts(page, "All fields") == ["1", "3", "1", "5"]
    assert counts(page, "Per field")[1] == "1.5 ± 0.7"

    page.mouse.click(*at(page, 60, 30))
    assert "23 px" in page.locator("#cell").inner_text()
    page.get_by_role("group", name="Class").get_by_role("button", name="RBC").click()
    wait_for_counts(page, ["2", "0", "1", "3"])

    page.mouse.click(*at(page, 100, 35))
    page.keyboard.press("Delete")
    wait_for_counts(page, ["2", "0", "0", "2"])
    page.get_by_role("button", name="Undo").click()
    wait_for_counts(page, ["2", "0", "1", "3"])

    page.get_by_role("button", name="Draw a cell").click()
    page.locator("#draw-class").select_option("WBC")
    page.mouse.move(*at(page, 20, 60))
    page.mouse.down()
    for corner in ((40, 60), (40, 80), (20, 80), (20, 62)):
        page.mouse.move(*at(page, *corner), steps=4)
    page.mouse.up()
    wait_for_counts(page, ["2", "1", "1", "4"])
    assert "drawn by you" in page.locator("#cell").inner_text()

    page.get_by_role("button", name="Download…").click()
    page.locator("#download").get_by_label("labels").check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Make zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = archive.namelist()
        table = archive.read("csv/first.csv").decode().splitlines()
    assert {"labels/first.tif", "coco/second.json", "images/second.png"} <= set(names)
    assert len(table) == 5


def test_types_are_changed_undone_filtered_and_downloaded(page, upload):
    upload(first=(9, 20, 30))
    kind, types = page.locator("#cell").get_by_label("Type"), page.locator("#types")
    page.mouse.click(*at(page, 60, 30))
    assert kind.input_value() == "monocyte" and "classifier (90 %)" in page.locator("#cell").inner_text()
    kind.select_option("immature granulocyte: myelocyte")
    types.get_by_text("WBC: immature granulocyte").wait_for()
    assert "you" in page.locator("#cell dl").inner_text()
    assert kind.input_value() == "immature granulocyte: myelocyte"
    page.get_by_role("button", name="Undo").click()
    types.get_by_text("WBC: monocyte").wait_for()
    kind.select_option("other")
    types.get_by_text("WBC: other").wait_for()
    shown = page.locator("#picture path[data-number]")
    assert shown.count() == 3
    types.get_by_label("WBC: other").uncheck()
    assert shown.count() == 2 and counts(page) == ["1", "1", "1", "3"]
    types.get_by_label("WBC: other").check()
    page.mouse.click(*at(page, 100, 35))
    assert not kind.is_visible()  # platelets have no types
    page.get_by_role("button", name="Download…").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Make zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        table = archive.read("cells.csv").decode().splitlines()
    rows = [dict(zip(table[0].split(","), line.split(","))) for line in table[1:]]
    assert {row["class"]: row["type"] for row in rows} == {"RBC": "normal", "WBC": "other", "Platelet": ""}


def test_the_list_the_filters_and_the_report(page, upload):
    upload(first=(9, 20, 30), second=())
    page.locator("#largest").fill("15")
    wait_for_counts(page, ["1", "0", "0", "1"])
    assert page.locator("#picture path[data-number]").count() == 1
    page.locator("#largest").fill("")
    wait_for_counts(page, ["1", "1", "1", "3"])
    page.locator("#counts").get_by_label("WBC").uncheck()
    assert page.locator("#picture path[data-number]").count() == 2
    before = at(page, 10, 20)
    page.locator("#picture").hover()
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(200)
    assert at(page, 10, 20)[0] < before[0]
    page.get_by_role("button", name="second", exact=False).first.click()
    page.locator("#notice").get_by_text("mostly empty").wait_for()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Smear report").click()
    opened.value.get_by_text("Counts and their variation between fields").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete all").click()
    page.get_by_role("button", name="Try three synthetic smears").wait_for()


def test_files_that_are_no_images_or_too_large_have_a_message(page, tmp_path):
    (tmp_path / "notes.png").write_bytes(b"these are notes")
    (tmp_path / "heavy.bmp").write_bytes(b"\0" * 600_000)
    page.locator("#first-files").set_input_files([tmp_path / "notes.png", tmp_path / "heavy.bmp"])
    page.locator("#waiting").get_by_text("notes").wait_for()
    page.locator("#messages").get_by_text("heavy.bmp").wait_for()


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (1024, 700), (390, 844)])
def test_nothing_is_wider_than_its_place(page, upload, width, height):
    page.set_viewport_size({"width": width, "height": height})
    upload(first=(9, 20, 30))
    page.mouse.click(*at(page, 60, 30))
    page.locator("#cell dl").wait_for()
    clipped = page.evaluate(
        """() => {
            const places = "body, header, .tools, #panel, #panel section, #counts, #cell .classes";
            return [...document.querySelectorAll(places)]
                .filter((element) => element.scrollWidth > element.clientWidth + 1)
                .map((element) => element.outerHTML.slice(0, 80));
        }"""
    )
    assert clipped == []
    shot = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert shot.std() > 10
