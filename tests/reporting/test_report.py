"""The report from end to end, through the command: files, figures, the page."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from bccd_d2.config import load_config
from bccd_d2.errors import InputError
from bccd_d2.reporting.report import report_run
from bccd_d2.reporting.sources import read_run
from tests.html_page import Page
from tests.reporting.scene import write_scene
from tools.evaluate import main

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def out(scene, tmp_path_factory):
    """Val and test, of the page's images one a part."""
    out = tmp_path_factory.mktemp("report") / "new"
    main(
        [
            *("--predictions", str(scene / "val.json"), str(scene / "test.json"), "--data-root", str(scene)),
            *("--part", "val", "test", "--output", str(out), "--name", "Drawn & <judged>", "--shown", "1"),
            *("--bootstrap-samples", "50"),
        ]
    )
    return out


@pytest.fixture(scope="module")
def page(out):
    return Page((out / "report.html").read_text(encoding="utf-8"))


def test_all_files_are_there(out):
    names = {path.name for path in out.iterdir()}
    assert names == {"report.html", "metrics.json", "cells.csv", "results.md", "viz"}
    figures = {path.name for path in (out / "viz").iterdir()}
    assert {"metrics.png", "best_images.png", "worst_images.png"} <= figures
    assert {"precision_recall_val.png", "calibration_test.png", "confusion_val.png"} <= figures
    for name in figures:
        picture = cv2.imread(str(out / "viz" / name))
        assert min(picture.shape[:2]) > 150
        assert np.ptp(picture) > 100


def test_metrics_hold_what_was_drawn_and_what_was_compared(out):
    parts = json.loads((out / "metrics.json").read_text())["parts"]
    assert list(parts) == ["val", "test"]
    bins = parts["val"]["errors"]["bins"]
    counted = {name: (found["true_cells"], found["predictions"]) for name, found in bins.items()}
    assert counted["correct"] == (6 + 2, 6 + 2)
    assert counted["under-segmented"] == (2, 1)
    assert counted["false negative"] == (1, 0)
    assert counted["misclassified"] == (1, 1)
    assert counted["false positive"] == (0, 1)
    assert parts["val"]["compared"]["SHA-256 of images and masks"] == "f" * 64
    assert parts["val"]["options"]["bootstrap_samples"] == 50
    assert parts["val"] | {"compared": 0} == parts["test"] | {"compared": 0}


def test_the_table_is_markdown_with_a_line_a_part(out):
    lines = (out / "results.md").read_text(encoding="utf-8").splitlines()
    tables = [line for line in lines if line.count("|") == 10]
    assert [line.count("|") for line in lines].count(13) == 2 * 5, "a table by class of each part"
    names = [line.split("|")[1].strip() for line in tables]
    assert [names.pop(line).strip(":-") for line in (7, 1)] == ["", ""], "the rules below the headings"
    assert names == ["", "Val", "Val, interior", "Test", "Test, interior"] * 2
    # Pixels: 12 squares, of which one is missed; 800 px between the pair and 1600 px on nothing are too many.
    iou = (11 * 1600) / (12 * 1600 + 10 * 40 + 1600)
    assert tables[2].split("|")[2].strip() == f"{iou:.3f}"


def test_the_page_needs_nothing_but_itself(page):
    assert page.open == []
    assert page.references
    assert all(reference.startswith("data:") for reference in page.references)
    assert "link" not in page.tags


def test_the_page_says_what_was_found(page):
    words = page.words
    assert "Drawn & <judged>" in words
    assert "On 2 images with 12 annotated cells, 75 % of the cells are found" in words
    assert "Several cells in one outline" in words and "Wrong class" in words
    assert "One cell in several pieces" not in words
    assert "1 of 2 images: the worst and the best by IoU" in words
    assert "f" * 64 in words
    assert "bad <1>.png" in words


def test_an_earlier_report_stays_unless_told(scene, out):
    arguments = ["--predictions", str(scene / "val.json"), "--data-root", str(scene), "--output", str(out)]
    before = (out / "report.html").read_bytes()
    with pytest.raises(InputError, match="exists already; give --overwrite"):
        main(arguments)
    assert (out / "report.html").read_bytes() == before


@pytest.mark.parametrize("folder", ["cells.v1", "."])
def test_a_report_lies_beside_its_folder_of_predictions(scene, tmp_path, monkeypatch, folder):
    inside = tmp_path / "cells.v1"
    inside.mkdir()
    shutil.copy(scene / "val.json", inside)
    monkeypatch.chdir(inside if folder == "." else tmp_path)
    main(["--predictions", folder, "--data-root", str(scene), "--bootstrap-samples", "0", "--shown", "0"])
    page = Page((tmp_path / "cells.v1_evaluation" / "report.html").read_text(encoding="utf-8"))
    assert "Evaluation of cells.v1" in page.words
    assert "image files are missing" not in page.words, "they are there and not shown"


def test_images_that_are_gone_are_judged_but_not_shown(scene, tmp_path):
    out = tmp_path / "out"
    arguments = ["--predictions", scene / "val.json", "--truth", scene / "annotations/instances_val.json"]
    main([*map(str, arguments), "--images", str(tmp_path), "--output", str(out), "--bootstrap-samples", "0"])
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert "The 2 image files are missing" in page.words
    assert not any(path.name.startswith("step6") for path in (out / "viz").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no ground truth: give --data-root"),
        (
            ["--data-root", "{}", "--part", "val", "test"],
            "1 files or folders of predictions and --part val test",
        ),
        (["--truth", "{}/annotations/instances_val.json", "--part", "val"], "--truth needs exactly one file"),
        (["--data-root", "{}", "--max-detections", "4"], "Val: .*4"),
    ],
)
def test_what_does_not_fit_is_said(scene, tmp_path, arguments, message):
    given = [argument.format(scene) for argument in arguments]
    with pytest.raises(InputError, match=message):
        main(["--predictions", str(scene / "val.json"), "--output", str(tmp_path / "x"), *given])
    assert not (tmp_path / "x").exists()


def test_a_browser_shows_cells_and_changes_images(out):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url))
        page.goto((out / "report.html").as_uri())
        cell = page.locator("#val .case.current g.p.under-segmented path")
        cell.scroll_into_view_if_needed()
        cell.hover(force=True)
        assert page.locator("#tip").text_content().startswith("predicted RBC, score 0.90: under-segmented")
        page.locator("#val .layers input[value=p]").uncheck()
        assert not cell.is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 1200
        browser.close()
    assert problems == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run as train_net.py leaves it, evaluated on test alone, with evaluation options of its own."""
    folder = tmp_path_factory.mktemp("run")
    cfg = load_config(REPOSITORY / "configs" / "mask_rcnn_R_18_FPN_lite.yaml")
    cfg.DATASETS.ROOT = str(write_scene(folder / "data"))
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_PER_CLASS = [0.65]
    results = folder / "model" / "inference" / "bccd_test" / "coco_instances_results.json"
    results.parent.mkdir(parents=True)
    shutil.copy(folder / "data" / "test.json", results)
    (folder / "model" / "config.yaml").write_text(cfg.dump())
    return folder / "model"


def test_a_run_is_evaluated_with_its_own_options(run):
    (part,) = report_run(run)
    assert part.name == "Test"
    assert part.evaluation.options.score_threshold == 0  # of what the model output
    assert part.evaluation.instances["all"]["all classes"].predicted == 11
    assert (run / "evaluation" / "report.html").is_file()


def test_parts_that_a_run_does_not_have(run, tmp_path):
    with pytest.raises(InputError, match="not evaluated on val, only on test"):
        read_run(run, parts=["val"])
    with pytest.raises(InputError, match="found none; --data-root is a folder"):
        read_run(run, tmp_path)
    with pytest.raises(InputError, match=r"config\.yaml is not there"):
        read_run(tmp_path)
    shutil.copy(run / "config.yaml", tmp_path)
    with pytest.raises(InputError, match="found predictions for no data set, expected bccd_val, bccd_test"):
        read_run(tmp_path)


def test_predictions_for_a_data_set_that_is_not_there_are_left_out(run, caplog):
    shutil.copytree(run / "inference" / "bccd_test", run / "inference" / "voc_val")
    sources, _, _ = read_run(run)
    assert [source.name for source in sources] == ["Test"]
    assert "no data set for the predictions for voc_val, which are left out" in caplog.text


def test_the_command_starts_without_torch():
    code = "import sys, tools.evaluate, tools.compare_runs, tools.classical_baseline; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert found.stdout.strip() == "False", found.stderr
