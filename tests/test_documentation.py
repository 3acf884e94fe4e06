"""What the documents promise: examples that run, names and files that exist, a notebook in its place."""

import doctest
import importlib
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from bccd_d2.notebook import execute

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
API_PAGES = sorted((DOCS / "api").glob("*.md"))
PAGES = [*sorted(DOCS.rglob("*.md")), *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "weights/README.md"))]


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def documented() -> list[str]:
    return [name for page in API_PAGES for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)]


@pytest.mark.parametrize("page", API_PAGES, ids=name_of)
def test_examples_run(page, tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```pycon\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    assert examples
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    names: dict[str, object] = {}
    for number, text in enumerate(examples):
        test = parser.get_doctest(text, names, f"{name_of(page)}, example {number + 1}", str(page), 0)
        runner.run(test, clear_globs=False)
        names = test.globs
    assert runner.summarize().failed == 0


@pytest.mark.parametrize("name", documented())
def test_what_the_api_pages_name_is_there_and_says_what_it_is(name):
    module, attribute = name.rpartition(".")[::2]
    try:
        found = getattr(importlib.import_module(module), attribute)
    except AttributeError:
        found = importlib.import_module(name)
    assert found.__doc__


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in headings(file), target


def test_every_page_is_in_the_sites_navigation():
    listed = re.findall(r"[\w/]+\.md", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
