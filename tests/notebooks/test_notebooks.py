"""The runner, on a small notebook; and what every notebook of the repository says of itself.

That all of them run is in test_run_all.py.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from io import StringIO
from pathlib import Path
from typing import Any

import nbformat
import papermill.cli
import pytest
from checkout import ROOT, copy_of_checkout
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from kernels import execute_in
from tiny_project import NAME, build

from paperlib import instruments
from paperlib.core.checks import LARGEST_SEED
from paperlib.core.settings import PROFILES
from paperlib.instruments.prediction import names
from paperlib.notebooks import catalogue
from paperlib.notebooks import runner as notebooks

NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
MNIST = "01_mnist_phase_diagram"
FIRST = "00_how_it_works"  # which takes the least time


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    return build(tmp_path)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose notebook has been run with the reference profile; not to be changed."""
    root = build(tmp_path_factory.mktemp("executed"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAPERLIB_HOME", str(root))
        notebooks.execute(NAME, profile="reference")
    return root


@pytest.fixture
def executed_copy(executed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(executed, root)
    monkeypatch.setenv("PAPERLIB_HOME", str(root))
    return root


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# -- finding and describing


def test_a_notebook_is_described_by_its_first_heading_and_the_paragraph_below(
    project: Path,
) -> None:
    (found,) = notebooks.find()
    assert (found.name, found.title) == (NAME, "A line")
    assert found.claim == "It goes up with the depth."
    assert found.path == project.resolve() / "notebooks" / f"{NAME}.ipynb"


def test_files_without_a_number_are_no_notebooks_of_the_paper(project: Path) -> None:
    folder = project / "notebooks"
    shutil.copy(folder / f"{NAME}.ipynb", folder / "Untitled.ipynb")
    assert [found.name for found in notebooks.find()] == [NAME]


def test_a_unique_beginning_names_a_notebook(project: Path) -> None:
    assert notebooks.resolve("01") == notebooks.resolve("1") == notebooks.resolve(NAME) == NAME
    shutil.copy(project / "notebooks" / f"{NAME}.ipynb", project / "notebooks/01_tiny_too.ipynb")
    assert notebooks.resolve(NAME) == NAME
    with pytest.raises(ValueError, match="more than one notebook: 01_tiny, 01_tiny_too"):
        notebooks.resolve("01")
    with pytest.raises(ValueError, match="did you mean '01_tiny'"):
        notebooks.resolve("01_tyni")


def test_parameters_have_a_default_a_type_and_a_help(project: Path) -> None:
    found = notebooks.parameters(NAME)
    assert found["depth"] == notebooks.Parameter("depth", 3, int, "stages, 1 to 10,000")
    assert found["dataset"].default == "digits"
    assert found["sigma_b2"].type is float
    with pytest.raises(FileNotFoundError, match="no notebook '02_none'"):
        notebooks.parameters("02_none")


def test_a_default_that_is_no_literal_is_refused(project: Path) -> None:
    replace(project / "notebooks" / f"{NAME}.ipynb", "depth: int = 3", "depth: int = 1 + profile")
    with pytest.raises(ValueError, match="default of depth must be a literal"):
        notebooks.parameters(NAME)


# -- validation


def test_overrides_win_over_the_profile_and_the_profile_over_the_defaults(project: Path) -> None:
    assert notebooks.validated(NAME, "quick", {})["depth"] == 3
    assert notebooks.validated(NAME, "smoke", {})["depth"] == 2
    values = notebooks.validated(NAME, "smoke", {"depth": 1e2})
    assert values["depth"] == 100
    assert isinstance(values["depth"], int)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"depht": 3}, "unknown parameter 'depht' = 3.*did you mean 'depth'"),
        ({"depth": "3"}, "depth must be a whole number, got '3'"),
        ({"depth": 2.5}, "depth must be a whole number, got 2.5"),
        ({"depth": True}, "depth must be a whole number"),
        ({"depth": 0}, "depth must be >= 1, got 0"),
        ({"sigma_b2": -0.1}, "sigma_b2 must be >= 0"),
        ({"dataset": 8}, "dataset must be a string, got 8"),
    ],
)
def test_a_wrong_parameter_is_refused(
    project: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        notebooks.validated(NAME, "quick", overrides)


def test_a_wrong_profile_is_refused(project: Path) -> None:
    with pytest.raises(ValueError, match=r"'smok' \(did you mean 'smoke'\?\); expected one of"):
        notebooks.validated(NAME, "smok", {})
    with pytest.raises(FileNotFoundError, match=r"has no profile paper: expected .*01_tiny\.yaml"):
        notebooks.validated(NAME, "paper", {})
    (project / "notebooks/profiles/smoke" / f"{NAME}.yaml").write_text("- depth\n")
    with pytest.raises(ValueError, match="must be a mapping of parameter names to values"):
        notebooks.validated(NAME, "smoke", {})


def test_a_notebook_must_name_its_configuration(project: Path) -> None:
    replace(project / "notebooks" / f"{NAME}.ipynb", '"PhaseDiagram"', '"os"')
    with pytest.raises(ValueError, match=r"must name its configuration.*got 'os'"):
        notebooks.validated(NAME, "quick", {})


def test_a_path_is_taken_from_the_callers_folder_and_a_name_is_left_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "mine").mkdir()
    (project / "mine" / "own.npz").touch()
    monkeypatch.chdir(project / "mine")
    own = str((project / "mine" / "own.npz").resolve())
    for given in ("own.npz", "./own.npz", "../mine/own.npz"):
        assert notebooks.validated(NAME, "quick", {"dataset": given})["dataset"] == own
    values = notebooks.validated(NAME, "quick", {"dataset": "mnist", "start_from": "some.nc"})
    assert (values["dataset"], values["start_from"]) == ("mnist", "some.nc")


def test_paths_in_a_list_are_taken_from_the_callers_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["runs/a.nc", "trainability_mnist.nc"]
    absolute = (str((tmp_path / "runs/a.nc").resolve()), "trainability_mnist.nc")
    for kind in (list, tuple):
        values = notebooks.validated("07_predictors", "quick", {"trained": kind(given)})
        assert values["trained"] == absolute


# -- where a figure goes


@pytest.mark.parametrize(
    ("profile", "overrides", "folder"),
    [
        ("smoke", {}, "figures/smoke"),
        ("quick", {}, "figures/quick"),
        ("reference", {}, "figures"),
        ("reference", {"jobs": 7}, "figures"),
        ("reference", {"depth": 5}, "figures/custom/??????????"),
        ("reference", {"steps": 5}, "figures/custom/??????????"),  # not in the parameters cell
        (
            "quick",
            {"depth": 4},
            "figures/custom/??????????",
        ),  # the reference's value, but not its profile
        ("quick", {"depth": 4, "profile": "reference"}, "figures"),
        ("quick", {"profile": "reference"}, "figures"),
        ("quick", {"profile": "smoke"}, "figures/smoke"),
    ],
)
def test_only_a_profiles_exact_values_lead_to_its_folder(
    project: Path, profile: str, overrides: dict[str, Any], folder: str
) -> None:
    values = notebooks.validated(NAME, profile, overrides)
    place = notebooks.figure_of_run(NAME, values)
    assert fnmatch(str(place.relative_to(project.resolve())), f"{folder}/{NAME}")


def test_runs_with_other_parameters_do_not_overwrite_each_other(project: Path) -> None:
    def place(**overrides: Any) -> Path:
        return notebooks.figure_of_run(NAME, notebooks.validated(NAME, "quick", overrides))

    places = [place(depth=5), place(depth=6), place(depth=5, sigma_b2=0.1), place(steps=5)]
    assert len(set(places)) == 4
    assert place(depth=5.0, jobs=3) == places[0]


def test_a_running_notebook_saves_where_the_runner_says(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PAPERLIB_FIGURE", raising=False)
    opened_by_hand = project.resolve() / "figures/custom" / NAME
    assert notebooks.figure_path(NAME) == opened_by_hand
    monkeypatch.setenv("PAPERLIB_FIGURE", str(project / "elsewhere/figure"))
    assert notebooks.figure_path(NAME) == project / "elsewhere/figure"


# -- running


@pytest.mark.slow
def test_a_canonical_run_draws_into_figures_and_keeps_its_notebook_apart(executed: Path) -> None:
    assert (executed / "figures" / f"{NAME}.png").is_file()
    notebook = nbformat.read(executed / "figures/reference" / f"{NAME}.ipynb", as_version=4)
    injected = [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])]
    (source,) = [cell.source.strip() for cell in injected]
    assert source == '# Parameters\nprofile = "reference"\ndepth = 4', "what differs, no more"
    assert not list(executed.rglob("*.part*"))


def test_a_fresh_figure_is_not_drawn_again(
    executed_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = executed_copy.resolve() / "figures/reference" / f"{NAME}.ipynb"
    before = path.stat().st_mtime_ns
    assert notebooks.execute(NAME, profile="reference", jobs=3) == path
    assert path.stat().st_mtime_ns == before
    assert "fresh, not run again (figures/reference/01_tiny.ipynb)" in capsys.readouterr().out


def test_a_figure_is_fresh_until_something_that_it_is_made_from_changes(
    executed_copy: Path,
) -> None:
    assert notebooks.state(NAME, "reference") == ("fresh", "nothing has changed")
    assert notebooks.state(NAME, "quick") == ("missing", "not run here yet")

    profile = executed_copy / "notebooks/profiles/reference" / f"{NAME}.yaml"
    replace(profile, "depth: 4", "depth: 5")
    assert notebooks.state(NAME, "reference") == ("stale", "its parameters changed")
    replace(profile, "depth: 5", "depth: 4")

    replace(executed_copy / "notebooks" / f"{NAME}.ipynb", "a line of progress", "another line")
    assert notebooks.state(NAME, "reference") == ("stale", "its code changed")


def test_a_change_of_the_words_around_the_code_makes_no_figure_stale(executed_copy: Path) -> None:
    replace(executed_copy / "notebooks" / f"{NAME}.ipynb", "More words", "Better words")
    assert notebooks.state(NAME, "reference").word == "fresh"


def test_a_figure_that_was_removed_or_replaced_is_noticed(executed_copy: Path) -> None:
    figure = executed_copy / "figures" / f"{NAME}.png"
    figure.write_bytes(b"another picture")
    assert notebooks.state(NAME, "reference").word == "stale"
    figure.unlink()
    assert notebooks.state(NAME, "reference") == ("missing", "01_tiny.png is gone")


def test_a_damaged_note_of_a_run_makes_its_figure_stale(executed_copy: Path) -> None:
    (executed_copy / "figures/reference" / f"{NAME}.json").write_text("{}")
    assert notebooks.state(NAME, "reference").word == "stale"


@pytest.mark.slow
def test_a_run_with_other_parameters_leaves_the_canonical_figure_alone(
    executed_copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    canonical = executed_copy / "figures" / f"{NAME}.png"
    before = canonical.read_bytes()
    path = notebooks.execute(NAME, profile="reference", parameters={"depth": 9})
    assert path.parent.parent == executed_copy.resolve() / "figures/custom"
    assert canonical.read_bytes() == before
    assert path.with_suffix(".png").read_bytes() != before
    assert "a line of progress" in capfd.readouterr().out


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Runs without a kernel: where papermill would write, its figure drawn in its place."""
    found: list[Path] = []

    def execute(source: Path, target: Path, *args: Any, **options: Any) -> None:
        found.append(Path(target))
        notebook = nbformat.read(source, as_version=4)
        nbformat.write(notebook, target)
        spec = options["kernel_manager_class"]().kernel_spec
        Path(f"{spec.env['PAPERLIB_FIGURE']}.png").write_bytes(b"a figure")

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    return found


def test_a_run_goes_to_another_folder_if_it_is_told_so(
    project: Path, tmp_path_factory: pytest.TempPathFactory, drawn: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("elsewhere") / "mine"
    path = notebooks.execute(NAME, profile="reference", output=folder)
    assert {file.name for file in folder.iterdir()} == {
        f"{NAME}.{k}" for k in ("ipynb", "json", "png")
    }
    assert path == folder / f"{NAME}.ipynb"
    assert not (project / "figures").exists()
    assert f"{folder}/{NAME}.png" in capsys.readouterr().out
    notebooks.execute(NAME, profile="reference", output=folder)
    assert "fresh, not run again" in capsys.readouterr().out
    assert len(drawn) == 1
    notebooks.execute(NAME, profile="quick", output=folder)
    assert len(drawn) == 2, "what lies there is of other parameters"


@pytest.mark.parametrize("folder", ["figures", "figures/quick", "figures/../figures/paper"])
def test_another_folder_is_none_where_canonical_figures_lie(folder: str, project: Path) -> None:
    with pytest.raises(ValueError, match="output must be another folder"):
        notebooks.execute(NAME, output=project / folder)
    with pytest.raises(ValueError, match="can be saved as the committed notebook"):
        notebooks.execute(NAME, profile="reference", output=project / "x", save=True)


def test_a_folder_that_cannot_be_written_to_is_told_before_the_run(
    project: Path, drawn: list[Path]
) -> None:
    (project / "figures").write_text("a file is in the way")
    with pytest.raises(OSError, match=r"results cannot be written there.*--output") as caught:
        notebooks.execute(NAME)
    assert str(project) in str(caught.value)
    assert drawn == []


def test_what_is_half_done_lies_outside_of_the_project(project: Path, drawn: list[Path]) -> None:
    notebooks.execute(NAME)
    (part,) = drawn
    assert not part.is_relative_to(project)
    assert not part.parent.exists(), "and is removed"


def test_a_committed_figure_that_was_not_drawn_here_is_shipped_if_its_parameters_hold(
    project: Path,
) -> None:
    source = project / "notebooks" / f"{NAME}.ipynb"
    assert notebooks.state(NAME, "reference").word == "missing"
    (project / "figures").mkdir()
    (project / "figures" / f"{NAME}.png").write_bytes(b"a figure")
    assert notebooks.state(NAME, "reference").word == "missing", "its notebook was never run"
    committed = nbformat.read(source, as_version=4)
    ran = nbformat.v4.new_code_cell('# Parameters\nprofile = "reference"\ndepth = 4')
    ran.metadata["tags"] = ["injected-parameters"]
    committed.cells.insert(2, ran)
    nbformat.write(committed, source)
    assert notebooks.state(NAME, "reference") == (
        "shipped", "committed with the project; not drawn here yet",
    )  # fmt: skip
    assert notebooks.state(NAME, "quick").word == "missing"
    replace(project / "notebooks/profiles/reference" / f"{NAME}.yaml", "depth: 4", "depth: 5")
    assert notebooks.state(NAME, "reference") == (
        "stale", "its parameters changed since it was committed",
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_committed_figure_is_of_the_reference_profile(name: str) -> None:
    ran = catalogue.given_by(name)
    wanted = {key: p.default for key, p in notebooks.parameters(name).items()}
    assert ran == wanted | notebooks.profile_parameters(name, "reference")
    assert (ROOT / "figures" / f"{name}.png").is_file()


def test_a_state_is_known_without_torch_and_without_papermill() -> None:
    code = (
        "import sys\nfrom paperlib.cli import main\nmain(['list'])\nmain(['status'])\n"
        "slow = {'torch', 'papermill', 'nbformat', 'matplotlib', 'xarray', 'pandas', 'joblib'}\n"
        "sys.exit(', '.join(slow & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("content", ["", "{", "[]", '{"cells": 3}'])
def test_a_damaged_notebook_is_named(content: str, project: Path) -> None:
    (project / "notebooks" / f"{NAME}.ipynb").write_text(content)
    with pytest.raises(ValueError, match=rf"{NAME}\.ipynb is damaged or no notebook"):
        notebooks.parameters(NAME)


def test_a_parameters_cell_that_is_no_python_is_named(project: Path) -> None:
    replace(project / "notebooks" / f"{NAME}.ipynb", "depth: int = 3", "depth: int = ")
    with pytest.raises(ValueError, match=rf"{NAME}\.ipynb: its parameters cell is no Python"):
        notebooks.parameters(NAME)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_read_as_papermill_reads_them(name: str) -> None:
    theirs = papermill.inspect_notebook(str(ROOT / "notebooks" / f"{name}.ipynb"))
    ours = notebooks.parameters(name)
    assert list(ours) == list(theirs)
    for key, told in theirs.items():
        assert ours[key].help == told["help"]
        assert ours[key].default == ast.literal_eval(told["default"])
        assert ours[key].type.__name__ == told["inferred_type_name"]


@pytest.mark.slow
def test_a_failed_run_is_saved_and_told_in_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    build(tmp_path, figure="reached = 1\nraise ValueError('the lamp is broken')")
    with pytest.raises(notebooks.NotebookError) as caught:
        notebooks.execute(NAME)
    message = str(caught.value)
    assert message == (
        "01_tiny: cell In [4] stopped with ValueError: the lamp is broken\n"
        "  saved as figures/quick/01_tiny.failed.ipynb"
    )
    saved = nbformat.read(tmp_path / f"figures/quick/{NAME}.failed.ipynb", as_version=4)
    assert any(o.output_type == "error" for c in saved.cells for o in c.get("outputs", []))
    assert [path.name for path in (tmp_path / "figures/quick").iterdir()] == [
        f"{NAME}.failed.ipynb"
    ]
    assert notebooks.state(NAME, "quick").word == "missing"


@pytest.mark.slow
def test_a_notebook_that_saves_no_figure_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    build(tmp_path, figure="import sys\nprint(sys.executable)")
    with pytest.raises(notebooks.NotebookError, match=r"expected figures/quick/01_tiny\.png"):
        notebooks.execute(NAME)
    # the kernel is this interpreter, whatever "python3" means to Jupyter elsewhere
    notebook = nbformat.read(tmp_path / f"figures/quick/{NAME}.ipynb", as_version=4)
    assert notebook.cells[-1].outputs[0].text.strip() == sys.executable


def test_a_wrong_parameter_stops_a_run_before_a_kernel_starts(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(papermill, "execute_notebook", lambda *a, **k: pytest.fail("it started"))
    with pytest.raises(ValueError, match="depth must be >= 1"):
        notebooks.execute(NAME, parameters={"depth": 0})
    with pytest.raises(ValueError, match="only runs with exactly the values of the profiles"):
        notebooks.execute(NAME, profile="quick", save=True)


def test_jobs_are_for_notebooks_that_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(notebooks, "_run", lambda name, values, *places: ran.append(values))
    notebooks.execute(MNIST, profile="smoke", jobs=3, force=True)
    notebooks.execute("05_digit_reconstructions", profile="smoke", jobs=3, force=True)
    assert ran[0]["jobs"] == 3
    assert "jobs" not in ran[1]


# -- saving the executed notebook


def test_a_saved_notebook_keeps_its_outputs_and_nothing_of_the_machine(
    executed_copy: Path,
) -> None:
    notebooks.execute(NAME, profile="reference", save=True)
    path = executed_copy / "notebooks" / f"{NAME}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert "papermill" not in notebook.metadata
    assert not any({"papermill", "execution"} & cell.metadata.keys() for cell in notebook.cells)
    assert [cell.id for cell in notebook.cells if cell.id == "injected-parameters"]
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == [1, 2, 3, 4]
    assert any("image/png" in o.get("data", {}) for o in notebook.cells[-1].outputs)
    assert str(executed_copy) not in path.read_text()
    # the injected cell is no change of the code
    assert notebooks.state(NAME, "reference").word == "fresh"


def test_a_notebook_that_names_a_private_folder_is_not_saved(executed_copy: Path) -> None:
    source = executed_copy / "notebooks" / f"{NAME}.ipynb"
    before = source.read_bytes()
    result = executed_copy / "figures/reference" / f"{NAME}.ipynb"
    replace(result, "a line of progress", f"saved to {executed_copy.resolve()}/figure.png")
    with pytest.raises(ValueError, match=r"was not saved: an output of cell In \[4\] names"):
        notebooks.execute(NAME, profile="reference", save=True)
    assert source.read_bytes() == before


# -- the repository's notebooks


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    return copy_of_checkout(tmp_path)


def read(name: str) -> Any:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def parameters_cell(name: str) -> str:
    cells = [c for c in read(name).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1, f"{name} must have exactly one cell tagged `parameters`"
    return str(cells[0].source)


def comments(source: str) -> Iterator[int]:
    """The lines that end with a comment."""
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_annotated_literals_with_a_comment_each(name: str) -> None:
    source = parameters_cell(name)
    commented = set(comments(source))
    for statement in ast.parse(source).body:
        assert isinstance(statement, ast.AnnAssign), ast.unparse(statement)
        assert statement.value is not None
        ast.literal_eval(statement.value)
        assert statement.lineno == statement.end_lineno, "papermill's help needs a single line"
        assert statement.lineno in commented, ast.unparse(statement)


# What a parameter counts or measures, as its comment says it; some of them have no unit.
UNITS = re.compile(
    r"stages?\b|layers|convolutions|blocks|neurons|channels|tokens|networks?\b|images?\b|batches|"
    r"photographs|pixels|levels|"
    r"points|variances?\b|σ_w²|square root|number|rate\b|accuracy|outputs|seconds|fraction"
)


def ranges(limits: Mapping[str, Any]) -> list[str]:
    """The phrases of which a comment must hold one, for a setting with these limits."""
    low, above, high = (limits.get(name) for name in ("low", "above", "high"))
    high = None if high == LARGEST_SEED else high  # what fits into 64 bits
    if low is None and above is None:
        return ["any number"]
    begin = f"{low:g}" if above is None else f"above {above:g}"
    end = "or more" if high is None else f"to {high:,.10g}"
    if above is not None:
        return [begin] if high is None else [f"{begin} {end}"]
    special = [f"{low + 1:g} {end}", "above 0"] if low in (0, -1) else []  # 0 and -1 are told apart
    relative = [f"{begin} to "] if high is None else []  # to another parameter
    return [f"{begin} {end}", *relative, *special]


@pytest.mark.parametrize("name", NAMES)
def test_papermills_help_gives_the_unit_and_the_range_of_every_parameter(name: str) -> None:
    fields = instruments.settings()[read(name).metadata["paperlib"]["config"]].__dataclass_fields__
    for key, parameter in notebooks.parameters(name).items():
        said, limits, default = parameter.help, fields[key].metadata, parameter.default
        values = default if isinstance(default, list) else [default]
        if "choices" in limits:
            every = f"names.{choices_name(limits['choices'])}"
            assert every in said or all(str(choice) in said for choice in limits["choices"]), key
        elif isinstance(values[0], bool):
            assert said.startswith("True: "), key
        elif isinstance(values[0], str):
            assert len(said.split()) >= 3, f"{name}: {key} must say what texts it takes: {said!r}"
        else:
            wanted = ranges(limits)
            assert UNITS.search(said), f"{name}: {key} has no unit: {said!r}"
            assert any(
                phrase in said or phrase.replace("above", ">") in said for phrase in wanted
            ), f"{name}: the comment of {key} must say one of {wanted}, got {said!r}"


def choices_name(choices: tuple[str, ...]) -> str:
    """What instruments.prediction.names calls the choices, for lists too long for a comment."""
    return next((name for name, value in vars(names).items() if value is choices), "none")


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"low": 1, "high": 10_000}, "1 to 10,000"),
        ({"low": 2}, "2 or more"),
        ({"low": 0}, "1 or more"),  # 0 may stand for something of its own
        ({"low": 0.0, "high": 4.0}, "0 to 4"),
        ({"above": 0.0}, "above 0"),
        ({"above": 0.0, "high": 1e6}, "above 0 to 1,000,000"),
        ({}, "any number"),
    ],
)
def test_a_range_is_said_in_these_words(limits: dict[str, Any], said: str) -> None:
    assert said in ranges(limits)


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_are_those_of_the_notebooks_configuration(name: str) -> None:
    kind = instruments.settings()[read(name).metadata["paperlib"]["config"]]
    defaults = {key: p.default for key, p in notebooks.parameters(name).items()}
    assert set(defaults) == set(kind.names())
    assert kind.from_dict(defaults) == kind()


@pytest.mark.parametrize("name", NAMES)
def test_papermills_help_lists_every_parameter_with_its_default_and_comment(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        papermill.cli.papermill(["--help-notebook", str(ROOT / "notebooks" / f"{name}.ipynb")])
    assert not ended.value.code
    said = capsys.readouterr().out
    words = " ".join(said.split())
    assert all(" ".join(p.help.split()) in words for p in notebooks.parameters(name).values())
    for statement in ast.parse(parameters_cell(name)).body:
        assert isinstance(statement, ast.AnnAssign)
        assert statement.value is not None
        key, kind = ast.unparse(statement.target), ast.unparse(statement.annotation)
        assert f"  {key}: {kind} (default " in said
        line = said.split(f"  {key}: {kind} (default ")[1].split(")")[0]
        assert ast.literal_eval(line) == ast.literal_eval(statement.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_committed_with_pictures_and_without_errors(name: str) -> None:
    outputs = [output for cell in read(name).cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_and_names_itself(name: str, profile: str) -> None:
    assert notebooks.validated(name, profile, {})["profile"] == profile
    # a published figure must show the data that it says
    assert profile not in notebooks.CANONICAL or not notebooks.validated(name, profile, {}).get(
        "fallback"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_quick_profile_is_the_notebooks_defaults_with_a_fallback(name: str) -> None:
    kind = instruments.settings()[read(name).metadata["paperlib"]["config"]]
    wanted = {"fallback": True} if "fallback" in kind.names() else {}
    assert notebooks.validated(name, "quick", {}) == kind(**wanted).as_dict()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's in a checkout, with a data set that is damaged."""
    folder = copy_of_checkout(tmp_path_factory.mktemp("checkout")) / "another folder"
    folder.mkdir()
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 this was an archive once")
    return folder


@pytest.fixture(scope="module")
def started(elsewhere: Path) -> Iterator[KernelManager]:
    """A kernel in that folder."""
    manager = KernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    manager.start_kernel(
        cwd=str(elsewhere), env=os.environ | {"PAPERLIB_HOME": str(elsewhere.parent)}
    )
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.fixture
def one_kernel(started: KernelManager) -> KernelManager:
    """The same, without the names of the notebook before; it costs seconds to start one."""
    client = started.blocking_client()
    client.start_channels()
    client.wait_for_ready()
    assert client.execute("%reset -f", reply=True)["content"]["status"] == "ok"
    client.stop_channels()
    return started


SMOKE: dict[str, Any] = {"dataset": "digits", "depth": 2, "width": 8, "steps": 1, "seeds": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depht": 3}, "unknown parameter 'depht' = 3 .did you mean 'depth'"),
        ({"depth": "thirty"}, "depth must be a whole number, got 'thirty'"),
        ({"depth": 0}, "depth must be >= 1, got 0"),
        ({"sigma_b2": -0.05}, "sigma_b2 must be >= 0"),
        ({"dataset": "mnits"}, "unknown data set 'mnits'.*did you mean 'mnist'"),
        ({"dataset": "damaged.npz"}, r"damaged\.npz"),
    ],
)
def test_papermill_stops_at_a_wrong_parameter_with_one_clear_message(
    wrong: dict[str, Any], message: str, elsewhere: Path, one_kernel: KernelManager
) -> None:
    source = str(elsewhere.parent / "notebooks" / f"{MNIST}.ipynb")
    parameters, output = {**SMOKE, **wrong}, elsewhere / "out.ipynb"
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute_in(one_kernel, source, output, parameters, progress_bar=False)
    assert caught.value.ename in ("ValueError", "FileNotFoundError")
    assert re.search(message, caught.value.evalue), caught.value.evalue
    assert not (elsewhere.parent / "data/points").exists(), "nothing was computed"
    assert output.is_file()


@pytest.mark.slow
def test_papermills_command_works_from_another_folder(checkout: Path) -> None:
    other = checkout / "another folder"
    other.mkdir()
    source = checkout / "notebooks" / f"{FIRST}.ipynb"
    profile = checkout / "notebooks/profiles/smoke" / f"{FIRST}.yaml"
    command = [sys.executable, "-m", "papermill", str(source), "out.ipynb", "-f", str(profile)]
    more = ["-p", "depth", "3", "-p", "dataset", "patches", "-p", "train_images", "1e2"]
    done = subprocess.run(
        [*command, *more, "--no-progress-bar"], cwd=other, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (checkout / "figures/custom" / f"{FIRST}.png").is_file()
    written = json.loads((other / "out.ipynb").read_text())
    assert written["metadata"]["papermill"]["exception"] is None


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_assigns_to_a_parameter(name: str) -> None:
    """A config cell that runs again would take it for one."""
    own = set(notebooks.parameters(name))
    for cell in read(name).cells:
        if cell.cell_type == "code" and not cell.metadata.get("tags"):
            assert assigned(cell.source) & own == set(), cell.source


def assigned(code: str) -> set[str]:
    """The names that code gives values to, outside of functions and classes."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(code)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        if isinstance(node, ast.alias):
            found.add(node.asname or node.name)
        if not isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            waiting += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize(
    "code",
    ["depth = 3", "for depth in x:\n    y()", "a, depth = b", "import x as depth",
     "def depth(): ...", "if x:\n    with y as depth: ..."],
)  # fmt: skip
def test_an_assignment_to_a_parameter_would_be_found(code: str) -> None:
    assert "depth" in assigned(code)
    assert "depth" not in assigned("def f():\n    depth = 3\n[x for depth in y]\nconfig.depth")
