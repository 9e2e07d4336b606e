"""Cyclical rates: quadratic losses, torch's schedules, lines whose ends and ridges are known."""

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import binomtest
from torch import Tensor, nn

from paperlib.core import paths
from paperlib.datasets import load_dataset
from paperlib.instruments import cyclical_rates
from paperlib.instruments.cyclical_rates import Settings, foretell, rate_range
from paperlib.networks import initialise, mlp
from paperlib.sweep.store import load_result
from paperlib.training import train, train_point
from paperlib.training.between import barrier, between, distance, matched, sharpness
from paperlib.training.cycles import learn_in_cycles
from paperlib.training.schedules import FINDERS, SCHEDULES, schedule, suggestions
from paperlib.training.schedules import cyclical_rates as closed
from paperlib.training.side_by_side import SideBySide, state_of

NOTHING = torch.zeros(8, 1), torch.zeros(8, dtype=torch.int64)


class Valley(nn.Module):
    """A loss ½ Σ h θ² as outputs, one for each image; the images do not count."""

    def __init__(self, *curvatures: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(len(curvatures), dtype=torch.float64))
        self.curvatures = curvatures

    def forward(self, images: Tensor) -> Tensor:
        loss = (torch.tensor(self.curvatures) * self.weight.square()).sum() / 2
        return loss.expand(len(images))


def mean(outputs: Tensor, labels: Tensor) -> Tensor:
    return outputs.mean()


def chain(*widths: int, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Flatten()]
        for size, out in itertools.pairwise(widths):
            layers += [nn.Linear(size, out), nn.ReLU()]
        return nn.Sequential(*layers[:-1])


def digits(count: int = 200) -> tuple[Tensor, Tensor]:
    data = load_dataset("digits", limit=count)
    return data.floats("train"), data.labels("train")


def learnt(network: nn.Module, lessons: tuple[Tensor, Tensor], *, seed: int = 0) -> nn.Module:
    optimiser = torch.optim.SGD(network.parameters(), lr=0.2)
    train(network, lessons, optimiser=optimiser, steps=150, seed=seed)
    return network


# --- the range test


@pytest.mark.parametrize("curvature", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_edge_of_a_quadratic_loss_is_where_gradient_descent_stops_converging(
    curvature: float, momentum: float
) -> None:
    edge = 2 * (1 + momentum) / curvature
    grid = edge * 1.05 ** np.arange(-8, 8) * 1.01
    found = rate_range(
        Valley(curvature), *NOTHING, rates=grid.tolist(), steps=300, orders=1, loss=mean, ramp=0,
        optimiser=lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=momentum),
    )  # fmt: skip
    assert edge / 1.05 <= float(found["edge"][0]) <= edge * 1.05


@pytest.mark.slow
def test_the_steepest_direction_of_several_sets_the_edge() -> None:
    grid = np.geomspace(0.01, 10, 60)
    found = rate_range(Valley(0.1, 1.0, 8.0), *NOTHING, rates=grid.tolist(), steps=400, orders=1,
                       loss=mean, ramp=0)  # fmt: skip
    assert float(found["edge"][0]) == grid[grid < 2 / 8].max()


def test_every_rate_learns_as_if_it_were_alone() -> None:
    lessons, model = digits(), chain(784, 20, 10)
    rates = (0.01, 0.1, 0.5)
    for kind, alone in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)):
        found = rate_range(model, *lessons, rates=rates, steps=12, orders=2, ramp=0,
                           optimiser=kind, seed=3)  # fmt: skip
        for order in range(2):
            for row, rate in enumerate(rates):
                own = copy.deepcopy(model)
                losses = train(own, lessons, optimiser=alone(own.parameters(), lr=rate), steps=12,
                               seed=3 + order)  # fmt: skip
                np.testing.assert_allclose(found["curve"][order, row], losses, rtol=2e-4)


@pytest.mark.slow
def test_the_suggestion_reaches_nine_tenths_of_the_best_descent_and_no_larger_rate_does() -> None:
    found = rate_range(chain(784, 30, 10), *digits(), orders=2, steps=40)
    for order in range(2):
        one = found.isel(order=order)
        start, best = float(one["start"]), float(one["loss"].min())
        good = one["rate"].values[(start - one["loss"].values) >= 0.9 * (start - best)]
        assert float(one["suggestion"].sel(finder="several trainings")) == good.max()


def test_a_rate_range_leaves_the_model_its_mode_and_the_generators_as_they_were() -> None:
    model = nn.Sequential(chain(784, 20), nn.BatchNorm1d(20), nn.Dropout(0.2), nn.Linear(20, 10))
    model.eval()
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = rate_range(model, *digits(), rates=(0.01, 0.1), steps=5, orders=1)
    again = rate_range(model, *digits(), rates=(0.01, 0.1), steps=5, orders=1)
    xr.testing.assert_identical(found, again)
    assert not model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


class Stubborn(nn.Module):
    """A network that no vmap takes: what it does depends on a number that it looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = chain(784, 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.inner(images)
        return found if float(found.detach().sum()) > -1e9 else -found


def test_a_model_that_cannot_run_as_one_program_runs_one_after_the_other() -> None:
    stubborn = Stubborn()
    together = rate_range(stubborn.inner, *digits(), rates=(0.01, 0.1), steps=8)
    apart = rate_range(stubborn, *digits(), rates=(0.01, 0.1), steps=8)
    xr.testing.assert_allclose(together, apart, rtol=1e-3)


def test_batch_norm_and_frozen_and_tied_parameters_learn_as_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 12), nn.BatchNorm1d(12), nn.Linear(12, 12),
                          nn.ReLU(), nn.Linear(12, 12), nn.Linear(12, 10))  # fmt: skip
    model[5].weight = model[3].weight
    model[1].weight.requires_grad_(False)
    lessons, own = digits(), copy.deepcopy(model)
    side = SideBySide(model, [state_of(model)] * 2)
    train(side, lessons, optimiser=torch.optim.SGD(side.groups([0.1, 0.01]), lr=1), steps=6,
          rule=side.rule())  # fmt: skip
    learning = [p for p in own.parameters() if p.requires_grad]
    train(own, lessons, optimiser=torch.optim.SGD(learning, lr=0.1), steps=6)
    assert torch.equal(side.state(0)["1.weight"], model[1].weight)
    for name, value in state_of(own).items():
        torch.testing.assert_close(side.state(0)[name], value, rtol=1e-4, atol=1e-5)


def test_a_model_that_diverges_at_every_rate_has_no_edge_and_no_suggestion() -> None:
    found = rate_range(Valley(1.0), *NOTHING, rates=(10.0, 100.0), steps=400, loss=mean, ramp=0)
    assert bool(found["edge"].isnull().all())
    assert bool(found["suggestion"].isnull().all())
    assert bool(np.isinf(found["loss"]).any())


@pytest.mark.parametrize(("wrong", "said"), [
    ({"rates": (0.1, 0.01)}, "rates must be at least two and rise"),
    ({"rates": (0.0, 0.1)}, "rates must be > 0"),
    ({"steps": 0}, "steps must be >= 1"),
    ({"ramp": 5}, "ramp must be 0 or at least 18"),
    ({"optimiser": "sgdm"}, "optimiser must be one of"),
])  # fmt: skip
def test_what_cannot_be_tested_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rate_range(chain(784, 10), *digits(20), **wrong)


# --- schedules and finders


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_in_closed_form_is_torchs_at_every_step(kind: str) -> None:
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    optimiser = torch.optim.SGD([{"params": [p]} for p in parameters], lr=1.0, momentum=0.9)
    steps, lows, highs = 240, [0.02, 0.001], [0.5, 3.0]
    steered = schedule(kind, optimiser, steps, low=lows, high=highs, half_cycle=37)
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimiser.param_groups])
        assert all(group["momentum"] == 0.9 for group in optimiser.param_groups)
        optimiser.step()
        steered.step()
    for column, (low, high) in enumerate(zip(lows, highs, strict=True)):
        wanted = closed(kind, steps, low=low, high=high, half_cycle=37)
        np.testing.assert_allclose(np.array(seen)[:, column], wanted, rtol=0, atol=1e-12)


def test_cycles_begin_and_end_low_and_have_their_top_in_the_middle() -> None:
    rates = closed("triangular", 201, low=0.1, high=0.7, half_cycle=50)
    assert rates[[0, 100, 200]] == pytest.approx(0.1)
    assert rates[[50, 150]] == pytest.approx(0.7)
    halved = closed("triangular2", 201, low=0.1, high=0.7, half_cycle=50)
    assert halved[150] == pytest.approx(0.4)
    once = closed("one_cycle", 1000, low=0.1, high=0.7, half_cycle=50)
    assert once[-1] < 1e-4 * once[0] * 1.001
    assert once.max() == pytest.approx(0.7, rel=1e-2)


def test_the_rules_find_the_steepest_place_of_a_clean_curve_and_some_of_them_miss_it_in_noise() -> (
    None
):
    found = cyclical_rates._finders(Settings(draws=60))["made_up"].median("draw")
    clean = found.sel(noise=0.0)
    assert float(clean.sel(rule="raw log-gradient")) == pytest.approx(1e-2, rel=0.1)
    assert float(clean.sel(rule="Lightning")) == pytest.approx(7e-3, rel=0.2)
    assert float(clean.sel(rule="Lightning before 2.5.3")) == pytest.approx(4e-2, rel=0.2)
    assert float(clean.sel(rule="torch-lr-finder")) == pytest.approx(3e-2, rel=0.2)
    for noise in (0.02, 0.1):
        assert float(found.sel(noise=noise, rule="Lightning")) < 2e-7
        assert float(found.sel(noise=noise, rule="Lightning before 2.5.3")) > 2e-2


def test_a_rule_reads_nothing_beyond_the_step_that_diverges() -> None:
    rates = np.geomspace(1e-5, 10, 60)
    losses = 2 - 1.5 / (1 + np.exp(-np.log(rates / 1e-3)))
    whole = suggestions(rates, losses)["raw log-gradient"]
    losses[50:] = np.nan
    assert suggestions(rates, losses)["raw log-gradient"] == whole
    losses[:] = np.nan
    assert all(np.isnan(suggestions(rates, losses)[name]) for name in FINDERS)
    with pytest.raises(ValueError, match="at least 18"):
        suggestions(rates[:10], losses[:10])


# --- lines between weights


def test_the_ends_of_a_line_have_exactly_the_ends_losses() -> None:
    lessons = digits()
    ends = [learnt(chain(784, 12, 10, seed=seed), lessons, seed=seed) for seed in range(2)]
    states = [state_of(end) for end in ends]
    losses, accuracies = between(ends[0], *states, [0.0, 1.0], *lessons)
    for place, state in enumerate(states):
        alone = between(ends[0], state, state, [0.0, 1.0], *lessons)
        assert losses[place] == alone[0][0] == alone[0][1]
        assert accuracies[place] == alone[1][0]
        with torch.no_grad():
            plain = nn.functional.cross_entropy(ends[place](lessons[0]).double(), lessons[1])
        assert losses[place] == pytest.approx(float(plain), rel=1e-6)


def test_a_permuted_copy_has_a_barrier_and_none_after_matching() -> None:
    lessons = digits()
    network = learnt(chain(784, 24, 16, 10), lessons)
    first = state_of(network)
    second, alphas = dict(first), np.linspace(0, 1, 11)
    generator = torch.Generator().manual_seed(1)
    for here, after, width in (("1", "3", 24), ("3", "5", 16)):
        order = torch.randperm(width, generator=generator)
        for name in (f"{here}.weight", f"{here}.bias"):
            second[name] = second[name][order]
        second[f"{after}.weight"] = second[f"{after}.weight"][:, order]
    losses, _ = between(network, first, second, alphas.tolist(), *lessons)
    assert losses[0] == pytest.approx(losses[-1], rel=1e-5)
    assert barrier(alphas, losses) > 0.2
    back = matched(network, first, second)
    assert all(torch.equal(back[name], first[name]) for name in first)
    losses, _ = between(network, first, back, alphas.tolist(), *lessons)
    assert barrier(alphas, losses) == pytest.approx(0, abs=1e-6)


def test_matching_changes_no_output_and_brings_other_weights_nearer() -> None:
    lessons = digits()
    one, other = (learnt(chain(784, 20, 20, 10, seed=seed), lessons) for seed in (0, 1))
    first, second = state_of(one), state_of(other)
    ordered = matched(one, first, second)
    assert distance(one, first, ordered) < distance(one, first, second)
    with torch.no_grad():
        before = other(lessons[0])
        other.load_state_dict(ordered)
        torch.testing.assert_close(other(lessons[0]), before, rtol=1e-4, atol=1e-5)


def test_a_quadratic_loss_has_no_barrier_and_a_double_well_has_its_own_height() -> None:
    alphas = np.linspace(-0.5, 1.5, 21)
    assert barrier(alphas, 3 * (alphas - 0.3) ** 2) == pytest.approx(0, abs=1e-12)
    well = ((1 - 2 * alphas) ** 2 - 1) ** 2  # from θ = 1 to −1
    assert barrier(alphas, np.stack([well, well + alphas])) == pytest.approx(1)
    with pytest.raises(ValueError, match="alphas must hold 0 and 1"):
        barrier(alphas[alphas != 1], well[alphas != 1])


def normed(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.ReLU(),
                             nn.Linear(16, 10))  # fmt: skip


def test_recomputed_statistics_are_those_of_the_images_and_stored_ones_can_be_no_number() -> None:
    lessons = digits()
    one, other = (learnt(normed(seed), lessons).eval() for seed in (0, 1))
    other[2].running_var *= 9  # far apart, so that the line leaves the positive ones
    states = state_of(one), state_of(other)
    alphas = [-0.5, 0.0, 0.5, 1.0]
    stored, _ = between(one, *states, alphas, *lessons)
    again, accuracies = between(one, *states, alphas, *lessons, statistics=lessons[0])
    assert math.isnan(stored[0])
    assert np.isfinite(again).all()
    with torch.no_grad():
        one.train()  # by the statistics of the batch, here of all images
        wanted = nn.functional.cross_entropy(one(lessons[0]), lessons[1])
    assert again[1] == pytest.approx(float(wanted), rel=2e-2)
    assert accuracies[1] > 0.8


def test_scaling_weights_before_batch_norm_changes_no_loss() -> None:
    lessons = digits()
    network = learnt(normed(), lessons).eval()
    first = state_of(network)
    second = {n: value * 3 if n.startswith("1.") else value for n, value in first.items()}
    losses, _ = between(network, first, second, [0.0, 0.5, 1.0], *lessons, statistics=lessons[0])
    assert losses == pytest.approx(losses[0], rel=1e-3)
    assert distance(network, first, second) > 0.5


def test_sharpness_is_the_hessians_largest_eigenvalue() -> None:
    images, labels = torch.rand(60, 6, generator=torch.Generator().manual_seed(0)), digits(60)[1]
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 10)).double()
    names = [name for name, _ in network.named_parameters()]
    sizes = [parameter.numel() for parameter in network.parameters()]

    def loss(flat: Tensor) -> Tensor:
        parts = zip(names, flat.split(sizes), network.parameters(), strict=True)
        weights = {name: part.view_as(parameter) for name, part, parameter in parts}
        logits = torch.func.functional_call(network, weights, (images.double(),))
        return nn.functional.cross_entropy(logits, labels)

    flat = nn.utils.parameters_to_vector(network.parameters()).detach()
    wanted = torch.linalg.eigvalsh(torch.func.hessian(loss)(flat))
    before = copy.deepcopy(network.state_dict())
    found = sharpness(network, images, labels, iterations=200)
    assert found == pytest.approx(float(wanted[-1]), rel=1e-3)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


# --- cycles and the map


def test_networks_in_cycles_learn_as_each_would_alone() -> None:
    lessons = digits()
    networks = [chain(784, 12, 10, seed=seed) for seed in range(2)]
    log = learn_in_cycles(
        networks[0], [state_of(n) for n in networks], lessons, lessons, lows=[0.01, 0.05],
        highs=[0.3, 0.05], orders=[4, 5], cycles=2, half=10, batch_size=32,
    )  # fmt: skip
    for column, (low, high) in enumerate([(0.01, 0.3), (0.05, 0.05)]):
        own = networks[column]
        optimiser = torch.optim.SGD(own.parameters(), lr=low)
        steered = schedule("triangular", optimiser, 40, low=[low], high=[high], half_cycle=10)
        losses = train(own, lessons, optimiser=optimiser, schedule=steered, steps=40, batch_size=32,
                       seed=4 + column)  # fmt: skip
        np.testing.assert_allclose(log.losses[1:, column], losses, rtol=1e-3)
        assert log.rates[10, column] == pytest.approx(high)
        for name, value in state_of(own).items():
            torch.testing.assert_close(log.ends[2][column][name], value, rtol=1e-3, atol=1e-4)
        with torch.no_grad():
            right = (own(lessons[0]).argmax(1) == lessons[1]).double().mean()
        assert log.accuracies[-1, column] == pytest.approx(float(right), abs=0.011)


SMALL = Settings(
    dataset="digits", depth=2, width=12, highs=(0.5,), half_cycle=4, cycles=2, alphas=5, judged=40,
    rates=3, range_steps=5, ramp_steps=18, draws=3, variances=(0.1, 2.0), depths=(1, 4),
    map_width=20,
    map_steps=20, fitted=60, sgd_rates=(3.0, 0.1), adam_rates=(0.01,), train_images=200,
    test_images=100,
)  # fmt: skip


def test_the_map_holds_the_largest_rate_of_the_trainings_of_a_grid() -> None:
    data = load_dataset("digits")
    found = cyclical_rates._map(SMALL, data)
    for sigma_w2 in SMALL.variances:
        for depth in SMALL.depths:
            reached = {}
            for rate in SMALL.sgd_rates:
                point = cyclical_rates._point(SMALL, data, "sgd", sigma_w2, depth, 0)
                point = replace(point, learning_rate=rate)
                reached[rate] = float(train_point(point, data=data)["accuracy"])
            good = [rate for rate, accuracy in reached.items() if accuracy >= 0.4]
            one = found.sel(sigma_w2=sigma_w2, map_depth=depth, optimiser="sgd", map_network=0)
            assert float(one["largest_rate"]) == pytest.approx(max(good, default=math.nan),
                                                               nan_ok=True)  # fmt: skip
    assert 0 < int(found["largest_rate"].notnull().sum()) < found["largest_rate"].size


def test_a_share_has_its_interval() -> None:
    low, high = binomtest(3, 20).proportion_ci(method="wilson")
    wanted = f"3 (15%, 95% interval {low:.0%} to {high:.0%})"
    assert cyclical_rates._share(3, 20) == wanted == "3 (15%, 95% interval 5% to 36%)"


def test_a_shown_high_that_is_not_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="shown_high must be one of highs"):
        Settings(shown_high=0.7)


# --- will it train


@pytest.mark.slow
def test_a_range_test_foretells_that_a_network_learns_and_that_a_collapsed_one_does_not() -> None:
    lessons = digits(300)
    said = []
    for sigma_w2 in (1.8, 0.01):
        network = mlp((1, 28, 28), depth=12, width=40)
        initialise(network, sigma_w2=sigma_w2, sigma_b2=0.05, seed=0)
        before = copy.deepcopy(network.state_dict())
        said.append(foretell(network, *lessons, seed=0))
        assert all(torch.equal(before[n], v) for n, v in network.state_dict().items())
    assert set(said[0]) == {"range-test loss", "range-test accuracy"}
    assert all(said[0][name] > said[1][name] for name in said[0])


# --- the shipped result


@pytest.fixture(scope="module")
def shipped() -> xr.Dataset:
    if not paths.reference_file("cyclical_rates.nc").exists():
        pytest.skip("cyclical_rates.nc has not been computed yet")
    return load_result("cyclical_rates.nc")


def test_cycles_of_normed_networks_leave_a_ridge_and_a_constant_rate_leaves_none(
    shipped: xr.Dataset,
) -> None:
    assert shipped.sizes["network"] == 5
    height = shipped["normed_barrier"].sel(statistics="recomputed").mean("network")
    assert float(height.sel(normed_run="0.02 ↔ 1.5")) >= 0.2
    assert float(height.sel(normed_run="0.02 ↔ 0.5")) <= 0.02
    assert float(height.sel(normed_run="constant 0.05")) <= 0.02


def test_without_batch_norm_neither_cycles_below_the_edge_nor_a_constant_rate_leave_a_ridge(
    shipped: xr.Dataset,
) -> None:
    height = shipped["barrier"].mean("network")
    for run in ("0.02 ↔ 0.2", "0.02 ↔ 0.5", "constant 0.05"):
        assert float(height.sel(line=f"{run}, ends of cycles 1 and 2")) <= 0.02
    assert float(height.sel(line="other weights at the start")) >= 0.2


def test_the_map_loses_the_image_where_the_shipped_cascades_do(shipped: xr.Dataset) -> None:
    """Those are three times as wide; near the wall a few cells differ."""
    cascades = load_result("mnist_mlp_300.nc")["r_squared"].mean("seed")
    kept = shipped["kept"].mean("map_network")
    shared = np.intersect1d(kept["sigma_w2"], cascades["sigma_w2"])
    assert len(shared) >= 8
    wanted = cascades.sel(sigma_w2=shared, depth=kept["map_depth"].values).values < 0.02
    assert ((kept.sel(sigma_w2=shared).values < 0.02) == wanted).mean() >= 0.9
