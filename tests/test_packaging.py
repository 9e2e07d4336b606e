"""The files around the code agree with each other and with the code."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import paperlib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = [
    Requirement(line)
    for lines in (PROJECT["dependencies"], PROJECT["optional-dependencies"]["dev"])
    for line in lines
]
# Needed to install the project itself; hatchling asks for editables when it builds for `pip -e`.
BUILD_TOOLS = {"hatchling", "editables"}
# What a torch wheel for GPUs brings; it pins these itself, and CPU wheels have none of them.
GPU_LIBRARIES = ("nvidia-", "cuda-", "triton")

MODULES = sorted((ROOT / "paperlib").rglob("*.py"))

# Folders that only one machine has; the alternation keeps this line from matching itself.
PRIVATE_PATH = re.compile(r"(?<![\w.$~/+-])/(?:home|Users|root|work|tmp|scratch)/\w")
TEXT_FILES = {
    ".py", ".ipynb", ".yaml", ".yml", ".toml", ".md", ".cff", ".lock", ".mplstyle", ".txt", ".json",
}  # fmt: skip


def name_of(path: Path) -> str:
    """A module's place in the package, e.g. core/paths."""
    return str(path.relative_to(ROOT / "paperlib").with_suffix(""))


def locked() -> dict[str, Requirement]:
    """The lock's lines by package name."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def version_of(pin: Requirement) -> Version:
    """The one version that a line `name==version` of the lock allows."""
    (specifier,) = pin.specifier
    return Version(specifier.version)


def applies(requirement: Requirement, extras: frozenset[str] = frozenset()) -> bool:
    """Whether this Python on this system needs the requirement of a package taken with extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras})


def required() -> set[str]:
    """Names of all packages that the declared ones and the build need here, to any depth."""
    seen = set()
    waiting = [*DECLARED, *map(Requirement, BUILD_TOOLS)]
    while waiting:
        wanted = waiting.pop()
        node = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if node not in seen and not node[0].startswith(GPU_LIBRARIES):
            seen.add(node)
            needs = map(Requirement, importlib.metadata.requires(wanted.name) or [])
            waiting += [need for need in needs if applies(need, node[1])]
    return {name for name, _ in seen}


def test_every_line_of_the_lock_is_an_exact_pin_without_a_local_build() -> None:
    for pin in locked().values():
        assert [specifier.operator for specifier in pin.specifier] == ["=="], str(pin)
        assert pin.url is None
        assert version_of(pin).local is None, f"{pin}: only one index serves this build"
        assert "*" not in str(pin.specifier), str(pin)


def test_the_lock_names_no_package_twice_and_is_sorted() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    names = [Requirement(line).name for line in lines if line and not line.startswith("#")]
    assert names == sorted(set(names))


@pytest.mark.parametrize("declared", DECLARED, ids=str)
def test_the_lock_satisfies_what_pyproject_declares(declared: Requirement) -> None:
    pin = locked()[canonicalize_name(declared.name)]
    assert version_of(pin) in declared.specifier


def test_the_lock_pins_the_torch_that_the_figures_were_made_with() -> None:
    assert version_of(locked()["torch"]) == Version("2.13.0")
    assert version_of(locked()["torchvision"]) == Version("0.28.0")


def test_the_lock_holds_what_is_required_and_nothing_else() -> None:
    here = {name for name, pin in locked().items() if applies(pin)}
    assert here == required()


def test_the_books_lock_adds_to_the_lock_what_its_extra_needs() -> None:
    lines = (ROOT / "requirements-book.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert [pin.name for pin in pins] == sorted({pin.name for pin in pins})
    assert not {pin.name for pin in pins} & locked().keys()
    found = {pin.name: version_of(pin) for pin in pins}
    for wanted in map(Requirement, PROJECT["optional-dependencies"]["book"]):
        assert found[canonicalize_name(wanted.name)] in wanted.specifier


@pytest.mark.parametrize("name", ["book", "explorer", "widgets"])
def test_an_optional_extra_stays_out_of_the_lock(name: str) -> None:
    extra = map(Requirement, PROJECT["optional-dependencies"][name])
    assert not {canonicalize_name(wanted.name) for wanted in extra} & locked().keys()


def test_the_extra_for_dask_is_what_the_tests_run_with() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras["dask"]) <= set(extras["dev"])


def test_the_conda_environment_is_python_pip_and_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, by_pip = environment["dependencies"]
    assert environment["name"] == "paperlib"
    assert environment["channels"] == ["conda-forge"]
    assert python.startswith("python=")
    assert python.removeprefix("python=") in Requirement("x" + PROJECT["requires-python"]).specifier
    assert pip == "pip"
    assert by_pip == {"pip": ["-r requirements.lock", "-e ."]}


def test_the_citation_names_the_package_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    families = [author["family-names"] for author in paper["authors"]]
    assert families == ["Thurn", "Jefferson", "Erdmenger"]
    assert paper["identifiers"][0]["value"] == "arXiv:2406.12916"


def test_the_version_is_the_same_wherever_it_is_written() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert paperlib.__version__ == PROJECT["version"] == str(citation["version"])


def dry_run(target: str) -> str:
    """The commands that `make target` would run."""
    # Inside `make test`, make would take its parent's flags and jobs for its own.
    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS", "PYTHON"}
    environment = {key: value for key, value in os.environ.items() if key not in outer}
    command = ["make", "-n", "--always-make", target]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("figures", ".venv/bin/paperlib run --profile quick --force"),
        ("paper", ".venv/bin/paperlib run --profile paper"),
        ("reference", ".venv/bin/paperlib run --profile reference --force --save"),
        ("test", ".venv/bin/python -m pytest"),
        ("book", ".venv/bin/python -m sphinx -q -W --keep-going -E -b html book book/_build/html"),
        ("lab", f'--ServerApp.ip=127.0.0.1 --ServerApp.root_dir="{ROOT}"'),
    ],
)
def test_each_target_installs_the_lock_and_then_does_its_job(target: str, command: str) -> None:
    commands = dry_run(target)
    steps = ["-m venv .venv", "pip install -r requirements.lock", "--no-build-isolation -e ."]
    places = [commands.index(step) for step in [*steps, command]]
    assert places == sorted(places)


def lab(folder: Path) -> str:
    """What `make lab` says in a folder with its commands, where JupyterLab does nothing."""
    bin_ = folder / ".venv/bin"
    bin_.mkdir(parents=True, exist_ok=True)
    (folder / ".venv/.installed").touch()
    for tool in ("requirements.lock", "pyproject.toml", "Makefile"):
        (folder / tool).write_text((ROOT / tool).read_text())
        os.utime(folder / tool, (0, 0))
    (bin_ / "jupyter").write_text('#!/bin/sh\necho "jupyter $@"\n')
    (bin_ / "jupyter").chmod(0o755)
    done = subprocess.run(["make", "-s", "lab"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_lab_opens_copies_that_a_reader_may_change(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/01_tiny.ipynb").write_text("as committed")
    said = lab(tmp_path)
    assert (tmp_path / "lab/01_tiny.ipynb").read_text() == "as committed"
    assert f"--ServerApp.root_dir={tmp_path}" in said, "figures and README can be opened, too"
    assert ("--allow-root" in said) == (os.geteuid() == 0), "containers run as root"
    (tmp_path / "lab/01_tiny.ipynb").write_text("mine")
    (tmp_path / "notebooks/02_new.ipynb").write_text("new")
    lab(tmp_path)
    assert (tmp_path / "lab/01_tiny.ipynb").read_text() == "mine"
    assert (tmp_path / "lab/02_new.ipynb").read_text() == "new"
    assert "/lab/" in (ROOT / ".gitignore").read_text().splitlines()


def test_no_text_names_this_distribution_as_if_an_index_had_it() -> None:
    pattern = re.compile(r"install\s+['\"]?reconstruction-entropy")
    files = [*(ROOT / "paperlib").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]
    files += [ROOT / "README.md", *(ROOT / "book").glob("*.md")]
    assert [path.name for path in files if pattern.search(path.read_text(encoding="utf-8"))] == []


def test_make_check_formats_lints_types_and_tests_once() -> None:
    commands = dry_run("check")
    for command in (
        "ruff format --check",
        "ruff check",
        "mypy paperlib",
        "lint-imports",
        "-m pytest",
    ):
        assert commands.count(command) == 1, command


def test_the_hooks_before_a_commit_are_the_tools_of_the_environment_and_fetch_nothing() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    commands = [hook["entry"].removesuffix(" --force-exclude") for hook in local["hooks"]]
    assert commands == [".venv/bin/ruff format", ".venv/bin/ruff check", ".venv/bin/mypy paperlib"]
    linted = dry_run("lint").replace(" --check", "")
    assert [command for command in commands if command not in linted] == []


def test_make_clean_keeps_the_environment_and_the_committed_results() -> None:
    commands = dry_run("clean")
    assert "data/points" in commands
    assert "pip install" not in commands
    assert "data/reference" not in commands
    assert "rm -rf .venv" not in commands


def test_an_old_python_stops_make_with_one_clear_message(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "-s", "test", f"PYTHON={old}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "must be Python 3.11 or newer, got: Python 3.9.2" in done.stderr
    assert not (tmp_path / ".venv").exists()


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere in it, with relative names spelt out."""
    return imports_of(path.read_text(), package=".".join(path.parent.relative_to(ROOT).parts))


def imports_of(code: str, *, package: str) -> Iterator[str]:
    """The same of the code of a module in a package, such as paperlib.core."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def lint_imports(folder: Path) -> "subprocess.CompletedProcess[str]":
    """What `make lint` says of which room imports which, of the package in this folder."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
    ]
    return subprocess.run(
        [*command, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the package with its contracts."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "paperlib", tmp_path / "paperlib", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_no_room_imports_one_above_it_nor_an_instrument_another(copied: Path) -> None:
    done = lint_imports(copied)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core/paths.py", "def inside():\n    from paperlib.datasets import load_dataset"),
        ("sweep/plan.py", "from paperlib.instruments.reconstruction.points import CascadeSweep"),
        ("plots/maps.py", "from paperlib import cascade"),
        ("instruments/digits/study.py", "from paperlib.instruments.channels import channels"),
        ("kernels.py", "from . import datasets"),
        ("newcomer.py", ""),
    ],
)
def test_an_import_against_the_contract_would_be_found(
    module: str, line: str, copied: Path
) -> None:
    with (copied / "paperlib" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint_imports(copied)
    assert done.returncode == 1, done.stderr
    assert "BROKEN" in done.stdout


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("import paperlib.paths", ["paperlib.paths"]),
        (
            "from paperlib.core import paths, checks",
            ["paperlib.core.paths", "paperlib.core.checks"],
        ),
        ("from . import plan", ["paperlib.sweep.plan"]),
        ("from .plan import Plan", ["paperlib.sweep.plan.Plan"]),
        ("from ..core.paths import home", ["paperlib.core.paths.home"]),
        ("def f():\n    from .. import core", ["paperlib.core"]),
    ],
)
def test_an_import_in_a_folder_of_the_package_is_spelt_out(line: str, names: list[str]) -> None:
    assert list(imports_of(line, package="paperlib.sweep")) == names


@cache
def providers() -> Mapping[str, list[str]]:
    """The distributions that each package which can be imported comes from; half a second."""
    return importlib.metadata.packages_distributions()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_packages_that_pyproject_declares(path: Path) -> None:
    every = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dask"]]
    declared = {canonicalize_name(Requirement(line).name) for line in every}
    for top in {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names:
        # the extras may not be installed
        if top not in ("paperlib", "dask", "distributed", "ipywidgets", "bokeh"):
            assert declared & {canonicalize_name(name) for name in providers()[top]}, top


def strings(value: Any) -> Iterator[str]:
    """Every text in a notebook's JSON but its pictures, where base64 could look like a path."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not key.startswith("image/"):
                yield from strings(item)


def private_paths(path: Path) -> list[str]:
    """The lines of a file that name a folder of somebody's machine."""
    text = path.read_text(encoding="utf-8")
    texts = strings(json.loads(text)) if path.suffix == ".ipynb" else [text]
    lines = [line for one in texts for line in one.splitlines()]
    return [line for line in lines if PRIVATE_PATH.search(line)]


def test_no_file_names_a_private_path() -> None:
    folders = ("paperlib", "tests", "notebooks", "benchmarks", "book/_static", ".github",
               ".devcontainer")  # fmt: skip
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files += [path for top in (ROOT, ROOT / "book") for path in top.iterdir() if path.is_file()]
    checked = [p for p in files if p.suffix in TEXT_FILES and ".ipynb_checkpoints" not in p.parts]
    assert Path(__file__) in checked
    found = {str(path.relative_to(ROOT)): private_paths(path) for path in checked}
    assert not {name: lines for name, lines in found.items() if lines}


def test_a_private_path_would_be_found_in_a_notebook(tmp_path: Path) -> None:
    output = {"text": ["saved to /" + "home/somebody/figure.png\n"], "image/png": "/" + "tmp/x"}
    notebook = tmp_path / "leaky.ipynb"
    notebook.write_text(json.dumps({"cells": [{"outputs": [output]}]}))
    assert private_paths(notebook) == ["saved to /" + "home/somebody/figure.png"]
