"""Spectrum alignment: kernels by hand, linear networks in closed form, one step, and the rates."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from paperlib.datasets import Dataset
from paperlib.datasets.photographs import read_photograph
from paperlib.instruments import ntk_spectrum
from paperlib.instruments.ntk_spectrum import (
    Settings,
    edge,
    findings,
    foretell,
    scores,
    takeaway,
    tangent_kernel,
)
from paperlib.kernels import mlp_kernels
from paperlib.measures.alignment import alignment, centred, energy, energy_above, spectrum
from paperlib.networks import initialise, mlp
from paperlib.sweep.store import load_result
from paperlib.training import squared_error, train

Pair = tuple[torch.Tensor, torch.Tensor]
SMALL = Settings(
    dataset="digits", side=8, photograph_depth=2, photograph_width=20, parity_images=60, depth=2,
    width=20, steps=12, times=(0, 3, 6), networks=1, variances=(0.6, 1.7), untrained_depth=4,
    untrained_images=60,
    train_images=400, test_images=60,
)  # fmt: skip


def changed(**values: object) -> Settings:
    return Settings.from_dict({**SMALL.as_dict(), **values})


@pytest.fixture(scope="module")
def result(digits: Dataset) -> xr.Dataset:
    return ntk_spectrum.measure(changed(networks=2), digits)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn(network: nn.Module, sigma_w2: float = 1.7, seed: int = 0) -> nn.Module:
    initialise(network, sigma_w2=sigma_w2, sigma_b2=0.05, seed=seed)
    return network


def descended(network: nn.Module, task: Pair, rate: float, steps: int) -> None:
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    train(network, (task for _ in range(steps)), optimiser=optimiser, rule=squared_error)


# --- kernels


def test_the_kernel_is_that_of_every_samples_gradient_by_autograd() -> None:
    inputs = normal(7, 5)
    network = drawn(nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 6), nn.LeakyReLU(),
                                  nn.Linear(6, 1)))  # fmt: skip
    found = tangent_kernel(network, inputs)
    exact = network.double()
    rows = []
    for one in inputs.double():
        slopes = torch.autograd.grad(exact(one[None]).sum(), list(exact.parameters()))
        rows.append(torch.cat([slope.flatten() for slope in slopes]))
    by_hand = torch.stack(rows).numpy()
    np.testing.assert_allclose(found, by_hand @ by_hand.T, rtol=1e-12)


def test_the_kernel_leaves_the_network_as_it_was() -> None:
    network = drawn(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)))
    before = [parameter.clone() for parameter in network.parameters()]
    tangent_kernel(network, normal(6, 5))
    for parameter, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.dtype == torch.float32
        assert parameter.grad is None


def test_the_kernel_of_one_linear_layer_is_that_of_its_inputs_for_ever() -> None:
    """The null result: nothing turns towards the target."""
    task = inputs, targets = normal(12, 4), normal(12, 1, seed=1)
    network = drawn(nn.Sequential(nn.Linear(4, 1)))
    expected = inputs.double().numpy()
    expected = expected @ expected.T + 1
    before = alignment(tangent_kernel(network, inputs), targets.double().numpy())
    descended(network, task, 0.1, 50)
    found = tangent_kernel(network, inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert alignment(found, targets.double().numpy()) == pytest.approx(before, rel=1e-12)


@pytest.mark.slow
def test_two_linear_layers_from_small_weights_align_as_the_closed_form_says() -> None:
    """Of white inputs and y = Xβ: G becomes |β| X (vvᵀ + 1) Xᵀ with v = β/|β|."""
    count, inside = 40, 5
    inputs = torch.linalg.qr(normal(count, inside))[0] * math.sqrt(count)
    slope = normal(inside, seed=1)
    task = inputs, targets = inputs, (inputs @ slope)[:, None]
    network = nn.Sequential(nn.Linear(inside, 8, bias=False), nn.Linear(8, 1, bias=False))
    drawn(network, 1e-6)
    target = targets[:, 0].double().numpy()
    before = spectrum(tangent_kernel(network, inputs))
    descended(network, task, 0.05, 1500)
    kernel = tangent_kernel(network, inputs)
    values, vectors = spectrum(kernel)
    assert energy(before[1], target, [1])[0] < 0.9
    assert energy(vectors, target, [1])[0] == pytest.approx(1, abs=1e-5)
    assert alignment(kernel, target) == pytest.approx(2 / math.sqrt(inside + 3), abs=1e-4)
    size = float(slope.norm()) * count
    expected = [2 * size, *[size] * (inside - 1), 0.0]
    np.testing.assert_allclose(values[: inside + 1], expected, atol=1e-3 * size)


def test_one_step_moves_outputs_as_the_kernel_says_to_first_order() -> None:
    task = inputs, targets = normal(10, 4).double(), normal(10, 1, seed=1).double()
    begin = drawn(nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 1))).double()
    state = {name: value.clone() for name, value in begin.state_dict().items()}
    kernel = tangent_kernel(begin, inputs)
    with torch.no_grad():
        before = begin(inputs).numpy()
    errors = []
    for rate in (0.01, 0.005, 0.0025):
        begin.load_state_dict(state)
        descended(begin, task, rate, 1)
        with torch.no_grad():
            moved = begin(inputs).numpy() - before
        linear = -rate / len(before) * kernel @ (before - targets.numpy())
        errors.append(np.linalg.norm(moved - linear))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)


# --- what is learnt


def test_the_photograph_is_its_grey_values_at_a_grid_of_the_unit_square() -> None:
    task = ntk_spectrum._photograph(changed(side=16))
    assert task.inputs.shape == (256, 2)
    assert task.inputs[0].tolist() == [-15 / 16, -15 / 16]
    assert task.inputs[1].tolist() == [-13 / 16, -15 / 16]  # to the right first
    picture = read_photograph("camera", side=64)[0][2::4, 2::4].flatten()
    expected = (picture - picture.mean()) / picture.std(correction=0)
    torch.testing.assert_close(task.targets[:, 0], expected)


def test_unseen_samples_are_between_those_that_are_learnt_or_of_the_test_split(
    digits: Dataset,
) -> None:
    task = ntk_spectrum._photograph(changed(side=16))
    assert not {tuple(point) for point in task.inputs.tolist()} & {
        tuple(point) for point in task.unseen.tolist()
    }
    picture = read_photograph("camera", side=64)[0]
    grey, beside = picture[2::4, 2::4].flatten(), picture[::4, ::4].flatten()
    expected = (beside - grey.mean()) / grey.std(correction=0)
    torch.testing.assert_close(task.truth[:, 0], expected)
    parity = ntk_spectrum._parity(SMALL, digits, 0)
    assert torch.equal(parity.unseen, digits.floats("test")[:60])
    assert torch.equal(parity.truth[:, 0] > 0, digits.labels("test")[:60] % 2 == 1)


def test_parity_is_plus_for_odd_classes_of_images_drawn_for_each_network(digits: Dataset) -> None:
    one, other = (ntk_spectrum._parity(changed(parity_images=200), digits, s) for s in (0, 1))
    assert not torch.equal(one.inputs, other.inputs)
    assert len(one.targets.unique()) == 2
    assert float(one.targets.mean()) == pytest.approx(0, abs=1e-6)
    images = digits.floats("train")
    place = next(i for i, image in enumerate(images) if torch.equal(image, one.inputs[0]))
    assert (one.targets[0] > 0) == bool(digits.labels("train")[place] % 2)


def test_shuffled_targets_are_the_same_targets_in_another_order(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(ntk_spectrum, "train", lambda network, data, **_: given.append(next(data)))
    task = ntk_spectrum._parity(SMALL, digits, 0)
    for way in (0, 1):
        ntk_spectrum._learnt(SMALL, task, (1, way, 0), 0, [1])
    (same, kept), (inputs, shuffled) = given
    assert torch.equal(inputs, same)
    assert torch.equal(kept, task.targets)
    assert not torch.equal(shuffled, kept)
    assert torch.equal(shuffled.sort(0).values, kept.sort(0).values)


def test_the_rate_is_what_the_first_kernel_allows_and_drops_in_the_last_third(result) -> None:
    start = edge(result).sel(step=0)
    np.testing.assert_allclose(start.sel(way=["true", "shuffled"]), 1.3, rtol=1e-6)
    np.testing.assert_allclose(start.sel(way="small rate"), 1.3 / 4, rtol=1e-6)
    assert result.attrs["drops_at"] == 8
    times = result["time"].sel(way="true")
    np.testing.assert_allclose(times.sel(step=8), 8 * 1.3)
    np.testing.assert_allclose(times.sel(step=12), 8 * 1.3 + 4 * 1.3 / 4)
    before, after = (edge(result).sel(way="true", step=step) for step in (8, 12))
    grown = result["eigenvalues"].sel(way="true", rank=1)
    np.testing.assert_allclose(after / before, grown.sel(step=12) / grown.sel(step=8) / 4)


@pytest.mark.slow
def test_after_the_drop_steps_are_as_much_shorter(digits: Dataset) -> None:
    """Two trainings that differ in the drop alone are one until then, and part there."""
    both = (ntk_spectrum.measure(changed(drop=by), digits)["error"] for by in (1.0, 100.0))
    plain, dropped = (error.sel(way="true", on="learnt") for error in both)
    xr.testing.assert_identical(plain.sel(step=8), dropped.sel(step=8))
    moved = [abs(float(m.sel(step=12, task="parity")[0] - m.sel(step=8, task="parity")[0]))
             for m in (plain, dropped)]  # fmt: skip
    assert moved[1] < moved[0] / 20


def test_shares_of_energy_rise_with_k_and_end_at_all(result) -> None:
    whole = result["energy"].sel(task="parity")
    assert (whole.sel(k=slice(1, 50)).diff("k") >= -1e-12).all()
    assert result["samples"].values.tolist() == [64, 60]
    assert ((whole.sel(k=50) > 0) & (whole.sel(k=50) <= 1 + 1e-12)).all()


def test_pictures_are_eigenvectors_of_the_first_network_and_the_target_in_their_span(
    result, digits: Dataset
) -> None:
    pictures = result["pictures"].sel(moment="start")
    vectors = pictures.sel(picture=["v1", "v2", "v3", "v4"]).values.reshape(4, -1)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=1e-5)
    target = result["photograph"].values.flatten()
    assert (vectors @ target >= 0).all()
    share = np.square(pictures.sel(picture="span").values).sum() / np.square(target).sum()
    own = result["energy"].sel(task="photograph", way="true", signal="target", k=10)
    assert share == pytest.approx(float(own[0, 0]), rel=1e-5)


@pytest.mark.slow
def test_what_diverges_is_noted_and_stops_nothing(digits: Dataset) -> None:
    found = ntk_spectrum.measure(changed(relative_rate=500.0, steps=60), digits)
    last = found["error"].isel(step=-1, way=0)
    assert not np.isfinite(last).any()
    assert np.isfinite(found["error"].isel(step=0)).all()
    assert "diverged" in findings(found)
    assert takeaway(found)
    assert ntk_spectrum.figure(found).axes


def test_images_of_one_parity_are_refused(digits: Dataset) -> None:
    from dataclasses import replace

    even = replace(digits, train_labels=digits.train_labels // 2 * 2)
    with pytest.raises(ValueError, match="parity needs images of odd and of even classes"):
        ntk_spectrum.measure(SMALL, even)


# --- untrained networks


def test_scores_are_given_by_variance_and_depth(result) -> None:
    found = scores(result)
    assert len(found) == 5
    for values in found.values():
        assert values.dims == ("sigma_w2", "depth")
        assert values.shape == (2, 4)


def test_untrained_measures_are_those_of_the_infinite_kernel_by_hand(
    result, digits: Dataset
) -> None:
    pixels = digits.floats("train")[:60].flatten(1).double().numpy()
    *_, level = mlp_kernels(pixels, depth=3, sigma_w2=0.6, sigma_b2=0.05)
    odd = (digits.labels("train")[:60] % 2).double().numpy()
    target = odd - odd.mean()
    less = centred(level.ntk)
    floor = 60 * 1e-3 / pixels.shape[1]
    expected = [
        energy(spectrum(level.ntk)[1], target, [10])[0], energy(spectrum(less)[1], target, [10])[0],
        alignment(level.ntk, target), alignment(less, target),
        energy_above(less, target, 10, floor),
    ]  # fmt: skip
    found = result["untrained"].sel(target="parity", sigma_w2=0.6, depth=3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_only_above_the_resolution_is_an_ordered_network_lost(digits: Dataset) -> None:
    """The centred kernel keeps its shape at any depth; what shrinks is its size."""
    found = scores(ntk_spectrum.measure(
        changed(variances=(0.4,), untrained_depth=20, steps=3), digits
    ))  # fmt: skip
    plain, above = (found[name].isel(sigma_w2=0) for name in
                    ("E_10, centred", "E_10 above the resolution"))  # fmt: skip
    assert float(plain[-1]) == pytest.approx(float(plain[0]), abs=0.03)
    assert float(above[0]) > 0.9 * float(plain[0])
    assert float(above[-1]) < 0.02


def test_a_wide_network_foretells_what_the_infinite_kernel_says() -> None:
    """Layers as wide as the input, so that all weigh alike in PyTorch's parameters, too."""
    images, labels = normal(60, 1, 16, 16).abs(), torch.arange(60) % 3
    images += 2 * normal(3, 1, 16, 16, seed=1)[labels]
    classes = (labels[:, None] == torch.arange(3)).double().numpy()
    classes -= classes.mean(0)
    *_, level = mlp_kernels(images.numpy(), depth=2, sigma_w2=1.7, sigma_b2=0.05)
    floor = np.trace(level.ntk) * 1e-3 / 256
    expected = energy_above(centred(level.ntk), classes, 10, floor)
    found = []
    for seed in range(3):
        stages = mlp((1, 16, 16), depth=2, width=256).stages
        network = drawn(nn.Sequential(*stages, nn.Linear(256, 3)), seed=seed)
        found.append(foretell(network, images, labels, seed=0)["alignment above the resolution"])
    assert np.mean(found) == pytest.approx(expected, abs=0.03)
    assert expected > 0.5  # and not chance, 10/60


@pytest.mark.parametrize(
    ("network", "labels"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), torch.arange(12) % 3),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), torch.zeros(12, dtype=torch.int64)),
        (nn.Conv2d(1, 4, 3), torch.arange(12) % 3),
    ],
)
def test_where_there_is_no_output_for_a_class_or_one_class_nothing_is_foretold(
    network: nn.Module, labels: torch.Tensor
) -> None:
    found = foretell(network, normal(12, 1, 4, 4), labels, seed=0)
    assert math.isnan(found["alignment above the resolution"])


# --- saying


def test_more_eigenvectors_than_the_wider_span_are_refused() -> None:
    with pytest.raises(ValueError, match="k must be"):
        changed(k=51)


def test_looks_are_made_at_the_start_the_drop_and_the_end_whatever_is_asked() -> None:
    assert changed(times=[5, 99], steps=30).looks() == [0, 5, 20, 30]


def test_the_shipped_result_shows_the_published_effects() -> None:
    result = load_result("ntk_spectrum.nc")
    assert result.sizes["network"] >= 3
    top, drop = result["eigenvalues"].sel(rank=1), result.attrs["drops_at"]
    rise = result["energy"].sel(way="true", signal="target", k=10)
    rise = rise.isel(step=-1) - rise.isel(step=0)
    assert (rise > 0).all()
    assert (rise.mean("network") > 0.1).all()
    at_edge = edge(result).sel(step=drop).mean("network")
    assert np.abs(at_edge.sel(way=["true", "shuffled"]) - 2).max() < 0.1
    assert at_edge.sel(way="small rate").max() < 1
    assert (top.isel(step=-1) > top.sel(step=drop)).sel(way="true").all()


def test_in_the_shipped_result_shuffled_labels_align_more_and_are_understood_less() -> None:
    result = load_result("ntk_spectrum.nc").sel(task="parity").mean("network")
    share = result["energy"].sel(signal="target", k=50)
    gain = share.isel(step=-1) - share.isel(step=0)
    assert gain.sel(way="shuffled") > gain.sel(way="true") + 0.2
    error = result["error"].isel(step=-1).sel(on="unseen")
    assert error.sel(way="true") < 0.6 < 1 < error.sel(way="shuffled")


def test_in_the_shipped_result_only_energy_above_the_resolution_sees_the_ordered_wall() -> None:
    deep = load_result("ntk_spectrum.nc")["untrained"].sel(target="classes", depth=20)
    ordered = deep.sel(sigma_w2=0.6)
    assert ordered.sel(measure="above the resolution") < 0.05
    assert (deep.sel(measure="above the resolution", sigma_w2=slice(1.0, 2.0)) > 0.35).all()
    for name in ("energy, centred", "alignment, centred"):
        assert ordered.sel(measure=name) > 0.35
