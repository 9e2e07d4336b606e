"""What is written for readers: short enough, no dead link, and commands and code that work."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT

README = ROOT / "README.md"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "book").glob("*.md"))]
MOST_WORDS = 900
FENCED = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PARTS = (
    "Install",
    "In ten lines",
    "Probe your own model",
    "The notebooks",
    "Does it agree?",
    "Read on",
    "Citing",
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(text: str) -> str:
    """A text in Markdown without its tables and code blocks."""
    lines = FENCED.sub("", text).splitlines()
    return "\n".join(line for line in lines if not line.startswith("|"))


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a text that are marked with a language; "" is those without one."""
    return [code for found, code in FENCED.findall(text) if found == language]


def anchors(text: str) -> set[str]:
    """What links to the headings of a text are called."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(path: Path) -> list[str]:
    """The relative links of a document that lead to no file or to no heading."""
    found = []
    for link in LINK.findall(FENCED.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            found.append(link)
    return found


def test_the_readme_is_short() -> None:
    assert len(prose(README.read_text(encoding="utf-8")).split()) <= MOST_WORDS


def test_tables_and_code_blocks_do_not_count_as_prose() -> None:
    text = "one two\n\n| a | b |\n|---|---|\n\n```python\nx = 1\n```\n\nthree\n"
    assert prose(text).split() == ["one", "two", "three"]


def test_the_readme_says_what_it_is_how_to_run_it_and_only_then_what_came_out() -> None:
    headings = re.findall(r"^## (.+)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert tuple(headings) == PARTS


@pytest.mark.parametrize("word", ["stage", "cascade", "R²", "ordered", "wall", "cone", "λ", "ξ_c"])
def test_a_term_is_explained_before_the_first_command(word: str) -> None:
    start = README.read_text(encoding="utf-8").split("\n## ")[0]
    assert word in " ".join(line for line in start.splitlines() if line.startswith("|"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_no_relative_link_is_dead(path: Path) -> None:
    assert dead_links(path) == []


def test_a_dead_link_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A heading, here\n\n[a](page.md#a-heading-here) [b](page.md#b) [c](c.md)\n")
    assert dead_links(page) == ["page.md#b", "c.md"]


def imported(code: str) -> Iterator[tuple[str, str]]:
    """The modules of the package that a piece of code imports from, and the names."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "paperlib":
            yield from ((str(node.module), alias.name) for alias in node.names)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_what_code_in_a_document_imports_is_there(path: Path) -> None:
    for code in blocks(path.read_text(encoding="utf-8"), "python"):
        for module, name in imported(code):
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def commands() -> list[tuple[str, str]]:
    """Every `make …` and `paperlib …` in the documents that tell how to use the project."""
    written = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    found = re.findall(r"(?:^|`|\.venv/bin/)(make|paperlib) ([a-z][a-z-]*)", written, re.MULTILINE)
    return sorted(set(found))


@pytest.mark.parametrize(("program", "argument"), commands())
def test_a_command_that_is_named_exists(program: str, argument: str) -> None:
    if program == "make":
        assert re.search(rf"^{argument}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    else:
        assert (ROOT / "tests/frozen/help" / f"{argument}.txt").exists()


@pytest.mark.slow
def test_the_ten_lines_of_the_readme_give_the_numbers_below_them() -> None:
    text = README.read_text(encoding="utf-8")
    code = blocks(text, "python")[0]
    rows = re.findall(r"^\| (\d\.\d) \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) == 2
    for sigma_w2, row in rows:
        names: dict[str, Any] = {}
        exec(code.replace("sigma_w2=1.7", f"sigma_w2={sigma_w2}"), names)
        here = [float(names["left"][stage - 1]) for stage in (1, 10, 20, 30)]
        assert here == pytest.approx([float(value) for value in row.split(" | ")], abs=0.01)


@pytest.mark.slow
def test_the_probe_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks(README.read_text(encoding="utf-8"), "python")[1]
    smaller = {'"mnist"': '"digits"', "[:1000]": "[:40]", "range(59)": "range(3)"}
    for as_written, instead in smaller.items():
        assert as_written in code
        code = code.replace(as_written, instead)
    exec(code, {})
    assert "before the head" in capsys.readouterr().out
