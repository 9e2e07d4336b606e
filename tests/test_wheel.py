"""The package from its wheel, far from the checkout: what a user of `pip install` has."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from checkout import ROOT

from paperlib.core import paths

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for modules into which the wheel of this checkout is unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def paperlib(*words: str, site: Path, here: Path) -> str:
    """What a command prints that is started in `here`, with `here` as the user's home."""
    left_out = (paths.HOME_VARIABLE, paths.DATA_VARIABLE, "XDG_DATA_HOME")
    environment = {k: v for k, v in os.environ.items() if k not in left_out}
    environment |= {"PYTHONPATH": str(site), "HOME": str(here / "user")}
    command = [sys.executable, "-m", "paperlib", *words]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_brings_notebooks_profiles_and_results_and_no_more(site: Path) -> None:
    held = {
        str(f.relative_to(site / "paperlib/shipped"))
        for f in (site / "paperlib/shipped").rglob("*")
        if f.is_file()
    }
    wanted = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/profiles/*/*.yaml")]
    wanted += [ROOT / "notebooks/costs.yaml", *ROOT.glob("data/reference/*")]
    assert held == {str(path.relative_to(ROOT)) for path in wanted}


def test_list_works_without_a_checkout_and_writes_nothing(site: Path, tmp_path: Path) -> None:
    said = paperlib("list", site=site, here=tmp_path)
    assert len(said.splitlines()) == 1 + len(list(ROOT.glob("notebooks/*.ipynb")))
    assert "How it works" in said
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_runs_without_a_checkout_and_says_where_its_figure_is(
    site: Path, tmp_path: Path
) -> None:
    said = paperlib("run", "00", "--profile", "smoke", site=site, here=tmp_path)
    figure = Path(said.splitlines()[-1].split(": ", 1)[1].rpartition(", ")[0])
    assert figure.is_relative_to(tmp_path / "user")
    assert figure.read_bytes().startswith(b"\x89PNG")
    there = paperlib(
        "run", "00", "--profile", "smoke", "--output", "mine", site=site, here=tmp_path
    )
    assert "mine/00_how_it_works.png" in there
    assert (tmp_path / "mine/00_how_it_works.png").is_file()
    assert not any((site / "paperlib/shipped").rglob("figures"))


def test_a_result_that_ships_is_found_without_a_checkout(site: Path, tmp_path: Path) -> None:
    code = "import paperlib; print(paperlib.load_result('mnist_mlp.nc').sizes['depth'])"
    environment = {**os.environ, "PYTHONPATH": str(site), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "200", done.stderr


def test_a_model_is_probed_without_a_checkout(site: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 3))\n"
    )
    options = ("--dataset", "digits", "--size", "8", "--images", "200", "--output", "report")
    said = paperlib("probe", "mine:build", *options, site=site, here=tmp_path)
    assert "inputs of 1×8×8" in said
    assert (tmp_path / "report/probe.html").is_file()
