"""What every instrument that is a single module promises."""

import json
import math
import random
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
import xarray as xr
from checkout import ROOT
from matplotlib.figure import Figure

from paperlib import instruments, notebooks
from paperlib.core import paths
from paperlib.core.threads import one_thread
from paperlib.datasets import load_dataset
from paperlib.networks import initialise, mlp
from paperlib.networks.zoo import zoo_network
from paperlib.sweep.store import load_result, save_result

ALL = instruments.modules()
MEASURES = {name: module.measure for name, module in ALL.items()}


def notebook_of(name: str) -> Any:
    (path,) = (ROOT / "notebooks").glob(f"[1-9][0-9]_{name}.ipynb")
    return nbformat.read(path, as_version=4)


def smoke(name: str) -> Any:
    """The settings of the notebook's smoke profile."""
    values = notebook_of(name).metadata["paperlib"]["profiles"]["smoke"]
    return ALL[name].Settings(profile="smoke", **values)


@cache
def measured(name: str) -> xr.Dataset:
    """What it measures with these settings, once for all tests; not to be changed."""
    settings = smoke(name)
    with one_thread():  # as `instruments.run`: sums in another order end in other digits
        return MEASURES[name](settings, load_dataset(settings.dataset))


@pytest.fixture(params=sorted(ALL))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def instrument(name: str) -> ModuleType:
    return ALL[name]


@pytest.fixture
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A project folder without results."""
    (tmp_path / paths.NOTEBOOKS).mkdir()
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path))
    return tmp_path


def test_settings_are_frozen_and_equal_after_json(instrument: ModuleType) -> None:
    settings = instrument.Settings()
    again = type(settings).from_dict(json.loads(json.dumps(settings.as_dict())))
    assert again == settings
    with pytest.raises(AttributeError):
        settings.profile = "paper"
    with pytest.raises(ValueError, match="unknown parameter 'misspelt'"):
        instrument.Settings.from_dict({"misspelt": 1})


def test_the_profile_changes_no_number(instrument: ModuleType) -> None:
    assert "profile" not in instrument.Settings().identifying()


def test_the_cell_of_its_notebook_holds_the_settings(name: str, instrument: ModuleType) -> None:
    found = next(full for full in (n.name for n in notebooks.find()) if full.endswith(name))
    cell = {key: parameter.default for key, parameter in notebooks.parameters(found).items()}
    assert instrument.Settings.from_dict(cell) == instrument.Settings()
    assert set(cell) == set(instrument.Settings.names())
    profiles = notebook_of(name).metadata["paperlib"]["profiles"]
    assert set(profiles) == {"smoke", "reference", "paper"}
    for values in profiles.values():
        instrument.Settings.from_dict(values)


def measured_again(name: str, settings: Any, data: Any) -> xr.Dataset:
    """The measurement once more, with a look at all that it must leave as it was."""
    tensors = [t.clone() for t in (data.train_images, data.test_images, data.train_labels)]
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with one_thread():
        again = MEASURES[name](settings, data)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    for before, after in zip(tensors, (data.train_images, data.test_images, data.train_labels),
                             strict=True):  # fmt: skip
        assert torch.equal(before, after)
    return again


@pytest.mark.slow
def test_its_figure_needs_the_dataset_alone(
    name: str, instrument: ModuleType, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(name)
    monkeypatch.setattr(instrument, "measure", lambda *given: found.copy(deep=True))
    result = instruments.run(smoke(name))
    assert all(isinstance(variable.dims, tuple) and variable.attrs.get("units") is not None
               for variable in result.data_vars.values())  # fmt: skip
    save_result(result, own_home / "kept.nc")
    again = load_result(own_home / "kept.nc")
    xr.testing.assert_identical(result, again)
    figure = instrument.figure(again)
    assert isinstance(figure, Figure)
    assert figure.axes


@pytest.mark.slow
def test_a_finished_measurement_is_taken_and_a_damaged_one_measured_again_with_no_other_effect(
    name: str, instrument: ModuleType, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    settings, found = smoke(name), measured(name)
    again: list[xr.Dataset] = []
    with monkeypatch.context() as patch:
        patch.setattr(instrument, "measure", lambda *given: found.copy(deep=True))
        result = instruments.run(settings)

    def measure(*given: Any) -> xr.Dataset:
        again.append(measured_again(name, *given))
        return again[-1].copy(deep=True)

    monkeypatch.setattr(instrument, "measure", measure)
    xr.testing.assert_identical(instruments.run(settings), result)
    assert not again
    (file,) = paths.results_folder().glob(f"{name}_*.nc")
    file.write_bytes(file.read_bytes()[:-9])
    xr.testing.assert_equal(instruments.run(settings), result)
    assert len(again) == 1
    assert "measured again" in capsys.readouterr().out
    xr.testing.assert_identical(measured(name), again[0])


def test_what_is_no_instruments_settings_is_refused() -> None:
    with pytest.raises(ValueError, match="settings must be the Settings of an instrument"):
        instruments.run({"dataset": "digits"})


FORETELLERS = instruments.foretellers()
IMAGES = load_dataset("digits", limit=200)


def foretold(name: str, network: torch.nn.Module) -> dict[str, float]:
    images, labels = IMAGES.floats("train")[:150], IMAGES.labels("train")[:150]
    return FORETELLERS[name].foretell(network, images, labels, seed=0)


def tanh_network(depth: int, sigma_w2: float) -> torch.nn.Module:
    network = mlp(IMAGES.image_shape, depth=depth, width=50)
    initialise(network, sigma_w2=sigma_w2, sigma_b2=0.05, seed=0)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FORETELLERS))
def test_what_it_foretells_is_better_of_a_network_that_trains(name: str) -> None:
    good, bad = (foretold(name, tanh_network(*one)) for one in ((4, 1.7), (60, 0.3)))
    assert tuple(good) == tuple(bad) == FORETELLERS[name].FORETELLS
    assert all(good[key] > bad[key] for key in good), (good, bad)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FORETELLERS))
def test_what_it_foretells_is_a_number_for_every_family_and_changes_no_network(name: str) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    for number in (1, 4, 5):  # a CNN, a transformer, a recurrent network
        network = zoo_network(number, IMAGES.image_shape, 10)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        found = foretold(name, network)
        assert all(math.isfinite(value) for value in found.values()), (number, found)
        assert found == foretold(name, network)
        for key, value in network.state_dict().items():
            assert torch.equal(value, before[key]), key
        assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", sorted(FORETELLERS))
def test_of_a_network_that_overflows_nothing_is_foretold(name: str) -> None:
    with torch.no_grad():
        network = tanh_network(2, 1.7)
        broken = torch.nn.Sequential(network.stages, Overflowing(), network.head)
    assert all(math.isnan(value) for value in foretold(name, broken).values())


class Overflowing(torch.nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * float("inf")
