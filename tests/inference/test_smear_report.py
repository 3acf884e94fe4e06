"""The smear report: numbers that can be computed by hand, and the page of a folder of fields."""

import importlib.util
import math
import re
import shutil
from dataclasses import replace

import pytest

from bccd_d2.cell_types.differential import GRADES, REFERENCE_RANGES
from bccd_d2.errors import InputError
from bccd_d2.inference.quality import FLAGS, Quality
from bccd_d2.inference.smear_report import field_of, render_report, white_to_red
from tests.inference.drawn_cells import ring_and_friends

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def text_of(page):
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S).split())


def test_white_to_red():
    white, red, low, high = white_to_red({"RBC": 90, "WBC": 10, "Platelets": 7})
    assert (white, red) == (10, 90)
    assert (low, high) == pytest.approx((4.68, 19.40), abs=0.02)
    assert white_to_red({"RBC": 50, "WBC": 0})[3] == math.inf
    assert white_to_red({"cell": 5}) is None
    assert white_to_red({"RBC": 0, "WBC": 0}) is None


def test_the_page_of_two_fields():
    one, two = (field_of(ring_and_friends(name, 0.1)) for name in ("one.png", "two <2>.png"))
    two = replace(two, quality=Quality(flags=("blurred",)))
    for row, kind in zip(one.cells, ("", "neutrophil", "", "")):
        row["type"] = kind
    page = render_report([one, two], "slide 7", {"model": "classes"}, ["c.png: broken"])
    text = text_of(page)
    assert "slide 7" in text and "model: classes" in text and "Not read: c.png: broken" in text
    assert "two &lt;2&gt;.png blurred" in text and "1 of 2 fields flagged" in text
    # Two red cells on 2 x 150 x 200 pixels of 0.1 microns, the same number in both fields.
    assert "RBC 2 25.0 % 1.0 0.0 1 to 1 3,333 (3,333 to 3,333)" in text
    # The shares of differential.csv: without the cells that the edge cuts, and without "other".
    assert "neutrophil 1 of 1 100.0 % 2.5 to 100.0" in text
    assert "http" not in re.sub(r"data:[^\"]*", "", page)


@pytest.mark.parametrize("microns", [0.1, None])
def test_densities_are_spoken_of_where_there_are_any(microns):
    text = text_of(render_report([field_of(ring_and_friends("one.png", microns))], "slide 7", {}))
    assert ("not in the densities" in text) == (microns is not None)
    assert ("Densities need microns per pixel" in text) == (microns is None)
    assert "95&nbsp;% interval 1&nbsp;:&nbsp;0 to" in text  # which no line breaks


@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is absent")
@pytest.mark.skipif(CHROMIUM is None, reason="chromium and google-chrome are absent")
@pytest.mark.parametrize("flags", [(), tuple(FLAGS)])
def test_it_prints_on_two_sheets_with_every_type_flag_and_many_fields(flags, tmp_path):
    one = field_of(ring_and_friends("one.png", 0.1))
    white, red, platelet = (
        next(row for row in one.cells if row["class"] == name) for name in ("WBC", "RBC", "Platelet")
    )
    types = [
        *((white, name, "") for name in (*REFERENCE_RANGES, "other")),
        *((white, "immature granulocyte", name) for name in ("promyelocyte", "myelocyte", "metamyelocyte")),
        *((red, name, "") for name in (*GRADES, "normal", "other")),
        *[(platelet, "", "")] * 8,
    ]
    cells = [row | {"type": name, "subtype": subtype, "touches_border": 0} for row, name, subtype in types]
    quality = Quality(flags=flags)
    fields = [
        replace(one, name=f"slide 7 field {k:03d}.png", quality=quality, cells=cells) for k in range(80)
    ]
    page = tmp_path / "report.html"
    failures = [f"{k}.png: not an image" for k in range(9)]
    page.write_text(render_report(fields, "slide 7", {"model": "smear"}, failures), encoding="utf-8")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page()
        opened.goto(page.as_uri())
        pdf = opened.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True, print_background=True)
        browser.close()
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) == 2


def test_a_report_of_nothing_is_refused():
    with pytest.raises(InputError, match="one image"):
        render_report([], "nothing", {})
