import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

from paperlib.core import paths


def test_home_is_this_checkout_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(paths.HOME_VARIABLE, raising=False)
    assert paths.home() == ROOT
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path))
    assert paths.home() == tmp_path


@pytest.mark.parametrize("folder", ["", "core", "core/deeper"])
def test_the_package_and_its_checkout_are_found_from_any_folder_of_the_package(
    folder: str, tmp_path: Path
) -> None:
    (tmp_path / "notebooks").mkdir()
    place = tmp_path / "paperlib"
    for part in ("", *folder.split("/")):
        place /= part
        place.mkdir(exist_ok=True)
        (place / "__init__.py").touch()
    shutil.copy(str(paths.__file__), place / "paths.py")
    module = ".".join(["paperlib", *filter(None, folder.split("/")), "paths"])
    code = f"from {module} import *; print(package_folder(), home(), style_file())"
    environment = {key: text for key, text in os.environ.items() if not key.startswith("PAPERLIB")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    package = tmp_path / "paperlib"
    assert done.stdout.split() == [*map(str, (package, tmp_path, package / "plots/paper.mplstyle"))]


def test_every_file_of_the_package_is_named_and_code_comes_first() -> None:
    files = paths.package_files()
    assert paths.style_file() == files[-1]
    assert len(files) == len(set(files)) > 10
    assert {paths.package_folder() / "__init__.py", Path(paths.__file__)} <= set(files)
    assert all(path.is_file() for path in files)


def test_a_home_without_notebooks_takes_what_is_computed_from_those_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a checkout may be read-only."""
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path / "mine"))
    assert paths.home() == tmp_path / "mine"
    assert paths.points_folder().is_relative_to(tmp_path)
    assert paths.figures_folder("quick").is_relative_to(tmp_path)
    assert paths.notebook_file("a").parent == ROOT / "notebooks"
    assert paths.reference_file("a.nc").parent == ROOT / "data/reference"
    assert paths.checkout() == ROOT


def test_a_package_without_notebooks_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "package_folder", lambda: tmp_path / "site" / "paperlib")
    for home in ("", str(tmp_path)):
        monkeypatch.setenv(paths.HOME_VARIABLE, home)
        with pytest.raises(FileNotFoundError, match="clone the repository"):
            paths.home()


def test_a_relative_data_folder_is_the_projects_not_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(paths.HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(paths.DATA_VARIABLE, "../elsewhere")
    assert paths.data_root() == ROOT.parent / "elsewhere"
    monkeypatch.setenv(paths.DATA_VARIABLE, str(tmp_path))
    assert paths.data_root() == tmp_path
    monkeypatch.delenv(paths.DATA_VARIABLE)
    assert paths.data_root() == ROOT / "data"
    assert paths.data_root("mine") == tmp_path / "mine"  # an argument is the caller's


def test_every_folder_is_inside_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(paths.HOME_VARIABLE, raising=False)
    for path in (
        paths.notebook_file("a"),
        paths.profile_file("quick", "a"),
        paths.points_folder(),
        paths.results_folder(),
        paths.reference_file("a.nc"),
        paths.figures_folder(),
    ):
        assert path.is_relative_to(ROOT)
    assert paths.figures_folder("quick") == ROOT / "figures" / "quick"
