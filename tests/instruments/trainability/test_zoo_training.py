"""The zoo's trainings: networks whose answer is known, the labels, and the sweep."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from paperlib.core import paths
from paperlib.datasets import load_dataset
from paperlib.instruments.trainability import zoo
from paperlib.instruments.trainability.trainings import (
    DEFAULT,
    MOMENTS,
    TRAININGS,
    Training,
    labels,
    moments_of,
    trained,
)
from paperlib.instruments.trainability.zoo import ZooPoint, ZooSweep
from paperlib.networks.zoo import describe
from paperlib.sweep import collect_sweep, measure_point, run_sweep
from paperlib.sweep.store import load_result
from paperlib.training import batches

SMALL = ZooSweep(
    dataset="digits", numbers=(0, 2, 5), budget=6, train_images=100, test_images=50, batch_size=16
)
SECONDS = ["seconds", "judging_seconds"]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / paths.NOTEBOOKS).mkdir()
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path))
    monkeypatch.delenv(paths.DATA_VARIABLE, raising=False)
    return tmp_path


Examples = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def digits() -> tuple[Examples, Examples]:
    data = load_dataset("digits", limit=1000)
    return tuple(
        (data.floats(split)[:count], data.labels(split)[:count])
        for split, count in (("train", 1000), ("test", 300))
    )


def regression(gain: float = 0.01) -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with torch.no_grad():
        network[1].weight.normal_(0, gain, generator=torch.Generator().manual_seed(0))
        network[1].bias.zero_()
    return network


def dead() -> nn.Module:
    """All-zero weights and biases before a ReLU: no gradient ever comes through."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 10))
    nn.init.zeros_(network[1].weight)
    nn.init.constant_(network[1].bias, -1.0)
    return network


@pytest.mark.parametrize("training", TRAININGS, ids=lambda t: t.name)
def test_softmax_regression_learns_the_digits(
    training: Training, digits: tuple[Examples, Examples]
) -> None:
    lessons, test = digits
    found = trained(regression(), training, lessons, test, budget=200)
    assert found["accuracy"][-1] >= 0.8
    assert not found["diverged"]
    assert found["steps"] == 200
    assert found["loss"][-1] < found["loss"][0]


@pytest.mark.parametrize("training", TRAININGS, ids=lambda t: t.name)
def test_a_network_of_dead_neurons_stays_at_chance(
    training: Training, digits: tuple[Examples, Examples]
) -> None:
    lessons, test = digits
    found = trained(dead(), training, lessons, test, budget=40)
    assert (found["accuracy"] <= 0.2).all()
    assert found["loss"][-1] > 2


def test_the_numbers_are_those_of_a_plain_loop(digits: tuple[Examples, Examples]) -> None:
    lessons, test = digits
    found = trained(regression(), DEFAULT, lessons, test, budget=24, seed=3)
    network = regression()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses, accuracy = [], {}
    for step, chosen in zip(range(1, 25), batches(len(lessons[1]), 32, 3), strict=False):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(lessons[0][chosen]), lessons[1][chosen])
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        accuracy[step] = float((network(test[0]).argmax(1) == test[1]).float().mean())
    steps = moments_of(24)
    assert steps == [20, 24, 24, 6, 24]
    np.testing.assert_allclose(found["accuracy"], [accuracy[s] for s in steps], atol=0.01)
    expected = [np.mean(losses[max(0, s - 10) : s]) for s in steps]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(found["curve"][:24], losses, rtol=1e-4)
    assert np.isnan(found["curve"][24:]).all()


def test_a_training_that_diverges_ends_there_and_counts_as_failed(
    digits: tuple[Examples, Examples],
) -> None:
    lessons, test = digits
    found = trained(regression(), Training("sgd", 1e38), lessons, test, budget=400)
    assert found["diverged"]
    assert found["steps"] < 20
    assert (found["accuracy"] == 0).all()
    assert np.isinf(found["loss"]).all()


def test_accuracies_are_of_evaluation_mode_and_the_network_stays_in_training_mode(
    digits: tuple[Examples, Examples],
) -> None:
    modes: list[bool] = []

    class Noted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = regression()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            modes.append(self.training)
            return self.inner(x)

    lessons, test = digits
    trained(Noted(), DEFAULT, lessons, test, budget=8)
    # looked at after 2 steps, a quarter, and after 8
    assert modes == [True, True, False, *[True] * 6, False]


def test_a_training_ends_at_a_step_once_it_has_reached_what_it_is_to_reach_there(
    digits: tuple[Examples, Examples],
) -> None:
    lessons, test = digits
    options: dict[str, Any] = {"budget": 200, "seed": 1}
    whole, decided = (
        trained(regression(), DEFAULT, lessons, test, **options, ends=ends)
        for ends in (None, {20: 1.1, 50: 0.5})
    )
    assert (whole["steps"], decided["steps"]) == (200, 50)
    seen = np.array(moments_of(200)) <= 50
    for name in ("accuracy", "loss"):
        np.testing.assert_array_equal(decided[name][seen], whole[name][seen])
        assert np.isnan(decided[name][~seen]).all()
    assert not decided["diverged"]


def test_a_training_that_has_not_reached_it_goes_on(digits: tuple[Examples, Examples]) -> None:
    lessons, test = digits
    assert trained(dead(), DEFAULT, lessons, test, budget=40, ends={10: 0.5})["steps"] == 40


# --- points and sweeps


def test_the_defaults_are_four_pairs_and_adam_as_it_comes() -> None:
    assert DEFAULT in TRAININGS
    others = [t for t in TRAININGS if t != DEFAULT]
    kinds = [t.optimiser for t in others]
    assert kinds.count("sgd") >= 2
    assert kinds.count("adam") >= 2


@pytest.mark.slow
def test_a_point_gives_the_same_numbers_twice_and_names_all_its_fields() -> None:
    point = next(SMALL.points())
    first, again = measure_point(point), measure_point(point)
    assert set(first) == set(point.fields)
    for name in set(first) - set(SECONDS):
        np.testing.assert_array_equal(first[name], again[name], err_msg=name)
    assert first["accuracy"].shape == (len(TRAININGS), len(MOMENTS))
    assert (first["seconds"] > 0).all()


@pytest.mark.slow
def test_a_point_touches_no_global_generator() -> None:
    state = torch.random.get_rng_state()
    measure_point(next(SMALL.points()))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.slow
def test_a_sweep_is_resumed_and_starts_from_its_result(own_home: Path) -> None:
    part = run_sweep(replace(SMALL, numbers=(0, 2)), jobs=1, device="cpu")
    files = list((own_home / "data/points").glob("*.npz"))
    assert len(files) == 2
    whole = run_sweep(SMALL, jobs=1, device="cpu")
    xr.testing.assert_equal(whole.sel(number=[0, 2])["seconds"], part["seconds"])
    (saved,) = (f for f in (own_home / "data/results").glob("*.nc")
                if load_result(f).sizes["number"] == 3)  # fmt: skip
    for file in (own_home / "data/points").glob("*.npz"):
        file.unlink()
    xr.testing.assert_equal(run_sweep(SMALL, jobs=1, start_from=saved), whole)
    assert not list((own_home / "data/points").glob("*.npz"))


def test_a_result_says_what_its_networks_are(own_home: Path) -> None:
    run_sweep(replace(SMALL, numbers=(2,)), jobs=1, device="cpu")
    result = collect_sweep(SMALL)
    assert result["finished"].values.tolist() == [0, 1, 0]
    for number in SMALL.numbers:
        there, d = result.sel(number=number), describe(number)
        assert (str(there.family.values), int(there.depth), float(there.gain)) == (
            d.family, d.depth, d.gain,
        )  # fmt: skip
    assert result["training"].values.tolist()[0] == "adam 0.001"


def test_what_changes_numbers_changes_the_identity() -> None:
    def identity(**changes: object) -> str:
        return ZooPoint(**changes).identity(code_version=1, checksum="c")  # type: ignore[arg-type]

    assert identity() == identity(dataset="cifar10") != identity(number=1)
    assert len({identity(), identity(budget=401), identity(batch_size=3), identity(number=9)}) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "train_images", "steps"),
    [
        (120, 1000, [30] * 5),  # all learn at all, none fast
        (600, 1000, [100] * 5),  # all are fast after a hundred steps
    ],
)
def test_trainings_that_can_change_no_label_end_and_labels_stay(
    budget: int, train_images: int, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def network(number: int, *_: object) -> nn.Module:
        return dead() if number else regression()

    monkeypatch.setattr(zoo, "zoo_network", network)
    point = ZooPoint(dataset="digits", budget=budget, train_images=train_images, test_images=100)
    learnt, whole, lost = (
        measure_point(replace(point, **changes))
        for changes in ({}, {"until": "end"}, {"number": 1})
    )
    assert learnt["steps"].tolist() == steps
    assert whole["steps"].tolist() == lost["steps"].tolist() == [budget] * 5
    accuracies = np.stack([each["accuracy"] for each in (learnt, whole, lost)])
    found = labels(made(accuracies, budget=budget))
    assert found["learns_at_all"].values.tolist() == [True, True, False]
    for name in ("learns_fast", "default_learns_at_all", "default_learns_fast"):
        assert found[name].values[0] == found[name].values[1]


def test_others_go_on_until_the_network_learns_fast_and_the_default_for_its_own_labels() -> None:
    point = ZooPoint(budget=1200)

    def ends(training: Training, *seen: float) -> dict[int, float]:
        """After one training that was right about these shares at 100, 300 and 1,200 steps."""
        before = [{"accuracy": np.array([0.1, 0.1, *seen])}]
        return point.ends(training, before)

    assert ends(TRAININGS[1], 0.4, 0.6, 0.9) == {300: 0.0, 100: 0.8}  # it is slow
    assert ends(TRAININGS[1], 0.4, 0.8, np.nan) == {300: 0.0, 100: 0.0}
    assert (
        ends(TRAININGS[1], 0.4, 0.4, 0.45) == ends(DEFAULT, 0.9, 0.9, 0.9) == {300: 0.5, 100: 0.8}
    )


# --- labels


def made(accuracy: np.ndarray, budget: int = 400) -> xr.Dataset:
    """A result of these accuracies (number, training, moment)."""
    names = [training.name for training in TRAININGS]
    about = {"config": {"budget": budget}}
    return xr.Dataset(
        {
            "accuracy": (("number", "training", "moment"), accuracy),
            "finished": ("number", np.ones(len(accuracy), np.int8)),
        },
        {"number": np.arange(len(accuracy)), "training": names, "moment": list(MOMENTS)},
        attrs={"provenance": json.dumps(about)},
    )


def test_labels_are_of_the_best_training_and_of_the_default_one() -> None:
    accuracy = np.full((5, 5, 5), 0.1)
    accuracy[0, -1, MOMENTS.index("end")] = 0.5  # SGD only, at the end
    accuracy[1, 0, MOMENTS.index("end")] = 0.95  # the default, slowly
    accuracy[2, 2, MOMENTS.index("quarter")] = 0.8  # Adam, fast
    accuracy[3, 0, MOMENTS.index("100 steps")] = 0.9  # a hundred is a quarter of 400
    found = labels(made(accuracy))
    assert found["learns_at_all"].values.tolist() == [True, True, True, True, False]
    assert found["learns_fast"].values.tolist() == [False, False, True, True, False]
    assert found["default_learns_at_all"].values.tolist() == [False, True, False, True, False]
    assert found["default_learns_fast"].values.tolist() == [False, False, False, True, False]
    assert found["best_accuracy"].values.tolist() == [0.5, 0.95, 0.8, 0.9, 0.1]


def test_what_comes_after_a_quarter_of_the_budget_is_not_fast() -> None:
    accuracy = np.full((1, 5, 5), 0.1)
    accuracy[0, 0, MOMENTS.index("100 steps")] = 0.9
    assert not labels(made(accuracy, budget=200))["learns_fast"].any()
    assert labels(made(accuracy, budget=400))["learns_fast"].all()


def test_networks_that_are_not_finished_have_no_label() -> None:
    result = made(np.full((3, 5, 5), 0.9))
    result["finished"][1] = 0
    assert labels(result)["number"].values.tolist() == [0, 2]


def test_thresholds_can_be_lower() -> None:
    result = made(np.full((1, 5, 5), 0.3))
    assert not labels(result)["learns_at_all"].any()
    assert labels(result, at_all=0.25)["learns_at_all"].all()
