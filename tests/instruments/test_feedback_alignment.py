"""Feedback alignment: networks side by side against alone, what is compared, and the wall."""

import copy
import math

import numpy as np
import pytest
import torch
import xarray as xr

from paperlib.cascade import Cascade
from paperlib.datasets import Dataset
from paperlib.instruments import feedback_alignment
from paperlib.instruments.feedback_alignment import (
    LOST,
    WAYS,
    Settings,
    Stack,
    chosen,
    findings,
    foretell,
    frontier,
    kept,
    predicted,
    rate_of,
    scores,
    speed,
    takeaway,
    threshold,
)
from paperlib.measures import r_squared
from paperlib.sweep.store import load_result
from paperlib.training import backpropagation, feedback_matrices, train
from paperlib.training import feedback_alignment as ruled

SMALL = Settings(
    dataset="digits", variances=(0.3, 1.76), depths=(2, 4), networks=2, width=30, steps=12,
    batch_size=16, factors=(0.5, 1.0), watched=(0.3,), watched_depth=3, looks=3, cnn_steps=3,
    cnn_images=80, fitted=80, train_images=300, test_images=120,
)  # fmt: skip


def changed(**values: object) -> Settings:
    return Settings.from_dict({**SMALL.as_dict(), **values})


@pytest.fixture(scope="module")
def task(digits: Dataset):
    return feedback_alignment._task(SMALL, digits)


@pytest.fixture(scope="module")
def result(digits: Dataset) -> xr.Dataset:
    return feedback_alignment.measure(SMALL, digits)


def drawn(task, depth: int = 3) -> list:
    return [
        feedback_alignment._drawn(SMALL, task, depth, sigma_w2, seed)
        for sigma_w2 in (0.6, 1.76)
        for seed in (0, 1)
    ]


# --- networks side by side


def test_a_stack_is_its_networks_and_copies_them_back(task) -> None:
    networks = drawn(task)
    stack, images = Stack(networks, "tanh"), task.test[0][:9]
    found = stack(images.expand(4, *images.shape))[-1]
    with torch.no_grad():
        for network, logits in zip(networks, found, strict=True):
            torch.testing.assert_close(logits, network(images))
    others = drawn(task)
    for network in others:
        for parameter in network.parameters():
            parameter.data.zero_()
    stack.copy_into(others)
    for one, other in zip(networks, others, strict=True):
        assert all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize("kind", ["", "random", "product_sign"])
@pytest.mark.parametrize("optimiser", ["SGD", "RMSprop"])
def test_networks_side_by_side_learn_as_each_does_alone(task, kind: str, optimiser: str) -> None:
    seeds, rate = (0, 1), 0.05 if optimiser == "SGD" else 1e-4
    networks = drawn(task)
    stack = Stack(networks, "tanh")
    matrices = feedback_alignment._feedback(networks, task, kind, [*seeds] * 2) if kind else None
    feedback_alignment._learn(SMALL, task, stack, seeds, optimiser=optimiser, rate=rate,
                              matrices=matrices)  # fmt: skip
    together = drawn(task)
    stack.copy_into(together)
    for number, network in enumerate(networks):
        own = [matrix[number] for matrix in matrices or ()]
        rule = ruled(network, own) if kind else backpropagation
        update = feedback_alignment._optimiser(network, optimiser, rate)
        train(network, task.learnt, optimiser=update, steps=SMALL.steps, rule=rule,
              batch_size=SMALL.batch_size, seed=seeds[number % 2])  # fmt: skip
        for one, other in zip(network.parameters(), together[number].parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)
        assert not torch.equal(
            network.stages[0].linear.weight, drawn(task)[number].stages[0].linear.weight
        )


def test_a_network_that_diverges_has_accuracy_zero_and_spoils_no_other(task) -> None:
    networks = drawn(task)
    for parameter in networks[1].parameters():
        parameter.data.fill_(math.nan)
    stack = Stack(networks, "tanh")
    feedback_alignment._learn(SMALL, task, stack, (0, 1), optimiser="SGD", rate=0.1, matrices=None)
    found = feedback_alignment._accuracies(stack, task.test)
    assert found[1] == 0
    assert (found[[0, 2, 3]] > 0).all()


# --- what is compared


@pytest.mark.slow
def test_r_squared_is_that_of_the_networks_that_are_trained(result, task) -> None:
    """A shallower network of the same seed is the beginning of a deeper one."""
    for depth in SMALL.depths:
        network = feedback_alignment._drawn(SMALL, task, depth, 1.76, 1)
        fitted, test = task.learnt[0][:80], task.test[0][:80]
        back = Cascade.for_network(network, fitted[:1]).fit(fitted).reconstruct(test)
        wanted = float(r_squared(test, back, mean=fitted.mean(0))[-1])
        found = kept(result).sel(depth=depth, sigma_w2=1.76, network=1)
        assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_learnt_validated_and_tested_images_are_apart(task) -> None:
    images = [part[0].flatten(1).numpy() for part in (task.learnt, task.validation)]
    assert len(images[0]) == 240
    assert len(images[1]) == 60
    assert not {row.tobytes() for row in images[0]} & {row.tobytes() for row in images[1]}


@pytest.mark.slow
def test_the_rate_is_chosen_on_validation_images_in_the_mean_of_networks(result) -> None:
    made = result.copy(deep=True)
    made["validation"][:] = 0.2
    made["accuracy"].loc[{"factor": 0.5}] = 0.3
    made["accuracy"].loc[{"factor": 1.0}] = 0.9
    place = {"optimiser": "SGD", "rule": "DFA", "depth": 4, "sigma_w2": 1.76}
    made["validation"].loc[{**place, "factor": 1.0}] = [0.0, 0.5]
    found = chosen(made)
    assert (found.sel(place) == 0.9).all()
    assert int((found == 0.9).sum()) == 2, "one cell, both networks; elsewhere the first of equals"


@pytest.mark.slow
def test_only_the_rate_of_sgd_with_backpropagation_falls_with_depth(result) -> None:
    assert rate_of(SMALL, "SGD", "BP", 6) == pytest.approx(0.05)
    for optimiser, rule in (("SGD", "DFA"), ("RMSprop", "BP"), ("RMSprop", "binary DFA")):
        assert rate_of(SMALL, optimiser, rule, 2) == rate_of(SMALL, optimiser, rule, 40)
    rates = result["rate"].sel(optimiser="SGD", rule="BP")
    np.testing.assert_allclose(rates, [[0.075, 0.0375], [0.15, 0.075]])


@pytest.mark.slow
def test_the_forecast_is_perfect_where_r_squared_ranks_what_trains(result) -> None:
    made = result.copy(deep=True)
    made["r_squared"][:] = np.linspace(1, 0, 4)  # falls with the level
    made["accuracy"][:] = 0.1
    made["accuracy"].loc[{"depth": 2, "optimiser": "SGD"}] = 0.9
    made["accuracy"].loc[{"depth": 4, "optimiser": "RMSprop", "rule": "DFA"}] = 0.9
    found = predicted(made)
    assert (found.sel(optimiser="SGD") == 1).all()
    assert found.sel(optimiser="RMSprop", rule="DFA") == 0
    assert math.isnan(found.sel(optimiser="RMSprop", rule="BP"))
    assert threshold(made) == pytest.approx(0.5)


@pytest.mark.slow
def test_the_frontier_is_the_last_level_that_r_squared_reaches(result) -> None:
    made = result.copy(deep=True)
    made["watched_r_squared"][:] = 0.0
    made["watched_r_squared"].loc[{"way": "random"}][..., :2] = LOST
    assert (frontier(made).sel(way="random") == 2).all()
    assert (frontier(made).sel(way="BP") == 0).all()
    made["watched_r_squared"][:] = 0.0
    made["watched_r_squared"].loc[{"way": "random", "step": 12}] = 1.0  # three levels at the end
    assert speed(made).sel(way="random").values == pytest.approx(3 / (0.2 * 12))
    assert (speed(made).sel(way="binary") == 0).all()


@pytest.mark.slow
def test_before_the_first_step_all_rules_are_the_same_network(result) -> None:
    first = result["watched_r_squared"].isel(step=0)
    assert (first == first.sel(way="BP")).all()
    assert result["angle"].sel(way="BP").isnull().all()
    angles = result["angle"].sel(way=list(WAYS[1:]))
    assert ((angles >= 0) & (angles <= 180)).all()
    assert angles.sel(way="product").isel(step=0).mean() < 45


@pytest.mark.slow
def test_scores_are_given_by_variance_and_depth(result) -> None:
    found = scores(result)
    assert set(found) == {"R² untrained", "accuracy by DFA"}
    for values in found.values():
        assert values.dims == ("sigma_w2", "depth")
        assert values.shape == (2, 2)


# --- across the wall


def test_it_foretells_nothing_of_a_network_that_cannot_be_cut(task) -> None:
    images, labels = (part[:20] for part in task.test)
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    (network,) = drawn(task)[:1]
    for whole in (flat, Whole(network)):
        assert math.isnan(foretell(whole, images, labels, seed=0)["accuracy by DFA"])
    assert foretell(network, images, labels, seed=0)["accuracy by DFA"] >= 0


class Whole(torch.nn.Module):
    """A network of which nobody knows the order of its layers."""

    def __init__(self, inside: torch.nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inside(images)


def test_it_foretells_what_training_by_feedback_makes_of_a_copy(task) -> None:
    (network,) = drawn(task, depth=2)[2:3]
    images, labels = (part[:100] for part in task.learnt)
    found = foretell(network, images, labels, seed=5)["accuracy by DFA"]
    matrices = feedback_matrices(network, images[:1], seed=5)
    optimiser = torch.optim.RMSprop(network.parameters(), lr=1e-3)
    train(network, (images, labels), steps=30, batch_size=32, seed=5, optimiser=optimiser,
          rule=ruled(network, matrices))  # fmt: skip
    right = (network(images).argmax(1) == labels).double().mean()
    assert found == pytest.approx(float(right), abs=0.011)
    assert found > 0.5


@pytest.mark.slow
def test_feedback_trains_where_the_image_is_lost_and_backpropagation_does_not_start(
    digits: Dataset,
) -> None:
    settings = changed(width=60, steps=250, train_images=1400, batch_size=32)
    task, seeds = feedback_alignment._task(settings, digits), (0, 1)
    networks = [feedback_alignment._drawn(settings, task, 12, 0.3, seed) for seed in seeds]
    assert max(feedback_alignment._r_squared(settings, task, networks[0])[-5:]) < LOST
    accuracy = {}
    for kind in ("", "random", "binary"):
        matrices = feedback_alignment._feedback(networks, task, kind, seeds) if kind else None
        stack = Stack(networks, "tanh")
        feedback_alignment._learn(settings, task, stack, seeds, optimiser="SGD",
                                  rate=0.1 if kind else 0.3 / 12, matrices=matrices)  # fmt: skip
        accuracy[kind] = feedback_alignment._accuracies(stack, task.test)
        stack.copy_into(again := copy.deepcopy(networks))
        arrived = feedback_alignment._r_squared(settings, task, again[0])[-1]
        assert (arrived > LOST) == bool(kind)
    assert accuracy[""].max() < 0.2
    assert accuracy["random"].min() > 0.6
    assert accuracy["binary"].min() > 0.6


@pytest.mark.slow
def test_what_has_lost_its_image_is_counted(result) -> None:
    made = result.copy(deep=True)
    made["r_squared"][:] = 0.5
    assert "No network of this run has lost its image" in takeaway(made)
    made["r_squared"].loc[{"level": 4, "sigma_w2": 0.3}] = 0.0
    made["accuracy"][:] = 0.1
    made["accuracy"].loc[{"optimiser": "SGD", "rule": "DFA"}] = 0.9
    said = takeaway(made)
    assert "In 1 of 4 cells" in said
    assert "SGD: 0 by BP, 1 by DFA, 0 by binary DFA" in said


# --- saying


@pytest.mark.slow
def test_findings_say_what_this_run_did(result) -> None:
    made = result.copy(deep=True)
    made["accuracy"][:] = 0.9
    made["accuracy"].loc[{"rule": "DFA", "depth": 4, "sigma_w2": 1.76}] = 0.8
    said = findings(made)
    assert "2.5 points below it in the mean" in said
    assert "more than 6 below in 1 of them: 10.0 at depth 4, σ_w² 1.76." in said
    assert "SGD 0.3/depth with backpropagation, 0.2 with feedback; RMSprop 0.0003" in said
    assert "times 0.5, 1," in said
    assert "0.900 ± 0.000" in said
    made["accuracy"].loc[{"rule": "DFA"}] = 0.95
    assert "5.0 points above it in the mean, and more than 6 below in none of them." in findings(
        made
    )
    made["accuracy"].loc[{"rule": "BP"}] = 0.1
    assert "trains nowhere" in findings(made)
    none = made.drop_vars("cnn_accuracy")
    assert "no convolutional network" in findings(none)


def test_images_too_small_or_of_one_class_are_refused(digits: Dataset) -> None:
    from dataclasses import replace

    small = replace(digits, train_images=digits.train_images[..., :12, :12],
                    test_images=digits.test_images[..., :12, :12])  # fmt: skip
    with pytest.raises(ValueError, match="at least 16×16"):
        feedback_alignment._cnn(feedback_alignment._task(SMALL, small), 0)
    one = replace(digits, train_labels=torch.zeros_like(digits.train_labels))
    with pytest.raises(ValueError, match="are all of one"):
        feedback_alignment.measure(SMALL, one)


# --- the shipped result


@pytest.fixture(scope="module")
def shipped() -> xr.Dataset:
    return load_result("feedback_alignment.nc")


@pytest.mark.parametrize(("depth", "sigma_w2"), [(20, 0.6), (40, 1.0)])
def test_in_the_shipped_result_feedback_trains_where_backpropagation_by_sgd_does_not_start(
    shipped: xr.Dataset, depth: int, sigma_w2: float
) -> None:
    here = {"depth": depth, "sigma_w2": sigma_w2}
    assert shipped.sizes["network"] >= 3
    assert float(kept(shipped).sel(here).max()) < LOST
    accuracy = chosen(shipped).sel(here).mean("network").sel(optimiser="SGD")
    assert accuracy.sel(rule="BP") <= 0.15
    assert accuracy.sel(rule="DFA") >= 0.75
    assert accuracy.sel(rule="binary DFA") >= 0.75


def test_in_the_shipped_result_the_way_is_opened_from_below_by_feedback_alone(
    shipped: xr.Dataset,
) -> None:
    reached = frontier(shipped).mean("network")
    begin, end = reached.isel(step=0), reached.isel(step=-1)
    assert (end.sel(way="BP") <= begin.sel(way="BP") + 3).all()
    for way in ("random", "binary"):
        assert (end.sel(way=way) >= begin.sel(way=way) + 10).all()
        assert (reached.sel(way=way).diff("step") > -3).all()
    angles = shipped["angle"].sel(way="random").mean(["network", "layer"])
    assert (angles.isel(step=-1) < 90).all()
    assert (angles.isel(step=-1) < angles.isel(step=0)).all()
