"""Instruments are found where they lie: none is named in a table."""

from pathlib import Path

import nbformat
import pytest
from checkout import ROOT

from paperlib import instruments
from paperlib.core.settings import Checked
from paperlib.networks.experiment import Experiment
from paperlib.notebooks.figures import experiment_of

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NEW = """
from dataclasses import dataclass
from paperlib.core.settings import option
from paperlib.training import TrainingPoint

@dataclass(frozen=True, kw_only=True)
class Settings(TrainingPoint):
    every_so_often: int = option(20, low=1)
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_settings_that_a_notebook_names_are_found(path: Path) -> None:
    named = nbformat.read(path, as_version=4).metadata["paperlib"]["config"]
    assert issubclass(instruments.settings()[named], Checked)


def test_a_new_instrument_is_one_new_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "newcomer.py").write_text(NEW)
    monkeypatch.setattr(instruments, "__path__", [*instruments.__path__, str(tmp_path)])
    kind = instruments.settings()["newcomer.Settings"]
    assert issubclass(kind, Experiment)
    made = kind.from_dict({"every_so_often": 3})
    found = experiment_of(made.as_dict())
    assert type(found) is kind
    assert found.zeros() == made.zeros()


@pytest.mark.parametrize("name", ["CascadePoint", "reconstruction.CascadePoint", "Parameters"])
def test_what_no_notebook_fills_in_is_not_among_them(name: str) -> None:
    assert name not in instruments.settings()
