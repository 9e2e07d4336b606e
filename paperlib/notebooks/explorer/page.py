"""The explorer's page: one file that holds its figures, numbers, pictures and scripts."""

import importlib.util
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from paperlib.core import paths
from paperlib.networks.kinds import ARCHITECTURES
from paperlib.notebooks.explorer import contents

FILE = "explorer.html"
FOLDER = __name__.rpartition(".")[0]  # of the package, with the page's own files
MISSING = "the explorer's figures need Bokeh, which is optional: pip install bokeh"


def write_page(folder: str | os.PathLike[str]) -> Path:
    """Write the explorer as one file, and return its path.

        write_page("site")  # site/explorer.html, to be opened in a browser; a few seconds

    Args:
        folder: where `explorer.html` goes; it is made if need be.

    Raises:
        ImportError: Bokeh is not installed; says how to get it.
    """
    file = Path(folder) / FILE
    paths.write_whole(file, page().encode())
    return file


def page(*, home: str = "") -> str:
    """Return the explorer as HTML that asks for nothing else.

    Args:
        home: address of the page that it leads back to, if any.

    Raises:
        ImportError: as `write_page`.
    """
    if importlib.util.find_spec("bokeh") is None:
        raise ImportError(MISSING)
    from bokeh.embed import json_item
    from bokeh.resources import Resources

    from paperlib.notebooks.explorer import figures

    numbers: dict[str, Any] = {
        "maps": {name: contents.map_of(name) for name in ARCHITECTURES},
        "outputs": contents.outputs(),
        "zoo": contents.zoo(),
        **contents.words(),
    }
    plots = (
        figures.map_figure(numbers["maps"]),
        figures.curve_figure(),
        figures.zoo_figure(numbers["zoo"]),
    )
    numbers["figures"] = {plot.name: json_item(plot) for plot in plots}
    back = f'<p><a href="{home}">← Reconstruction entropy</a></p>' if home else ""
    parts = {
        "home": back,
        "bokeh": Resources(mode="inline", components=["bokeh"], log_level="warn").render(),
        "style": _own("page.css"),
        "numbers": json.dumps(numbers, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        .replace("</", "<\\/"),
        "script": _own("page.js"),
    }  # fmt: skip
    html = _own("page.html")
    for name, part in parts.items():
        html = html.replace(f"<!-- {name} -->", part)
    return html


def _own(name: str) -> str:
    return (resources.files(FOLDER) / name).read_text(encoding="utf-8")
