from pathlib import Path

import pytest

from paperlib import paths

CHECKOUT = Path(__file__).parent.parent


def test_home_is_this_checkout_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(paths.HOME_VARIABLE, raising=False)
    assert paths.home() == CHECKOUT
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path))
    assert paths.home() == tmp_path


def test_a_home_without_notebooks_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="clone the repository"):
        paths.home()


def test_a_relative_data_folder_is_the_projects_not_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(paths.HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(paths.DATA_VARIABLE, "../elsewhere")
    assert paths.data_root() == CHECKOUT.parent / "elsewhere"
    monkeypatch.setenv(paths.DATA_VARIABLE, str(tmp_path))
    assert paths.data_root() == tmp_path
    monkeypatch.delenv(paths.DATA_VARIABLE)
    assert paths.data_root() == CHECKOUT / "data"
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
        assert path.is_relative_to(CHECKOUT)
    assert paths.figures_folder("quick") == CHECKOUT / "figures" / "quick"
