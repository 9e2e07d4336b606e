"""The checkout's notebooks: found, described, their parameters and profiles read. No kernel and no
library of notebooks is needed for it, so that `paperlib list` answers at once."""

import ast
import json
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from paperlib.core import paths
from paperlib.core.checks import did_you_mean
from paperlib.core.settings import PROFILES
from paperlib.core.values import read_yaml

GROUPS = ("figures", "instruments")
FIRST_INSTRUMENT = 10  # the notebooks before are the paper's, and the prediction's
PARAMETERS = "parameters"  # the tag of the cell that holds them
INJECTED = "injected-parameters"  # papermill's tag on the cell that it adds


@dataclass(frozen=True)
class Notebook:
    """One notebook of the checkout, by what it says about itself."""

    name: str
    title: str  # its first heading
    claim: str  # the paragraph below, what its figure shows
    path: Path


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell."""

    name: str
    default: Any
    type: type
    help: str  # the comment behind it


def find() -> list[Notebook]:
    """Return the checkout's notebooks, in order."""
    return [_described(path) for path in _files()]


def resolve(name: str) -> str:
    """Return the full name of a notebook: of `name`, or of the only one that begins so ("01", "1").

    Raises:
        ValueError: no notebook, or more than one.
    """
    begin = name.zfill(2) if name.isdecimal() else name
    known = [path.stem for path in _files()]
    found = [name] if name in known else [full for full in known if full.startswith(begin)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{name!r} begins more than one notebook: {', '.join(found)}")
    raise ValueError(
        f"no notebook {name!r}{did_you_mean(name, known)}; there are: {', '.join(known) or 'none'}"
    )


def group(name: str) -> list[str]:
    """Return the notebooks of a group: "figures" (the paper's and the prediction's, 00 to 09) or
    "instruments" (10 and on); of any other name, the one that it resolves to.

    Raises:
        ValueError: no notebook, or more than one.
    """
    if name not in GROUPS:
        return [resolve(name)]
    names = [path.stem for path in _files()]
    return [n for n in names if (int(n[:2]) < FIRST_INSTRUMENT) == (name == "figures")]


def parameters(name: str) -> dict[str, Parameter]:
    """Return a notebook's parameters by name, as `papermill --help-notebook` understands them.

    Raises:
        FileNotFoundError: no such notebook.
        ValueError: a default that is no literal, or a cell that is no Python.
    """
    path = existing(name)
    cells = [source for source, tags in code_cells(path) if PARAMETERS in tags]
    return {p.name: p for source in cells[:1] for p in _lines(path, source)}


def given_by(name: str) -> dict[str, Any]:
    """Return what the notebook's cells give to its parameters as it stands, papermill's cell
    included: those of the run whose outputs it holds."""
    path = existing(name)
    found = {key: parameter.default for key, parameter in parameters(name).items()}
    for source, tags in code_cells(path):
        if INJECTED in tags:
            found |= {p.name: p.default for p in _lines(path, source)}
    return found


def profile_parameters(name: str, profile: str) -> dict[str, Any]:
    """Return the values that a profile gives to a notebook's parameters, as written in its YAML.

    Notebooks of instruments have them in their metadata instead, as
    `"paperlib": {"profiles": {"smoke": {…}}}`; there the quick profile is the cell's own values,
    with an offline data set if need be.

    Raises:
        ValueError: an unknown profile, or a file that is no flat mapping.
        FileNotFoundError: the notebook has no such profile.
    """
    if profile not in PROFILES:
        raise ValueError(
            f"unknown profile {profile!r}{did_you_mean(profile, PROFILES)}; "
            f"expected one of {', '.join(PROFILES)}"
        )
    file = paths.profile_file(profile, name)
    if not file.is_file():
        noted = noted_profiles(name)
        if profile not in noted:
            raise FileNotFoundError(f"{name} has no profile {profile}: expected {file}")
        return {"profile": profile, **noted[profile]}
    try:
        values = read_yaml(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"{file} must be a mapping of parameter names to values, got {values!r}")
    return values


def noted_profiles(name: str) -> dict[str, dict[str, Any]]:
    """Return the profiles in a notebook's own metadata."""
    noted = about(name).get("profiles")
    return {"quick": {"fallback": True}, **noted} if noted is not None else {}


def about(name: str) -> Mapping[str, Any]:
    """Return what a notebook's metadata say for this package."""
    said: Mapping[str, Any] = raw(existing(name))["metadata"].get("paperlib", {})
    return said


def existing(name: str) -> Path:
    """Return the file of a notebook.

    Raises:
        FileNotFoundError: there is none.
    """
    path = paths.notebook_file(name)
    if not path.is_file():
        raise FileNotFoundError(f"no notebook {name!r} in {path.parent}; see `paperlib list`")
    return path


def raw(path: Path) -> dict[str, Any]:
    """Return a notebook as its file holds it; not to be changed, for it is read once.

    Raises:
        ValueError: it is no notebook; names the file.
    """
    state = path.stat()
    return _raw(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _raw(path: Path, modified: int, size: int) -> dict[str, Any]:
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        sound = isinstance(notebook["cells"], list) and isinstance(notebook["metadata"], dict)
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise ValueError(f"{path} is damaged or no notebook: restore it")
    return dict(notebook)


def code_cells(path: Path) -> list[tuple[str, list[str]]]:
    """Return the source and the tags of every code cell."""
    cells = [cell for cell in raw(path)["cells"] if cell["cell_type"] == "code"]
    return [(source_of(cell), cell["metadata"].get("tags", [])) for cell in cells]


def source_of(cell: Mapping[str, Any]) -> str:
    """Return a cell's text, which a file may hold as lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _files() -> list[Path]:
    folder = paths.notebook_file("x").parent
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def _described(path: Path) -> Notebook:
    cells = [cell for cell in raw(path)["cells"] if cell["cell_type"] == "markdown"]
    parts = [part.strip() for cell in cells for part in source_of(cell).split("\n\n")]
    paragraphs = [part for part in parts if part]
    headings = [place for place, part in enumerate(paragraphs) if part.startswith("#")]
    if not headings:
        return Notebook(path.stem, path.stem, "", path)
    heading, *rest = paragraphs[headings[0]].split("\n", 1)
    following = rest + paragraphs[headings[0] + 1 :]
    claim = " ".join(following[0].split()) if following else ""
    return Notebook(path.stem, heading.lstrip("#").strip(), claim, path)


def _lines(path: Path, source: str) -> Iterator[Parameter]:
    """The assignments of a parameters cell, with the comments behind them."""
    try:
        lines = ast.parse(source).body
        tokens = list(tokenize.generate_tokens(StringIO(source).readline))
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"{path.name}: its parameters cell is no Python: {error}") from None
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    kinds = {kind.__name__: kind for kind in (bool, int, float, str, list, dict)}
    for line in lines:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        value = getattr(line, "value", None)
        if len(targets) == 1 and isinstance(targets[0], ast.Name) and value is not None:
            name, default = targets[0].id, _literal(path, targets[0].id, value)
            said = ast.unparse(line.annotation) if isinstance(line, ast.AnnAssign) else ""
            help_ = comments.get(line.end_lineno or line.lineno, "")
            yield Parameter(name, default, kinds.get(said, type(default)), help_)


def _literal(path: Path, name: str, value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(
            f"{path.name}: the default of {name} must be a literal on one line, "
            f"got {ast.unparse(value)!r}"
        ) from None
