"""Every public name shows how it is used, and its examples run."""

import ast
import doctest
import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import pytest
from checkout import ROOT

import paperlib
from paperlib.instruments.probe.report import Report
from paperlib.instruments.probe.suggestion import Suggestion

ROOMS = (
    "sweep",
    "measures",
    "meanfield",
    "kernels",
    "datasets",
    "networks",
    "plots",
    "cascade",
    "training",
)
# whose examples cannot be made short
SLOW = {
    "heat_maps": "draws four maps, each with its mean-field curves",
    "phase_diagram": "draws a whole figure with all its panels",
    "solver_comparison": "draws a figure of two sweeps, each with 60 networks",
    "vgg16": "draws 28 million weights, and imports torchvision",
}
NOUNS = ("A ", "An ", "The ", "What ", "How ", "Which ", "Whether ", "Where ", "By ")


def exported(module: ModuleType) -> dict[str, Any]:
    """The functions and classes that a module promises; its own, where it does not say which."""
    own = [name for name in all_names(module) if is_own(getattr(module, name), module)]
    names = getattr(module, "__all__", own)
    found = {name: getattr(module, name) for name in names}
    return {name: value for name, value in found.items() if is_documented(value)}


def all_names(module: ModuleType) -> list[str]:
    """The names in a module, and those that it imports when they are used."""
    blocks = [b for b in ast.parse(inspect.getsource(module)).body if isinstance(b, ast.If)]
    lines = [line for b in blocks for line in b.body if isinstance(line, ast.ImportFrom)]
    later = [alias.name for line in lines for alias in line.names]
    return list(dict.fromkeys([*vars(module), *later]))


def is_own(value: Any, module: ModuleType) -> bool:
    """Whether a module, or one in its folder, defines a value for others."""
    home, name = getattr(value, "__module__", None) or "", module.__name__
    within = home == name or home.startswith(f"{name}.")
    return within and getattr(value, "__name__", "_")[0] != "_"


def is_documented(value: Any) -> bool:
    return inspect.isfunction(value) or inspect.isclass(value)


def methods(kind: type) -> dict[str, Any]:
    """The public methods of a class, by dotted name; without its properties."""
    found = ((name, inspect.unwrap(getattr(kind, name))) for name in vars(kind) if name[0] != "_")
    return {
        f"{kind.__name__}.{name}": getattr(value, "__func__", value)
        for name, value in found
        if inspect.isfunction(value) or inspect.ismethod(value)
    }


VERBS = {
    name: value
    for room in ROOMS
    for name, value in exported(import_module(f"paperlib.{room}")).items()
    if inspect.isfunction(value)
}
SHOWN = exported(paperlib) | VERBS
METHODS = {
    name: method
    for kind in (paperlib.Cascade, paperlib.Dataset, Report, Suggestion)
    for name, method in methods(kind).items()
}


def examples_of(name: str, value: Any) -> doctest.DocTest:
    """The examples in a docstring, which know nothing that they do not import."""
    text = inspect.getdoc(value) or ""
    return doctest.DocTestParser().get_doctest(text, {}, name, name, None)


def outcome(test: doctest.DocTest) -> str:
    """What went wrong in the examples; empty if nothing did."""
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return "".join(said)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project without results of its own, so that examples compute, and write nothing here."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/reference").symlink_to(ROOT / "data/reference")
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    monkeypatch.setenv("PAPERLIB_DATA", str(tmp_path / "data"))


PARAMETERS = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in sorted(SHOWN)
]


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.usefixtures("project")
def test_the_examples_of_a_public_name_do_what_they_say(
    name: str, no_network: list[str], recwarn: pytest.WarningsRecorder
) -> None:
    open_before = plt.get_fignums()  # by tests before this one, in the same process
    assert outcome(examples_of(name, SHOWN[name])) == ""
    assert (no_network, [str(warning.message) for warning in recwarn]) == ([], [])
    assert plt.get_fignums() == open_before


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_every_public_name_has_an_example_with_a_result(name: str) -> None:
    examples = examples_of(name, SHOWN[name]).examples
    assert [example for example in examples if example.want], name
    assert not any(doctest.SKIP in example.options for example in examples)


def test_all_promised_functions_and_classes_are_looked_at() -> None:
    assert {name for name in paperlib.__all__ if name in SHOWN} == set(paperlib.__all__)
    assert SLOW.keys() <= SHOWN.keys()


@pytest.mark.parametrize("name", [*sorted(SHOWN), *sorted(METHODS)])
def test_a_public_function_says_first_what_it_does(name: str) -> None:
    value = (SHOWN | METHODS)[name]
    text = inspect.getdoc(value) or ""
    assert text, f"{name} has no docstring"
    if inspect.isfunction(value):
        assert not text.startswith(NOUNS), (
            f"{name}: begin with a verb, got {text.splitlines()[0]!r}"
        )


def test_no_docstring_says_that_nothing_is_returned() -> None:
    files = [path for folder in ("paperlib", "tests", "benchmarks", "book")
             for path in sorted((ROOT / folder).rglob("*.py"))]  # fmt: skip
    assert [path.name for path in files if '"""' + "Nothing;" in path.read_text()] == []


def test_a_wrong_example_would_be_found() -> None:
    def wrong() -> None:
        """Add.

        Example:
            >>> 1 + 1
            3
        """

    assert "Expected" in outcome(examples_of("wrong", wrong))


def test_names_that_a_room_imports_when_they_are_used_are_looked_at_too() -> None:
    assert {"load_dataset", "located", "run_sweep", "train", "mlp", "r_squared"} <= VERBS.keys()
