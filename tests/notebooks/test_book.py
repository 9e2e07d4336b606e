"""The reading copy, built and opened in a browser: nothing broken, nothing fetched, nothing cut."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
import yaml
from browser import BROWSER
from checkout import ROOT

NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline", "bokeh")
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
FIGURES = sorted((ROOT / "figures").glob("[0-9]*.png"))
TEXTS = sorted(path.stem for path in (ROOT / "book").glob("*.md"))
SIZES = {"desktop": (1440, 900), "phone": (390, 844)}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, NEEDED)),
        reason="the extra `book` is not installed (`make book` installs it)",
    ),
]
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, made where no other build is disturbed; a warning of sphinx is an error."""
    root = tmp_path_factory.mktemp("book")
    shutil.copy(ROOT / "README.md", root)
    for name in ("book", "notebooks", "figures", "paperlib", "data/reference"):
        unwanted = shutil.ignore_patterns("_build", "_pages", "__pycache__", "quick", ".ipynb_*")
        shutil.copytree(ROOT / name, root / name, ignore=unwanted)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, str(root / "book"), str(root / "html")],
        env={**os.environ, "PAPERLIB_HOME": str(root), "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root / "html"


def pages(book: Path) -> list[Path]:
    return sorted(path for path in book.rglob("*.html") if "_static" not in path.parts)


def test_there_is_a_page_for_every_text_and_notebook_and_a_figure_for_every_figure(
    book: Path,
) -> None:
    names = {path.stem for path in pages(book)}
    assert {"index", "api", "method"} <= set(TEXTS)
    assert {*TEXTS, *NOTEBOOKS} <= names
    gallery = (book / "figures.html").read_text()
    for figure in FIGURES:
        assert f"_images/{figure.name}" in gallery
        assert (book / "_images" / figure.name).stat().st_size == figure.stat().st_size
    places = [gallery.index(f"_images/{figure.name}") for figure in FIGURES]
    assert places == sorted(places)


def test_a_texts_link_to_a_notebook_leads_to_its_page(book: Path) -> None:
    page = (book / "prediction.html").read_text()
    assert 'href="_pages/07_predictors.html"' in page
    assert ".ipynb" not in page


class Seen(HTMLParser):
    """What a page says outside of links and code, its titles, and its pictures' descriptions."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.words, self.titles, self.about, self.alts = "", [], [], []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        if tag == "img":
            self.alts.append(given.get("alt") or "")
        if tag == "meta" and given.get("name") == "description":
            self.about.append(given["content"])
        if tag in ("a", "pre", "code", "script", "style", "title", "nav"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, text: str) -> None:
        if "title" in self.inside:
            self.titles.append(text)
        elif not self.inside:
            self.words += text


@pytest.fixture(scope="module")
def seen(book: Path) -> dict[str, Seen]:
    return {path.stem: Seen(path) for path in pages(book)}


def test_every_mention_of_a_notebook_is_a_link(seen: dict[str, Seen]) -> None:
    mention = re.compile(r"\bnotebooks?\s+(?:from\s+)?\d\d\b", re.IGNORECASE)
    found = {name: mention.findall(page.words) for name, page in seen.items()}
    assert {name: words for name, words in found.items() if words} == {}


def test_every_page_has_a_title_and_a_description(seen: dict[str, Seen]) -> None:
    without = {"genindex", "search"}  # which sphinx writes by itself
    for name, page in seen.items():
        assert len("".join(page.titles)) > 10, name
        assert name in without or [len(words) > 60 for words in page.about] == [True], name


def test_every_picture_says_what_is_seen(seen: dict[str, Seen]) -> None:
    alts = {name: page.alts for name, page in seen.items()}
    assert all(alts[name] for name in ("index", "figures", "01_mnist_phase_diagram"))
    poor = {
        name: [alt for alt in of_page if len(alt.split()) < 5 or "_images/" in alt]
        for name, of_page in alts.items()
    }
    assert {name: words for name, words in poor.items() if words} == {}


def test_the_front_page_names_the_authors_and_only_numbers_that_the_readme_has(
    book: Path, seen: dict[str, Seen]
) -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    front, readme = (book / "index.html").read_text(), (ROOT / "README.md").read_text()
    for person in cited["references"][0]["authors"]:
        assert f"{person['given-names']} {person['family-names']}" in front
    assert cited["version"] in front
    findings = front[front.index('id="three-findings"') :]
    findings = findings[: findings.index('id="install"')]
    numbers = re.findall(r"\d+\.\d+%?", findings)
    assert len(numbers) >= 8
    assert [number for number in numbers if number not in readme] == []


def test_every_paper_that_a_notebook_names_is_among_the_references() -> None:
    references = (ROOT / "book" / "references.md").read_text()
    named = re.compile(r"ar[xX]iv(?::|\.org/abs/)(\d{4}\.\d{5})")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        missing = {n for n in named.findall(path.read_text()) if n not in references}
        assert missing == set(), path.name


def test_the_code_of_a_notebook_is_folded_and_the_file_itself_can_be_had(book: Path) -> None:
    page = (book / "_pages" / f"{NOTEBOOKS[0]}.html").read_text()
    assert page.count("<details") == page.count("cell_input") > 3
    (file,) = (book / "_downloads").rglob(f"{NOTEBOOKS[0]}.ipynb")
    assert file.read_bytes() == (ROOT / "notebooks" / file.name).read_bytes()


def test_outputs_are_shown_as_they_were_committed_and_nothing_is_executed(book: Path) -> None:
    page = (book / "_pages" / f"{NOTEBOOKS[0]}.html").read_text()
    assert "cell_output" in page
    assert "Traceback" not in page


def test_every_public_name_has_its_place_in_the_reference(book: Path) -> None:
    import paperlib

    reference = (book / "api.html").read_text()
    assert [name for name in paperlib.__all__ if f'id="paperlib.{name}"' not in reference] == []
    assert "problematic" not in reference  # what docutils puts around text that it cannot read


@in_a_browser
@pytest.mark.parametrize("size", SIZES)
def test_no_page_reports_an_error_asks_a_network_or_is_wider_than_the_screen(
    book: Path, browser: Any, size: str
) -> None:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True)
    for path in pages(book):
        page, wrong = context.new_page(), []
        page.on("console", lambda m, w=wrong: w.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error, w=wrong: w.append(str(error)))
        page.on("requestfailed", lambda request, w=wrong: w.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda request, w=wrong: (
                None if request.url.startswith((book.as_uri(), "data:")) else w.append(request.url)
            ),
        )
        page.goto(path.as_uri(), wait_until="load")
        page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise")
        assert wrong == [], path.name
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
        broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
        page.wait_for_function(f"{broken}.length === 0")
        page.close()
    context.close()


@in_a_browser
def test_formulas_are_set_by_the_mathjax_of_the_book(book: Path, browser: Any) -> None:
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((book / "_pages" / "01_mnist_phase_diagram.html").as_uri())
    page.locator("mjx-container").first.wait_for()
    assert page.locator("mjx-merror").count() == 0
    fonts = "[...document.fonts].filter(f => f.family.startsWith('MJX') && f.status == 'loaded')"
    page.wait_for_function(f"{fonts}.length > 0")
    context.close()


@in_a_browser
def test_no_internal_link_is_broken(book: Path, browser: Any) -> None:
    context = browser.new_context(offline=True, java_script_enabled=True)
    page, anchors, links = context.new_page(), {}, []
    for path in pages(book):
        page.goto(path.as_uri(), wait_until="domcontentloaded")
        anchors[path.as_uri()] = set(
            page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        )
        hrefs = page.evaluate(
            "[...document.querySelectorAll('a[href]')].map(e => e.getAttribute('href'))"
        )
        links += [(path.name, urljoin(path.as_uri(), href)) for href in hrefs]
    context.close()
    inside = [(name, link) for name, link in links if urlsplit(link).scheme == "file"]
    assert len(inside) > len(NOTEBOOKS)
    for name, link in inside:
        target, anchor = urldefrag(link)
        file = Path(unquote(urlsplit(target).path))
        assert file.is_relative_to(book), f"{name}: {link} leaves the book"
        assert file.is_file(), f"{name}: {link}"
        if anchor and target in anchors:
            assert unquote(anchor) in anchors[target], f"{name}: {link}"
