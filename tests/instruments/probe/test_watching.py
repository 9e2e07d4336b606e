"""An observer of other people's loops: what it sees, what it leaves alone, its callbacks."""

import copy
import inspect
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from paperlib import watch
from paperlib.instruments.probe import callbacks
from paperlib.instruments.probe.vitals import vital_signs
from paperlib.instruments.probe.watching import read_directly
from paperlib.training import train


@pytest.fixture
def images() -> Tensor:
    return torch.rand(60, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(60) % 3


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )


def test_it_is_an_observer_of_the_one_loop(
    model: nn.Sequential, images: Tensor, labels: Tensor
) -> None:
    seen = watch(model, images, labels, every=5)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = train(model, (images, labels), optimiser=optimiser, steps=20, observers=[seen])
    result = seen.result
    assert result["step"].values.tolist() == [0, 5, 10, 15, 20]
    assert result["layer"].values.tolist() == ["1", "3", "4"]
    assert result["r_squared"].dims == ("step", "stage")
    assert float(result["loss"][-1]) < float(result["loss"][0])
    assert float(result["loss"][0]) == pytest.approx(losses[0], abs=0.02)


def test_it_sees_what_vital_signs_see(model: nn.Sequential, images: Tensor, labels: Tensor) -> None:
    seen = watch(model, images, labels)
    seen(0, model)
    expected = vital_signs(model, images, labels)
    for name in ("rms", "contrast", "dead", "constant", "copied", "rank", "gradient"):
        np.testing.assert_allclose(seen.result[name][0], expected[name], rtol=1e-4, err_msg=name)
    assert float(seen.result["loss"][0]) == pytest.approx(expected.attrs["loss"], rel=1e-5)


def test_an_invertible_layer_is_read_in_full_and_a_constant_one_not_at_all(images: Tensor) -> None:
    whole = read_directly(images @ torch.randn(8, 8), images, resolution=1e-9)
    assert whole == pytest.approx(1, abs=1e-4)
    assert read_directly(torch.ones(60, 8), images) == pytest.approx(0, abs=0.2)


def test_what_is_read_is_what_ridge_regression_reads(images: Tensor) -> None:
    codes = torch.randn(60, 5, generator=torch.Generator().manual_seed(1)) + images[:, :5]
    x, y = codes[:45].double(), images[:45].double()
    centre, mean = x.mean(0), y.mean(0)
    x, y = x - centre, y - mean
    penalty = 1e-3 * float(x.square().sum(0).mean())
    weights = torch.linalg.solve(x.T @ x + penalty * torch.eye(5), x.T @ y)
    left = (codes[45:] - centre) @ weights + mean - images[45:]
    expected = 1 - float(left.square().mean() / (images[45:] - mean).square().mean())
    assert read_directly(codes, images) == pytest.approx(expected, rel=1e-5)


def test_a_training_goes_the_same_way_whether_it_is_watched_or_not(
    model: nn.Sequential, images: Tensor, labels: Tensor
) -> None:
    model = nn.Sequential(*model[:2], nn.BatchNorm1d(16), nn.Dropout(0.3), *model[2:]).train()
    other = copy.deepcopy(model)
    losses = []
    for network in (model, other):
        torch.manual_seed(1)
        observers = [watch(network, images, labels, every=3)] if network is other else []
        optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
        data = (images, labels)
        losses.append(train(network, data, optimiser=optimiser, steps=10, observers=observers))
    assert losses[0] == losses[1]
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_steps_between_are_free_and_none_is_seen_twice(
    model: nn.Sequential, images: Tensor
) -> None:
    calls: list[int] = []

    def own(model: nn.Module, images: Any, labels: Any) -> dict[str, Any]:
        calls.append(1)
        return {"largest": 2.0, "by_stage": [1.0, 2.0, 3.0]}

    seen = watch(model, images, instruments=(own,), every=10)
    for step in (0, 1, 5, 10, 10, 11):
        seen(step, model)
    assert len(calls) == 2
    assert seen.result["largest"].values.tolist() == [2, 2]
    assert seen.result["by_stage"].sel(step=10).values.tolist() == [1, 2, 3]
    assert seen.seconds > 0


def test_a_run_that_dies_is_seen_to_the_end(images: Tensor, labels: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    seen = watch(model, images, labels, every=1)
    seen(0, model)
    nn.init.constant_(model[0].bias, -100)
    seen(1, model)
    nn.init.constant_(model[0].weight, torch.nan)
    seen(2, model)
    assert seen.result["dead"].sel(stage=1).values[:2].tolist() == pytest.approx([0, 1], abs=0.3)
    assert float(seen.result["dead"].sel(stage=1, step=1)) == 1
    assert np.isnan(seen.result["r_squared"].sel(step=2)).all()
    assert np.isnan(seen.result["rms"].sel(step=2)).all()


def test_what_was_seen_is_drawn_saved_and_read_again(
    model: nn.Sequential, images: Tensor, tmp_path: Any
) -> None:
    seen = watch(model, images, every=1)
    seen(0)
    seen(1)
    figure = seen.plot()
    titles = [axis.get_title(loc) for axis in figure.axes for loc in ("left", "center")]
    assert sum("R²" in title for title in titles) == 1
    plt.close(figure)
    with xr.open_dataset(seen.save(tmp_path / "seen.nc"), engine="h5netcdf") as again:
        xr.testing.assert_equal(again.load(), seen.result)


def test_nothing_seen_is_said() -> None:
    with pytest.raises(ValueError, match=r"call watch\(step, model\) in the training loop"):
        _ = watch(nn.Linear(8, 2), torch.rand(20, 8)).result


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"instruments": ("r_square",)}, "must be of r_squared, vital_signs, or functions"),
        ({"instruments": "r_squared"}, "must be a tuple of names"),
        ({"instruments": ()}, "must be a tuple of names"),
        ({"every": 0}, "every must be >= 1"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"labels": torch.zeros(3)}, "labels must be a tensor of"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], words: str, images: Tensor) -> None:
    with pytest.raises(ValueError, match=words):
        watch(nn.Linear(8, 2), images, **wrong)


# -- callbacks: stand-ins of the same interface, as neither library is installed


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, base: str) -> type:
    module, kind = ModuleType(name), type(base, (), {})
    setattr(module, base, kind)
    for parent in [name.partition(".")[0], name]:
        monkeypatch.setitem(sys.modules, parent, module)
    return kind


def test_lightning_calls_before_the_first_batch_and_after_each(
    model: nn.Sequential, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = stand_in(monkeypatch, "lightning.pytorch", "Callback")
    seen = watch(model, images, every=2)
    callback = seen.lightning()
    assert isinstance(callback, kind)
    trainer = SimpleNamespace(global_step=0, is_global_zero=True)
    callback.on_train_start(trainer, model)
    for step in (1, 1, 2, 3, 4):  # a step of two batches is seen once
        trainer.global_step = step
        callback.on_train_batch_end(trainer, model, None, None, 0)
    assert seen.result["step"].values.tolist() == [0, 2, 4]


def test_transformers_calls_before_the_first_step_and_after_each(
    model: nn.Sequential, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = stand_in(monkeypatch, "transformers", "TrainerCallback")
    seen = watch(model, images, every=2)
    callback = seen.transformers()
    assert isinstance(callback, kind)
    state = SimpleNamespace(global_step=0, is_world_process_zero=True)
    callback.on_train_begin(None, state, None, model=model)
    for step in (1, 2, 3, 4):
        state.global_step = step
        callback.on_step_end(None, state, None, model=model)
    assert seen.result["step"].values.tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("name", "base", "flag"),
    [
        ("lightning", "Callback", "is_global_zero"),
        ("transformers", "TrainerCallback", "is_world_process_zero"),
    ],
)
def test_one_process_of_several_looks(
    name: str,
    base: str,
    flag: str,
    model: nn.Sequential,
    images: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(monkeypatch, {"lightning": "lightning.pytorch"}.get(name, name), base)
    seen = watch(model, images)
    callback = getattr(seen, name)()
    callback._look(SimpleNamespace(global_step=0, **{flag: False}))
    with pytest.raises(ValueError, match="nothing was seen"):
        _ = seen.result


@pytest.mark.parametrize("name", ["lightning", "transformers"])
def test_a_missing_library_is_named(
    name: str, model: nn.Sequential, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("lightning", "lightning.pytorch", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"needs {name}: pip install {name}"):
        getattr(watch(model, images), name)()


@pytest.mark.parametrize("make", [callbacks.lightning_callback, callbacks.transformers_callback])
def test_a_callback_is_short(make: Any) -> None:
    assert len(inspect.getsource(make).splitlines()) <= 40


def test_the_package_imports_neither_library() -> None:
    assert not {"lightning", "pytorch_lightning", "transformers"} & sys.modules.keys()
