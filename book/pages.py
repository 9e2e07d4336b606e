"""What a build of the book makes from what is committed: notebooks as pages, figures, tables."""

import html
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from paperlib import notebooks
from paperlib.core import paths
from paperlib.notebooks import costs

HERE = Path(__file__).parent
ROOT = HERE.parent
FOLDER = HERE / "_pages"  # made anew by every build
# Whose notebooks are launched, as owner/name; builds on GitHub say it, others have no such links.
REPOSITORY = os.environ.get("GITHUB_REPOSITORY", "")
MENTION = re.compile(
    r"\b([Nn]otebooks?\s+)((?:from\s+)?\d\d\b(?:(?:,\s+(?:and\s+)?|\s+(?:and|or|to)\s+)\d\d\b)*)"
)
UNTOUCHED = re.compile(r"(```.*?```|`[^`]*`|!?\[[^\]]*\]\([^)]*\)|<[^>]*>)", re.DOTALL)
# Pages that the README holds: name, title, and with which words it begins and ends there.
OF_README = (
    ("instruments", "The instruments", "Each instrument asks", "What a run from"),
    ("agreement", "Does it agree?", '"Adam" is the published procedure', "`make paper` runs"),
)
COSTS = (
    "What each notebook costs from an empty start, in its quick and in its paper profile, as "
    "`benchmarks/notebooks.py` measured it."
)
FOLDED = {"injected-parameters": "the values of this run", "parameters": "the parameters"}
HOW_TO_READ = "How to read this figure."
MARKUP = re.compile(r"\[([^\]]*)\]\([^)]*\)|[*`$\\]|^#+ ", re.MULTILINE)


def write() -> None:
    """Write the pages of the notebooks, the figures' gallery and the tables."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    cards = []
    for notebook in notebooks.find():
        page = as_page(json.loads(notebook.path.read_text(encoding="utf-8")), notebook)
        (FOLDER / notebook.path.name).write_text(json.dumps(page, ensure_ascii=False))
        cards += [card(notebook, *numbered) for numbered in enumerate(figures_of(notebook.name))]
    _write("gallery", "\n".join([":::::{container} gallery", *cards, ":::::"]))
    _write("costs", f"# What the notebooks cost\n\n{COSTS}\n\n{_inside(_costs())}")
    for name, title, begin, end in OF_README:
        _write(name, f"# {title}\n\n{_inside(of_readme(begin, end))}")
    _write("launch", launch())


def as_page(page: dict[str, Any], notebook: notebooks.Notebook) -> dict[str, Any]:
    """Return a notebook as the book shows it: numbered, its code folded, links where it names other
    notebooks, and under each figure in words what is seen."""
    section = notebook.title
    for place, cell in enumerate(page["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            section = next(iter(re.findall(r"^##+ (.+)$", source, re.MULTILINE)), section)
            cell["source"] = linked(source)
            continue
        cell["metadata"]["tags"] = [*cell["metadata"].get("tags", []), "hide-input"]
        words = alternative(notebook.title, section, page["cells"][place + 1 :])
        tags = cell["metadata"]["tags"]
        folded = next((text for tag, text in FOLDED.items() if tag in tags), "the code")
        cell["metadata"]["mystnb"] = {
            "image": {"alt": words},
            "code_prompt_show": f"Show {folded}",
            "code_prompt_hide": f"Hide {folded}",
        }
        for output in cell["outputs"]:
            if "text/markdown" in output.get("data", {}):
                text = "".join(output["data"]["text/markdown"])
                output["data"]["text/markdown"] = linked(text)
    first = page["cells"][0]
    heading, _, rest = first["source"].partition("\n")
    numbered = heading.replace("# ", f"# {notebook.name[:2]} · ", 1)
    first["source"] = f"{numbered}\n\n{ways_to_open(notebook)}\n{rest}"
    return page


def ways_to_open(notebook: notebooks.Notebook) -> str:
    """Return a line of links: the file itself, and where it runs without an installation."""
    file = f"{paths.NOTEBOOKS}/{notebook.path.name}"
    ways = [f"{{download}}`Download the notebook <../../{file}>`"]
    if REPOSITORY:
        ways += [f"[{name}]({address})" for name, address in launchers(file).items()]
    return f":::{{container}} ways\n{' · '.join(ways)} · `paperlib run {notebook.name[:2]}`\n:::\n"


def launchers(file: str) -> dict[str, str]:
    """Return the addresses that open a notebook of the repository, by the name of the service."""
    return {
        "Binder": f"https://mybinder.org/v2/gh/{REPOSITORY}/HEAD?labpath={file}",
        "Colab": f"https://colab.research.google.com/github/{REPOSITORY}/blob/HEAD/{file}",
    }


def launch() -> str:
    """Return how the notebooks are run elsewhere."""
    if not REPOSITORY:
        return ""
    first = notebooks.find()[0]
    file = f"{paths.NOTEBOOKS}/{first.path.name}"
    binder, colab = launchers(file).values()
    install = f"!pip install git+https://github.com/{REPOSITORY}"
    return (
        f"[Launch on Binder]({binder}), where everything is installed, "
        f"or [open in Colab]({colab}), where `{install}` goes into a first cell."
    )


def linked(text: str, folder: str = "") -> str:
    """Return Markdown in which every mention of a notebook leads to its page.

    Args:
        text: Markdown; its code and its links stay as they are.
        folder: of the notebooks' pages, as seen from the page of the text.
    """
    known = {n.name[:2]: n for n in notebooks.find()}

    def link(number: str, words: str) -> str:
        if number not in known:
            return words
        title = html.escape(known[number].title)  # what is seen before one follows the link
        return f'<a href="{folder}{known[number].name}.html" title="{title}">{words}</a>'

    def links(found: re.Match[str]) -> str:
        before, numbers = found.groups()
        if numbers.isdecimal():
            return link(numbers, before + numbers)
        return before + re.sub(r"\d\d", lambda number: link(number[0], number[0]), numbers)

    parts = UNTOUCHED.split(text)
    return "".join(p if i % 2 else MENTION.sub(links, p) for i, p in enumerate(parts))


def linked_restructured(text: str) -> str:
    """Return reStructuredText in which a mention of a notebook leads to its page."""
    known = {n.name[:2]: n.name for n in notebooks.find()}

    def link(found: re.Match[str]) -> str:
        name = known.get(found[2])
        return f"`{found[0]} <{FOLDER.name}/{name}.html>`__" if name else found[0]

    return re.sub(r"\b([Nn]otebook )(\d\d)\b", link, text)


def alternative(title: str, section: str, following: list[Any]) -> str:
    """Return what a figure shows, for those who do not see it: of the reader's guide below it."""
    below = next((c for c in following if c["cell_type"] == "markdown"), {"source": ""})
    guide = "".join(below["source"]).replace("\n", " ")
    _, found, words = guide.partition(HOW_TO_READ)
    stop = "" if section.endswith("?") else "."
    return plain(f"{title}: {section}{stop} " + (words.strip(" *") if found else ""), 320)


def plain(text: str, length: int) -> str:
    """Return Markdown as words alone, whole sentences where they fit."""
    words = " ".join(MARKUP.sub(r"\1", text).split())
    if len(words) <= length:
        return words
    cut = words[:length]
    end = max(cut.rfind(". "), cut.rfind("; "))
    return cut[: end + 1] if end > length // 2 else cut[: cut.rfind(" ")] + " …"


def figures_of(name: str) -> list[Path]:
    """The canonical figures of a notebook, its main one first."""
    return sorted((ROOT / paths.FIGURES).glob(f"{name}*.png"), key=lambda path: path.stem)


def card(notebook: notebooks.Notebook, place: int, figure: Path) -> str:
    """A figure of the gallery, which leads to its notebook."""
    more = figure.stem.removeprefix(notebook.name).strip("_").replace("_", " ")
    number = notebook.name[:2] + (f".{place}" if place else "")
    title = notebook.title + (f": {more}" if more else "")
    return "\n".join(
        [
            f"::::{{figure}} ../figures/{figure.name}",
            f":alt: {html.escape(plain(f'{title}. {notebook.claim}', 320))}",
            f":target: {FOLDER.name}/{notebook.name}.html",
            f"Figure {number} · {title}",
            "::::",
        ]
    )


def _costs() -> str:
    return costs.markdown(notebooks.find(), costs.load_costs())


def of_readme(begin: str, end: str) -> str:
    """Return the README's words from one line on, up to another, with links to notebooks."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = readme.index(begin)
    return linked(readme[first : readme.index(end, first)].strip())


def _inside(text: str) -> str:
    """Links of the checkout as links of the book's own folder of pages."""
    inside = {f"]({paths.FIGURES}/": "](../../figures/", f"]({paths.NOTEBOOKS}/": "]("}
    for outer, inner in inside.items():
        text = text.replace(outer, inner)
    return text


def _write(name: str, text: str) -> None:
    (FOLDER / f"{name}.md").write_text(text + "\n", encoding="utf-8")
