"""What the documents promise: examples and a walkthrough that run; names, files, commands and links that exist."""

import argparse
import csv
import doctest
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from detectron2.config import CfgNode

from bccd_d2.config import get_bccd_cfg
from tools import convert_bccd, make_synthetic

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
API_PAGES = sorted((DOCS / "api").glob("*.md"))
PAGES = [
    *sorted(DOCS.rglob("*.md")),
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "weights/README.md")),
]
WALKTHROUGH = DOCS / "walkthrough.md"


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@pytest.mark.parametrize("page", API_PAGES, ids=name_of)
def test_examples_run(page, tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```pycon\n(.*?)^```$", text_of(page), re.M | re.S)
    assert examples
    parser = doctest.DocTestParser()
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    names: dict[str, object] = {}
    for number, text in enumerate(examples, start=1):
        test = parser.get_doctest(text, names, f"example {number}", str(page), 0)
        runner.run(test, clear_globs=False)
        names = test.globs
    assert runner.summarize().failed == 0


def test_what_the_api_pages_name_is_there_and_says_what_it_is():
    listed = [name for page in API_PAGES for name in re.findall(r"^::: (\S+)$", text_of(page), re.M)]
    assert len(listed) == len(set(listed)) > 50
    for name in listed:
        module, attribute = name.rpartition(".")[::2]
        found = getattr(importlib.import_module(module), attribute, None) or importlib.import_module(name)
        assert found.__doc__, name


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.*)$", without_code(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)


@every_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in headings(file), target


@every_page
def test_files_configuration_keys_and_options_that_are_named_exist(page):
    text, cfg = text_of(page), get_bccd_cfg()
    for path in re.findall(r"(?<![\w/.-])((?:tools|benchmarks|bccd_d2|tests)/[\w./]*\.\w+)", text):
        assert (REPOSITORY / path).is_file(), path
    for key in re.findall(r"(?<![\w.])([A-Z][A-Z_]*(?:\.[A-Z0-9_]+)+)(?![\w.])", text):
        if key.partition(".")[0] in cfg:
            assert has_key(cfg, key), key


def has_key(cfg: CfgNode, key: str) -> bool:
    node = cfg
    for name in key.split("."):
        if not isinstance(node, CfgNode) or name not in node:
            return False
        node = node[name]
    return True


class ParsedError(Exception):
    """Instead of what a command does."""


@every_page
def test_commands_parse(page, monkeypatch):
    """Each command of the page, by the parser of its tool: options, their values and what is required."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser, arguments=None, namespace=None):
        parse(parser, arguments, namespace)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    text = text_of(page).replace("\\\n", " ")
    for script, words in re.findall(
        r"^ {4}(?:[A-Z_]+=\S+ )*python (?:tools|benchmarks)/(\w+)\.py(.*)", text, re.M
    ):
        folder = "tools" if (REPOSITORY / "tools" / f"{script}.py").is_file() else "benchmarks"
        module = importlib.import_module(f"{folder}.{script}")
        arguments = shlex.split(words, comments=True)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        start = module.run if folder == "tools" and hasattr(module, "run") else module.main
        with pytest.raises(ParsedError):
            start()


def test_the_screenshots_are_those_of_the_script_that_makes_them(tmp_path, capsys, monkeypatch):
    pytest.importorskip("playwright")
    spec = importlib.util.spec_from_file_location("screenshots", DOCS / "screenshots.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = DOCS / "images" / "screenshots"
    assert sorted(path.stem for path in folder.iterdir()) == sorted(script.NAMES)
    shown = [
        name
        for page in ("app.md", "napari.md")
        for name in re.findall(r"\w+(?=\.png\))", text_of(DOCS / page))
    ]
    assert shown == list(script.NAMES)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1.6e6
    monkeypatch.setattr(
        sys, "argv", ["screenshots", "--input", str(tmp_path / "none.png"), "--output", str(tmp_path)]
    )
    with pytest.raises(SystemExit):
        script.main()
    assert "none.png" in capsys.readouterr().err


def test_every_page_is_in_the_navigation_of_the_site():
    listed = re.findall(r"[\w/]+\.md", text_of(REPOSITORY / "mkdocs.yml"))
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_detectron2s_own_trainer_runs(tmp_path):
    """The page's two blocks, on three small smears and a model of few channels."""
    smears, data = tmp_path / "smears", tmp_path / "datasets" / "bccd"
    make_synthetic.main(f"--output {smears} --images 4 --size 320x240".split())
    convert_bccd.main(f"--root {smears} --output {data}".split())
    text = text_of(DOCS / "detectron2.md")
    settings, code = (
        re.search(rf"^```{kind}\n(.*?)^```$", text, re.M | re.S)[1] for kind in ("yaml", "python")
    )
    tiny = [
        # Of few layers, because frozen norms do not keep the signal small.
        *("MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "SEED", 1, "MODEL.RESNETS.DEPTH", 18),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
        *("MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16),
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 1),
        *("SOLVER.MAX_ITER", 2, "SOLVER.STEPS", (), "SOLVER.BASE_LR", 1e-4, "TEST.DETECTIONS_PER_IMAGE", 120),
    ]
    (tmp_path / "cells.yaml").write_text(settings)
    merge = 'cfg.merge_from_file("cells.yaml")\n'
    code = code.replace(merge, f"{merge}cfg.merge_from_list({tiny})\n")
    code += """
import json
print(json.dumps({kind: found["AP"] for kind, found in trainer.test(cfg, trainer.model).items()}))
print(json.dumps(trainer.build_evaluator(cfg, "bccd_val")._metadata.thing_dataset_id_to_contiguous_id))
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert f"maxDets={120}" in result.stdout
    average_precision, ids = map(json.loads, result.stdout.splitlines()[-2:])
    assert all(0 <= average_precision[kind] <= 100 for kind in ("bbox", "segm"))
    assert ids == {"1": 0}
    written = json.loads((tmp_path / "output" / "coco_instances_results.json").read_text())
    assert {found["category_id"] for found in written} == {1}


def test_the_walkthrough_runs(tmp_path):
    """Its commands and its Python, in their order, on fewer and smaller images."""
    text = text_of(WALKTHROUGH).replace("\\\n", " ")
    blocks = re.findall(r"^    python ([^\n]*)$|^```python\n(.*?)^```$", text, re.M | re.S)
    out = tmp_path / "walk"
    replaced = {
        "output/walkthrough": str(out),
        "--images 16": "--images 7",
        "800x600": "320x240",
        "[320,320]": "[128,128]",
        "SOLVER.MAX_ITER 300": "SOLVER.MAX_ITER 3",
        "SOLVER.WARMUP_ITERS 31": "SOLVER.WARMUP_ITERS 1",
        "TEST.VALIDATION_LOSS_PERIOD 51": "TEST.VALIDATION_LOSS_PERIOD 2",
    }
    assert all(word in text for word in replaced)
    for command, code in blocks:
        line = command and f"'{sys.executable}' {command}"
        for word, value in replaced.items():
            line, code = line.replace(word, value), code.replace(word, value)
        arguments = {"args": ["bash", "-c", line]} if line else {"args": [sys.executable, "-c", code]}
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        result = subprocess.run(**arguments, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{line or code}\n{result.stderr[-3000:]}"

    figures = {path.stem for path in (out / "model").rglob("*.png")}
    assert {
        "training_images",
        "anchors",
        "dataset_item",
        "training_loss",
        "metrics",
        "best_images",
    } <= figures
    results = json.loads((out / "model" / "results.json").read_text())["bccd_val"]
    assert all(0 <= value <= 100 for name in ("bbox", "segm", "overlap") for value in results[name].values())
    assert (out / "model" / "evaluation" / "report.html").is_file()
    with (out / "predictions_shipped" / "cells.csv").open(encoding="utf-8") as file:
        assert sum(float(row["score"]) >= 0.5 for row in csv.DictReader(file)) >= 5
