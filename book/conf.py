"""The reading copy: texts, committed notebooks as pages, a gallery of their figures, and the API.

Nothing is executed and nothing comes from a network: MathJax is copied out of a Python package.
"""

import importlib
import re
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from paperlib import __version__, notebooks  # noqa: E402
from paperlib.core import paths  # noqa: E402
from paperlib.notebooks import costs  # noqa: E402

PAGES = HERE / "_pages"  # made anew by every build, from what is committed
MATHJAX = ("tex-chtml.js", "output/chtml/fonts")

project = "Reconstruction entropy"
author = "the reconstruction-entropy developers"
release = __version__
copyright = "MIT licence"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build", "_pages/gallery.md"]
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


def write_pages() -> None:
    """Copy the notebooks and write the gallery of their figures."""
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir()
    cards = []
    for notebook in notebooks.find():
        shutil.copy(notebook.path, PAGES)
        cards += [card(notebook, path) for path in figures_of(notebook.name)]
    (PAGES / "gallery.md").write_text("\n".join([":::::{container} gallery", *cards, ":::::"]))
    table = costs.markdown(notebooks.find(), costs.load_costs())
    inside = {f"]({paths.FIGURES}/": "](../../figures/", f"]({paths.NOTEBOOKS}/": "]("}
    for outer, inner in inside.items():
        table = table.replace(outer, inner)
    (PAGES / "costs.md").write_text(f"# What the notebooks cost\n\n{table}\n")


def figures_of(name: str) -> list[Path]:
    """The canonical figures of a notebook, its main one first."""
    return sorted((ROOT / "figures").glob(f"{name}*.png"), key=lambda path: path.stem)


def card(notebook: Any, figure: Path) -> str:
    """A figure of the gallery, which leads to its notebook."""
    more = figure.stem.removeprefix(notebook.name).strip("_").replace("_", " ")
    title = f"{notebook.name[:2]} · {notebook.title}" + (f": {more}" if more else "")
    return "\n".join(
        [
            f"::::{{figure}} ../figures/{figure.name}",
            f":alt: {title}",
            f":target: _pages/{notebook.name}.html",
            title,
            "::::",
        ]
    )


def as_restructured(lines: list[str]) -> None:
    """Turn a plain-text docstring into reStructuredText, in place.

    Stars and bars stand for themselves outside of `code`, and a block that is indented without a
    section's heading above it is code.
    """
    made: list[str] = []
    for number, line in enumerate(lines):
        before = lines[number - 1] if number else ""
        heading = next((text for text in reversed(lines[:number]) if text.strip()), "")
        if line.startswith("    ") and not before.strip() and not heading.startswith(" "):
            made += ["::", ""]
        code = line.startswith("    ") and "::" in made
        code = code or line.lstrip().startswith((">>>", "..."))
        parts = re.split(r"(`[^`]*`)", line)
        plain = [re.sub(r"([*|])", r"\\\1", part) if i % 2 == 0 else part
                 for i, part in enumerate(parts)]  # fmt: skip
        made.append(line if code else "".join(plain))
        if code and not any(text.startswith("    ") for text in lines[number + 1 :]):
            made += [""]
    lines[:] = made


def lead_to_pages(source: list[str]) -> None:
    """Let links to notebooks, which work on a code host, lead to their pages; in place."""
    source[0] = source[0].replace(f"](../{paths.NOTEBOOKS}/", f"]({PAGES.name}/")


def setup(app: Any) -> None:
    write_pages()
    app.connect("source-read", lambda *event: lead_to_pages(event[-1]))
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
