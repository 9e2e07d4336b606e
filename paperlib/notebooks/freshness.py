"""Whether a figure is still what a run would draw: from a note that every run leaves beside it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from paperlib.core import paths
from paperlib.datasets import places
from paperlib.notebooks import inputs
from paperlib.notebooks.catalogue import INJECTED, source_of

_REASONS = {
    "parameters": "its parameters changed",
    "notebook": "its code changed",
    "package": "paperlib changed",
    "data": "its data changed",
}


class State(NamedTuple):
    """Whether a figure is "fresh", "stale" or "missing", or "shipped" with the project, and why."""

    word: str
    reason: str


def identity(notebook: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a notebook's figures are made from, in JSON's types, to be compared later.

    Args:
        notebook: as nbformat or JSON reads it.
        values: the parameters that the figures depend on.
    """
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    code = [source_of(cell) for cell in cells if INJECTED not in cell["metadata"].get("tags", [])]
    package = b"".join(path.read_bytes() for path in paths.package_files())
    return {
        "parameters": json.loads(json.dumps(dict(values))),
        "notebook": hashlib.sha256(json.dumps(code).encode()).hexdigest(),
        "package": hashlib.sha256(package).hexdigest(),
        "data": _data(values),
    }


def noted_parameters(executed: Path) -> dict[str, Any]:
    """Return the parameters that a run noted beside its notebook; none where there is no note."""
    try:
        return dict(json.loads(executed.with_suffix(".json").read_text("utf-8"))["parameters"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def note(executed: Path, stem: Path, made_from: Mapping[str, Any]) -> None:
    """Write `<executed>.json`: what a run was made from, and the figures it left."""
    figures = {path.name: _digest(path) for path in sorted(stem.parent.glob(f"{stem.name}*.png"))}
    text = json.dumps({**made_from, "figures": figures}, indent=1, ensure_ascii=False)
    executed.with_suffix(".json").write_text(text, encoding="utf-8")


def state(executed: Path, stem: Path, made_from: Mapping[str, Any]) -> State:
    """Return how the figures at `stem` compare with what a run would be made from now."""
    file = executed.with_suffix(".json")
    if not executed.exists() or not file.exists():
        return State("missing", "not run here yet")
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        figures = dict(before["figures"])
    except (ValueError, KeyError, TypeError):
        return State("stale", f"{file.name} beside it cannot be read")
    for name, digest in figures.items():
        figure = stem.with_name(name)
        if not figure.exists():
            return State("missing", f"{name} is gone")
        if _digest(figure) != digest:
            return State("stale", f"{name} is not the one that the run left")
    changed = [why for key, why in _REASONS.items() if before.get(key) != made_from[key]]
    return State("stale", ", ".join(changed)) if changed else State("fresh", "nothing has changed")


def _data(values: Mapping[str, Any]) -> dict[str, Any]:
    """The files that the parameters stand for now: data sets, weights, pictures, results."""
    found: dict[str, Any] = {}
    for key, text in inputs.texts(values):
        if key in inputs.DATA_SETS:
            found[key] = _data_set(text)
        elif file := inputs.named(key, text):
            found[key] = found.get(key, []) + _listing(file)
    return found


def _data_set(name: str) -> list[Any]:
    if name not in places.NAMES:
        return _listing(Path(name))
    while places.availability(name) == "absent" and name in places.FALLBACKS:
        name = places.FALLBACKS[name]
    where, place = places.located(name)
    return [name, where, *([str(paths.data_root()), *_listing(place)] if place else [])]


def _listing(path: Path) -> list[Any]:
    """Name, size and time of every file: cheaper than reading a folder of pictures."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
    seen = ((file, file.lstat()) for file in files)  # a link may lead nowhere
    return [[str(file), about.st_size, about.st_mtime_ns] for file, about in seen]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
