"""What a figure is made from, and when it changes."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from paperlib.core import paths
from paperlib.datasets.libraries import TORCHVISION
from paperlib.notebooks import freshness


def identity(**values: Any) -> dict[str, Any]:
    return freshness.identity(new_notebook(cells=[new_code_cell("1 + 1")]), values)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PAPERLIB_DATA", str(tmp_path))
    return tmp_path


def test_the_identity_is_of_the_code_and_not_of_words_outputs_or_injected_values() -> None:
    plain = new_notebook(cells=[new_code_cell("1 + 1")])
    output = nbformat.v4.new_output("stream", text="2")
    injected = new_code_cell("depth = 3", metadata={"tags": [freshness.INJECTED]})
    ran = [new_markdown_cell("words"), injected, new_code_cell("1 + 1", outputs=[output])]
    same = freshness.identity(new_notebook(cells=ran), {})
    assert same == freshness.identity(plain, {})
    other = new_notebook(cells=[new_code_cell("1 + 2")])
    assert freshness.identity(other, {})["notebook"] != same["notebook"]


def test_a_data_set_that_appears_changes_the_identity(data: Path) -> None:
    absent = identity(dataset="mnist")
    assert absent["data"]["dataset"] == ["digits", "bundled"]  # what it falls back to
    (data / "mnist.npz").touch()
    assert identity(dataset="mnist")["data"] != absent["data"]


@pytest.mark.parametrize(
    "files",
    [
        ("mnist.npz",),
        [f"MNIST/raw/{file}" for file in TORCHVISION["mnist"].files],
        [f"mnist/{file}.gz" for file in TORCHVISION["mnist"].files],
    ],
)
def test_a_named_data_set_that_is_replaced_changes_the_identity(
    files: Sequence[str], data: Path
) -> None:
    for file in files:
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        (data / file).write_bytes(b"1")
    before = identity(dataset="mnist")
    assert before["data"]["dataset"][0] == "mnist"
    (data / files[0]).write_bytes(b"two")
    assert identity(dataset="mnist")["data"] != before["data"]


@pytest.mark.parametrize(
    ("key", "file", "value"),
    [
        ("pictures", "own.npz", "{data}/own.npz"),
        ("weights", "weights/own.safetensors", "{data}/weights/own.safetensors"),
        ("weights", "weights/own.safetensors", "own.safetensors"),
        ("photographs", "holiday/a.png", "{data}/holiday"),
        ("photographs", "holiday/a.png", "holiday"),
        ("image", "one.png", "{data}/one.png"),
        ("asked_images", "one.png", ("astronaut", "{data}/one.png")),
    ],
)
def test_every_file_that_a_parameter_names_is_watched(
    key: str, file: str, value: Any, data: Path
) -> None:
    names = [name.format(data=data) for name in ([value] if isinstance(value, str) else value)]
    given = names[0] if isinstance(value, str) else tuple(names)
    (data / file).parent.mkdir(exist_ok=True)
    (data / file).write_bytes(b"1")
    before = identity(**{key: given})
    assert before["data"][key]
    (data / file).write_bytes(b"two")
    assert identity(**{key: given})["data"] != before["data"]


def test_what_comes_with_the_libraries_has_no_files_to_watch(data: Path) -> None:
    names = {"weights": "random", "photographs": "bundled", "image": "astronaut"}
    assert not any(identity(**names)["data"].values())
    assert identity(image=3)["data"] == {}  # a number in another notebook


def test_the_same_data_set_in_another_folder_changes_the_identity(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("one", "two"):
        (data / folder).mkdir()
        (data / folder / "mnist.npz").touch()
    monkeypatch.setenv("PAPERLIB_DATA", str(data / "one"))
    one = identity(dataset="mnist")
    monkeypatch.setenv("PAPERLIB_DATA", str(data / "two"))
    assert identity(dataset="mnist")["data"] != one["data"]


def test_a_bundled_data_set_is_the_same_wherever_the_others_lie(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = identity(dataset="digits")
    monkeypatch.setenv("PAPERLIB_DATA", str(data / "elsewhere"))
    assert identity(dataset="digits") == before


@pytest.mark.parametrize("name", ["own.npz", "pictures"])
def test_a_changed_file_of_the_users_own_changes_the_identity(data: Path, name: str) -> None:
    path = data / name
    file = path
    if name == "pictures":
        path.mkdir()
        file = path / "one.png"
    file.write_bytes(b"1")
    before = identity(dataset=str(path))
    assert identity(dataset=str(path)) == before
    file.write_bytes(b"two")
    assert identity(dataset=str(path)) != before


def test_a_changed_result_that_a_figure_starts_from_changes_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    before = identity(start_from="some.nc")
    (tmp_path / "data/reference").mkdir(parents=True)
    (tmp_path / "data/reference/some.nc").write_bytes(b"a result")
    assert identity(start_from="some.nc") != before
    assert identity(start_from="some.nc") == identity(start_from="some.nc")


def test_lists_are_the_same_before_and_after_a_note_and_their_files_are_watched(
    tmp_path: Path,
) -> None:
    names = tuple(str(tmp_path / name) for name in ("a.nc", "b.nc"))
    made = identity(trained=names, depths=(5, 10))
    assert json.loads(json.dumps(made)) == made
    Path(names[1]).write_bytes(b"x")
    assert identity(trained=names, depths=(5, 10))["data"] != made["data"]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an executed notebook, its figure and the note of both."""
    monkeypatch.setenv("PAPERLIB_HOME", str(tmp_path))
    monkeypatch.setenv("PAPERLIB_DATA", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    for name in ("run.ipynb", "figure.png", "figure_more.png", "own.npz"):
        (tmp_path / name).write_bytes(name.encode())
    freshness.note(tmp_path / "run.ipynb", tmp_path / "figure", made(tmp_path))
    return tmp_path


def made(folder: Path, *, code: str = "1 + 1", **values: Any) -> dict[str, Any]:
    values = {"dataset": str(folder / "own.npz"), "depth": 3, **values}
    return freshness.identity(new_notebook(cells=[new_code_cell(code)]), values)


def state_of(folder: Path, now: dict[str, Any]) -> tuple[str, str]:
    return freshness.state(folder / "run.ipynb", folder / "figure", now)


def test_a_figure_is_fresh_while_nothing_changes(ran: Path) -> None:
    assert state_of(ran, made(ran)) == ("fresh", "nothing has changed")


def test_each_cause_alone_makes_a_figure_stale_and_is_named(
    ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert state_of(ran, made(ran, depth=4)) == ("stale", "its parameters changed")
    assert state_of(ran, made(ran, code="1 + 2")) == ("stale", "its code changed")
    changed = ran / "paperlib"
    shutil.copytree(paths.package_folder(), changed)
    (changed / "plan.py").write_text("CODE_VERSION = 2")
    with monkeypatch.context() as other:
        other.setattr(paths, "package_folder", lambda: changed)
        assert state_of(ran, made(ran)) == ("stale", "paperlib changed")
    (ran / "own.npz").write_bytes(b"other images")
    assert state_of(ran, made(ran)) == ("stale", "its data changed")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with folders in folders, in the place of paperlib."""
    folder = tmp_path / "nested"
    for name in ("__init__.py", "core/__init__.py", "core/deep/module.py", "plots/a.mplstyle"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    monkeypatch.setattr(paths, "package_folder", lambda: folder)
    return folder


@pytest.mark.parametrize("name", ["__init__.py", "core/deep/module.py", "plots/a.mplstyle"])
def test_a_changed_file_in_any_folder_of_the_package_makes_figures_stale(
    name: str, package: Path
) -> None:
    before = identity()["package"]
    assert identity()["package"] == before
    (package / name).write_text("other")
    assert identity()["package"] != before


@pytest.mark.parametrize("name", ["core/new.py", "deep/er/new.py", "core/limits.yaml"])
def test_a_file_that_joins_any_folder_of_the_package_makes_figures_stale(
    name: str, package: Path
) -> None:
    before = identity()["package"]
    (package / name).parent.mkdir(parents=True, exist_ok=True)
    (package / name).write_text("new")
    assert identity()["package"] != before


@pytest.mark.parametrize(
    "name", ["core/__pycache__/a.pyc", "core/.ipynb_checkpoints/a-checkpoint.py", ".a.py.swp"]
)
def test_what_python_jupyter_and_editors_leave_in_the_package_changes_nothing(
    name: str, package: Path
) -> None:
    before = identity()["package"]
    (package / name).parent.mkdir(parents=True, exist_ok=True)
    (package / name).write_text("new")
    assert identity()["package"] == before


def test_all_causes_are_named_together(ran: Path) -> None:
    (ran / "own.npz").write_bytes(b"other images")
    state = state_of(ran, made(ran, code="2", depth=4))
    assert state == ("stale", "its parameters changed, its code changed, its data changed")


def test_a_figure_that_is_no_longer_the_runs_own_is_stale_and_a_lost_one_missing(ran: Path) -> None:
    (ran / "figure_more.png").write_bytes(b"drawn by hand")
    assert state_of(ran, made(ran)) == ("stale", "figure_more.png is not the one that the run left")
    (ran / "figure.png").unlink()
    assert state_of(ran, made(ran)) == ("missing", "figure.png is gone")


@pytest.mark.parametrize("lost", ["run.ipynb", "run.json"])
def test_without_the_run_or_its_note_a_figure_is_missing(lost: str, ran: Path) -> None:
    (ran / lost).unlink()
    assert state_of(ran, made(ran)) == ("missing", "not run here yet")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"figures": 3}'])
def test_a_note_that_cannot_be_read_makes_a_figure_stale(text: str, ran: Path) -> None:
    (ran / "run.json").write_text(text)
    assert state_of(ran, made(ran)) == ("stale", "run.json beside it cannot be read")
