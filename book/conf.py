"""The reading copy: texts, committed notebooks as pages, their figures, the API and the explorer.

Nothing is executed and nothing comes from a network: MathJax is copied out of a Python package.
"""

import html
import importlib
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from docutils import nodes

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import pages  # noqa: E402

from paperlib import __version__  # noqa: E402
from paperlib.core import paths  # noqa: E402
from paperlib.notebooks.explorer.page import page as explorer_page  # noqa: E402

EXPLORER = "explorer"  # the text whose page is the explorer itself
DESCRIBED = 160  # letters of a page's description
MATHJAX = ("tex-chtml.js", "output/chtml/fonts")

project = "Reconstruction entropy"
author = "the reconstruction-entropy developers"
release = __version__
copyright = "MIT licence"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build", "_pages/gallery.md", "_pages/launch.md"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # its default asks a network
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_custom_sections = ["Source"]
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
templates_path = ["_templates"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"enableMenu": False}, "chtml": {"scale": 1}}


def as_restructured(lines: list[str]) -> None:
    """Turn a plain-text docstring into reStructuredText, in place.

    Stars and bars stand for themselves outside of `code`, and a block that is indented without a
    section's heading above it is code.
    """
    made: list[str] = []
    block = False  # inside of indented code
    for number, line in enumerate(lines):
        before = lines[number - 1] if number else ""
        heading = next((text for text in reversed(lines[:number]) if text.strip()), "")
        if line.startswith("    ") and not before.strip() and not heading.startswith(" "):
            made += ["::", ""]
            block = True
        if block and line.strip() and not line.startswith("    "):
            made += [""]
            block = False
        if block or line.lstrip().startswith((">>>", "...")):
            made.append(line)
            continue
        parts = re.split(r"(`[^`]*`)", line)
        plain = [pages.linked_restructured(re.sub(r"([*|])", r"\\\1", part)) if i % 2 == 0 else part
                 for i, part in enumerate(parts)]  # fmt: skip
        made.append("".join(plain))
    lines[:] = made


def lead_to_pages(app: Any, name: str, source: list[str]) -> None:
    """Let links to notebooks, which work on a code host, and words that name one lead to their
    pages; in place. Notebooks are ready."""
    folder = f"{pages.FOLDER.name}/"
    if not name.startswith(folder):
        text = source[0].replace(f"](../{paths.NOTEBOOKS}/", f"]({folder}")
        source[0] = pages.linked(text, folder)


def describe(app: Any, name: str, template: str, context: dict[str, Any], tree: Any) -> str | None:
    """Give a page its description, of its first words; the explorer is a page of its own making."""
    if name == EXPLORER:
        context["whole"] = explorer_page(home="index.html")
        return "whole.html"
    if tree is not None:
        words = ""
        for node in tree.findall(nodes.paragraph):
            words = f"{words} {node.astext()}".strip()
            if len(words) > DESCRIBED // 2:
                break
        words = html.escape(pages.plain(words, DESCRIBED))
        context["metatags"] += f'<meta name="description" content="{words}">'
    return None


def setup(app: Any) -> None:
    pages.write()
    app.connect("source-read", lead_to_pages)
    app.connect("html-page-context", describe)
    app.connect("autodoc-process-docstring", lambda *event: as_restructured(event[-1]), priority=1)
    app.connect("build-finished", copy_mathjax)


def copy_mathjax(app: Any, error: Exception | None) -> None:
    """Copy MathJax and its fonts from the package `sphinx-mathjax-offline` into the book."""
    if error:
        return
    package = importlib.import_module("sphinx-mathjax-offline").__file__
    source = Path(str(package)).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for name in MATHJAX:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        else:
            shutil.copy(source / name, target / name)
