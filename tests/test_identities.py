"""What must not move while code does: identities, public names, options, parameters.

`tests/frozen/` holds them as they were; `python tests/freeze.py` writes it anew.
"""

import importlib
from types import SimpleNamespace
from typing import Any

import freeze
import pytest
from freeze import AGAIN, FROZEN, LOST, SETTINGS, frozen

from paperlib.core.provenance import provenance
from paperlib.instruments.reconstruction.points import CascadePoint
from paperlib.sweep import plan
from paperlib.sweep.plan import make_plan

COMMANDS = (
    "list",
    "params",
    "run",
    "status",
    "show",
    "data",
    "train",
    "probe",
    "explorer",
    "clean",
)
# of files that came later nothing is known here: their authors freeze them
NOTEBOOKS = frozen("parameters.json")
# the others hold several sweeps, and none starts from them
# the others are several sweeps along a setting, see `sweep.run_along`
ONE_SWEEP_EACH = [
    name for name in frozen("reference.json") if not name.endswith(("_resolution.nc", "_steps.nc"))
]


def test_all_settings_have_their_identity_frozen() -> None:
    assert frozen("settings.json").keys() == SETTINGS.keys(), AGAIN


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_keep_their_identity(name: str) -> None:
    assert freeze.settings()[name] == frozen("settings.json")[name], LOST


def test_no_two_settings_share_an_identity() -> None:
    assert len(set(frozen("settings.json").values())) == len(SETTINGS)


@pytest.mark.parametrize("change", [{"seed": 1}, {"sigma_w2": 1.8}, {"depth": 59}])
def test_another_setting_would_be_seen(change: dict[str, Any]) -> None:
    made = freeze.identity_of(CascadePoint(**change))
    assert made not in frozen("settings.json").values()


def test_a_sweep_and_its_points_keep_the_names_of_their_files() -> None:
    assert freeze.files() == frozen("files.json"), LOST


@pytest.fixture(scope="module")
def sweeps() -> dict[str, Any]:
    return freeze.sweeps()


@pytest.mark.slow
def test_every_shipped_sweep_is_frozen(sweeps: dict[str, Any]) -> None:
    assert frozen("reference.json").keys() == sweeps.keys(), AGAIN


@pytest.mark.slow
@pytest.mark.parametrize("name", frozen("reference.json"))
def test_the_points_behind_a_shipped_result_keep_their_identities(
    name: str, sweeps: dict[str, Any]
) -> None:
    made = freeze.points_of(sweeps[name], freeze.finished_points(sweeps[name]))
    assert made == frozen("reference.json")[name], LOST


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_SWEEP_EACH)
def test_a_sweep_finds_those_points_in_the_shipped_result(
    name: str, sweeps: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    about = provenance(sweeps[name])
    # where points are missing the data are loaded, for their checksum; not every machine has them
    data = SimpleNamespace(name=about["data"]["name"], checksum=about["data"]["checksum"])
    monkeypatch.setattr(plan, "load_data", lambda _: data)
    kind = freeze.kind_of(about)
    assert kind is not None
    taken = make_plan(kind.from_dict(about["config"]), name).taken
    assert freeze.points_of(sweeps[name], taken) == frozen("reference.json")[name], LOST


def test_the_public_names_are_those_that_were_promised() -> None:
    assert freeze.names() == frozen("names.json"), AGAIN


@pytest.mark.parametrize("module", frozen("modules.json"))
def test_a_module_that_users_import_keeps_its_names(module: str) -> None:
    """Wherever they are defined; `tests/freeze.py` does not write this list, which only grows."""
    there = importlib.import_module(module)  # which may import a name when it is asked for
    assert [name for name in frozen("modules.json")[module] if not hasattr(there, name)] == []


def test_every_command_has_its_help_frozen() -> None:
    texts = freeze.help_texts()
    assert tuple(texts) == ("paperlib", *COMMANDS)
    assert {path.stem for path in FROZEN.glob("help/*.txt")} == texts.keys(), AGAIN


@pytest.mark.parametrize("command", ["paperlib", *COMMANDS])
def test_a_command_keeps_its_options_and_what_is_said_of_them(command: str) -> None:
    before = (FROZEN / "help" / f"{command}.txt").read_text(encoding="utf-8")
    assert freeze.help_texts()[command] == before, AGAIN


@pytest.mark.parametrize("columns", ["20", "80", "300"])
def test_the_help_does_not_depend_on_the_terminal(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = freeze.help_texts()
    monkeypatch.setenv("COLUMNS", columns)
    assert freeze.help_texts() == before


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_keeps_its_parameters_and_their_defaults(name: str) -> None:
    made = freeze.parameters()[name]
    assert made == NOTEBOOKS[name], AGAIN
    assert list(made) == list(NOTEBOOKS[name]), f"in another order; {AGAIN}"
    kinds = {key: type(value) for key, value in made.items()}
    assert kinds == {key: type(value) for key, value in NOTEBOOKS[name].items()}, AGAIN
