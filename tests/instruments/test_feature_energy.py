"""Energy of feature maps: closed forms, plain formulas, and the numbers of the theorem."""

import math
import os

import numpy as np
import pytest
import torch
from torch import nn

from paperlib import mlp
from paperlib.datasets import load_dataset
from paperlib.instruments import feature_energy
from paperlib.instruments.feature_energy import (
    Bank,
    Settings,
    activation_energy,
    bands,
    bound,
    energies,
    layers_needed,
    littlewood_paley,
    products,
    scattered,
    wavelets,
)
from paperlib.meanfield import propagate
from paperlib.networks import initialise

SMALL = Settings(
    dataset="digits", beside=("noise",), side=16, angles=2, layers=2, architectures=("mlp", "cnn"),
    channels=4, depth=2, variances=(1.0, 2.0), steps=3, train_images=60, fitted=40, test_images=20,
)  # fmt: skip
TIGHT = wavelets(32, 2, 8)


def photographs(count: int = 2) -> torch.Tensor:
    data = load_dataset("patches", limit=count)
    return data.floats("test")[:count, 0].double()


def plain_gabor(
    side: int, sigma: float, angle: float, frequency: float, slant: float
) -> np.ndarray:
    """A plane wave under a Gaussian, in space, summed over neighbouring periods."""
    found = np.zeros((side, side), complex)
    cos, sin = math.cos(angle), math.sin(angle)
    for down in range(-2, 3):
        for right in range(-2, 3):
            y, x = np.mgrid[down * side : (down + 1) * side, right * side : (right + 1) * side]
            along, across = y * cos + x * sin, x * cos - y * sin
            envelope = np.exp(-(along**2 + slant**2 * across**2) / (2 * sigma**2))
            found += envelope * np.exp(1j * frequency * along)
    return found * slant / (2 * np.pi * sigma**2)


def test_the_wavelets_are_those_of_the_plain_formula_in_space() -> None:
    bank = wavelets(32, 2, 8, tight=False)
    low = np.fft.fft2(plain_gabor(32, 1.6, 0, 0, 1))
    np.testing.assert_allclose(bank.low, low, atol=1e-12)
    for number in range(16):
        scale, angle = 0.8 * 2 ** (number // 8), math.pi * (number % 8) / 8
        frequency = 0.75 * math.pi / 2 ** (number // 8)
        wave = plain_gabor(32, scale, angle, frequency, 0.5)
        envelope = plain_gabor(32, scale, angle, 0, 0.5)
        wave -= envelope * wave.sum() / envelope.sum()
        np.testing.assert_allclose(bank.high[number], np.fft.fft2(wave), atol=1e-12)


def test_published_filters_lose_energy_and_tight_ones_none() -> None:
    power = littlewood_paley(wavelets(32, 2, 8, tight=False))
    assert float(power.min()) == pytest.approx(0.12, abs=0.005)
    assert float(power.max()) == pytest.approx(1.0, abs=0.005)
    assert (littlewood_paley(TIGHT) - 1).abs().max() < 1e-14


@pytest.mark.parametrize("bank", [TIGHT, wavelets(32, 3, 4), wavelets(32, 1, 5)])
def test_what_travels_is_what_is_given_out_and_what_travels_on(bank: Bank) -> None:
    images = torch.cat([photographs(), torch.randn(2, 32, 32, dtype=torch.float64)])
    given, travelling = energies(images, bank, 3)
    gaps = travelling[:, :-1] - given - travelling[:, 1:]
    assert (gaps.abs().amax(1) / travelling[:, 0]).max() < 1e-12
    assert (travelling.diff(dim=1) < 0).all()


def test_energies_agree_with_a_recursion_over_paths_in_space() -> None:
    (image,) = photographs(1)
    bank = wavelets(32, 1, 3)
    given, travelling = energies(image[None], bank, 3)
    maps = [image]
    for order in range(3):
        assert sum(float(m.square().sum()) for m in maps) == pytest.approx(
            float(travelling[0, order]), rel=1e-12
        )
        blurred = [torch.fft.ifft2(torch.fft.fft2(m) * bank.low).real for m in maps]
        assert sum(float(m.square().sum()) for m in blurred) == pytest.approx(
            float(given[0, order]), rel=1e-12
        )
        maps = [torch.fft.ifft2(torch.fft.fft2(m) * g).abs() for m in maps for g in bank.high]
    assert len(maps) == 27
    last = sum(float(m.square().sum()) for m in maps)
    assert last == pytest.approx(float(travelling[0, 3]), rel=1e-12)


def test_brightness_enters_squared_and_a_shift_not_at_all() -> None:
    images = photographs()
    given, travelling = energies(images, TIGHT, 2)
    for changed, factor in ((3 * images, 9), (images.roll((5, -7), (1, 2)), 1)):
        more_given, more_travelling = energies(changed, TIGHT, 2)
        torch.testing.assert_close(more_given, factor * given, rtol=1e-12, atol=0)
        torch.testing.assert_close(more_travelling, factor * travelling, rtol=1e-12, atol=0)


def test_a_constant_image_gives_all_out_at_once() -> None:
    given, travelling = energies(torch.full((1, 32, 32), 0.7, dtype=torch.float64), TIGHT, 2)
    assert given[0, 0] == pytest.approx(0.49 * 1024, rel=1e-14)
    assert (travelling[0, 1:] < 1e-24).all()


@pytest.mark.parametrize("periods", [3, 40, 300])
def test_a_cosine_travels_one_ideal_layer_and_ends_there(periods: int) -> None:
    bank = bands(1024, 5)  # the low-pass ends at 16 periods
    signal = torch.cos(2 * math.pi * periods * torch.arange(1024, dtype=torch.float64) / 1024)
    given, travelling = energies(signal[None, None], bank, 2)
    passed = 1 - float(bank.low[0, periods]) ** 2
    assert passed == (periods > 16)
    assert travelling[0].tolist() == pytest.approx([512, 512 * passed, 0], abs=1e-9)
    assert given[0].tolist() == pytest.approx([512 * (1 - passed), 512 * passed], abs=1e-9)


def test_morlets_are_only_nearly_analytic_so_that_a_cosine_goes_on_a_little() -> None:
    wave = torch.cos(2 * math.pi * 10 * torch.arange(32, dtype=torch.float64) / 32)
    _, travelling = energies(wave.expand(1, 32, 32), TIGHT, 2)
    low = float(TIGHT.low[0, 10]) ** 2
    assert float(travelling[0, 1] / travelling[0, 0]) == pytest.approx(1 - low, rel=1e-12)
    assert float(travelling[0, 2] / travelling[0, 0]) == pytest.approx(0.020, abs=0.0005)


def test_white_noise_travels_as_its_flat_spectrum_says() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 32, 32, generator=generator, dtype=torch.float64)
    _, travelling = energies(noise, TIGHT, 1)
    expected = float((1 - TIGHT.low.square()).mean())
    assert float(travelling[:, 1].sum() / travelling[:, 0].sum()) == pytest.approx(
        expected, abs=0.001
    )


def test_ideal_bands_are_tight_and_each_in_one_half_of_the_frequencies() -> None:
    for length in (1024, 999):
        bank = bands(length, 5)
        assert (littlewood_paley(bank) - 1).abs().max() < 1e-14
        negative = bank.high[:, 0, length // 2 + 1 :]
        assert (negative == 0).all()


@pytest.mark.parametrize(("filters", "numbers"), [
    ("wavelets", (2, 3, 4, 6, 8, 11)),
    ("Weyl-Heisenberg", (2, 4, 5, 8, 10, 14)),
    ("any filters", (2, 3, 7, 19, 39, 199)),
])  # fmt: skip
def test_the_theorems_table_of_layers_is_the_published_one(filters: str, numbers) -> None:
    gain = feature_energy.GAINS[filters]
    shares = feature_energy.SHARES
    assert tuple(layers_needed(share, gain) for share in shares) == numbers


def test_the_bound_holds_for_signals_of_one_dimension_and_ideal_filters() -> None:
    signals = torch.cat([photographs(), torch.randn(2, 32, 32, dtype=torch.float64)]).flatten(1)
    _, travelling = energies(signals[:, None], bands(1024, 5), 3)
    above = bound(signals, 16, 3)
    torch.testing.assert_close(above[:, 0], travelling[:, 0])
    assert (travelling <= above * (1 + 1e-12)).all()
    assert (above.diff(dim=1) < 0).all()


def test_the_bound_of_a_cosine_is_the_plain_formula() -> None:
    wave = torch.cos(2 * math.pi * 20 * torch.arange(1024, dtype=torch.float64) / 1024)
    expected = [512.0] + [
        512 * (1 - max(0, 1 - 20 / 16 / (5 / 3) ** n) ** (2 * 1.0001)) for n in range(3)
    ]
    assert bound(wave[None], 16, 3)[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_products_of_features_hold_the_energy_given_out_on_their_diagonal() -> None:
    images = photographs()
    given, _ = energies(images, TIGHT, 2)
    found = products(images, TIGHT, 2)
    torch.testing.assert_close(found.diagonal(dim1=1, dim2=2).T, given)
    order_1 = torch.cat([s for order, s in scattered(images, TIGHT, 1) if order == 1], 1)
    plain = torch.fft.ifft2(order_1 * TIGHT.low).real.flatten(1)
    torch.testing.assert_close(found[1], plain @ plain.T)


def test_the_regression_by_products_is_ridge_regression_on_the_features() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(30, 7, generator=generator, dtype=torch.float64) + 2
    images = torch.randn(20, 2, 3, generator=generator, dtype=torch.float64)
    found = feature_energy._regressed(features @ features.T, images, 0.3)
    x, y = features[:20] - features[:20].mean(0), (images - images.mean(0)).flatten(1)
    weight = torch.linalg.solve(x.T @ x + 20 * 0.3 * torch.eye(7), x.T @ y)
    plain = (features[20:] - features[:20].mean(0)) @ weight + images.mean(0).flatten()
    torch.testing.assert_close(found.flatten(1), plain)


def test_the_part_that_differs_is_half_the_squared_difference_of_two_images() -> None:
    values = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0)) + 5
    square, differing = activation_energy(values)
    pairs = [(values[i] - values[j]).square().mean() / 2 for i in range(6) for j in range(i)]
    assert square == pytest.approx(float(values.square().mean()))
    assert differing == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-5)


@pytest.mark.parametrize("sigma_w2", [0.6, 1.7, 4.0])
def test_energies_of_wide_tanh_networks_follow_mean_field(sigma_w2: float) -> None:
    images = torch.randn(20, 1, 20, 20, generator=torch.Generator().manual_seed(1))
    network = mlp((1, 20, 20), depth=6, width=1500)
    initialise(network, sigma_w2=sigma_w2, sigma_b2=0.05, seed=0)
    squares, signals = propagate(sigma_w2, 0.05, depth=6, mean_square=1.0, signal=1.0)
    values = images
    for level, stage in enumerate(network.stages, start=1):
        values = stage(values).detach()
        square, differing = activation_energy(values)
        assert square == pytest.approx(squares[level], rel=0.08)
        assert differing == pytest.approx(signals[level], rel=0.15)


def test_a_random_relu_layer_halves_the_energy_and_adds_half_the_biases_variance() -> None:
    """Exactly at every width, in the mean over draws of the weights."""
    image = torch.rand(1, 30, generator=torch.Generator().manual_seed(0))
    found = []
    for seed in range(1500):
        layer = nn.Sequential(nn.Linear(30, 5), nn.ReLU())
        initialise(layer, sigma_w2=2.5, sigma_b2=0.4, seed=seed)
        found.append(float(layer(image).detach().square().mean()))
    expected = (2.5 * float(image.square().mean()) + 0.4) / 2
    assert np.mean(found) == pytest.approx(expected, rel=0.06)


@pytest.mark.slow
def test_a_measurement_holds_the_identity_and_every_network() -> None:
    data = load_dataset("digits", limit=60)
    result = feature_energy.measure(SMALL, data)
    assert result["curve"].values.tolist() == [
        "digits", "digits, own mean removed", "digits, filters not tight", "noise", "white noise",
    ]  # fmt: skip
    loose = result["curve"].str.contains("not tight")
    assert (result["residual"][~loose] < 1e-12).all()
    assert (result["residual"][loose] > 1e-3).all()
    held = 1 - result["travelling"].sel(curve="digits").values[1:]
    np.testing.assert_allclose(result["held"], held, rtol=1e-5)
    assert result["energy"].dims == ("architecture", "sigma_w2", "network", "state", "depth")
    assert (result["differing"] <= result["energy"] * 20 / 19 + 1e-12).all()
    assert (result["r_squared"].sel(architecture="mlp", depth=0) == 1).all()
    np.testing.assert_allclose(result["lost_below"], [1e-3 / 784, 3e-6 / 4])
    np.testing.assert_allclose(
        feature_energy.scores(result)["differing"].values[1, 0, 0],
        math.log10(float(result["differing"][1, 0, 0, 0].min()) / (3e-6 / 4)),
    )


def test_the_layers_that_hold_a_share_are_counted_from_what_travels_on() -> None:
    travelling = np.array([2.0, 0.9, 0.2, 0.04])
    found = [feature_energy.layers_held(travelling, share) for share in (0.5, 0.9, 0.98, 0.99)]
    assert found[:3] == [0, 1, 2]
    assert math.isnan(found[3])


def test_missing_data_sets_beside_are_left_out_only_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("PAPERLIB_DATA", str(tmp_path))
    strict, lenient = (Settings(fallback=fallback) for fallback in (False, True))
    assert strict.at_hand() == ("cifar10", "patches")
    assert lenient.at_hand() == ("patches",)
    assert strict.identifying() != lenient.identifying()


def test_more_scales_than_the_images_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="scales must be at most 3 for images of side 8"):
        Settings(side=8, scales=4)


def test_images_are_padded_or_averaged_to_one_size() -> None:
    data = load_dataset("digits", limit=5)
    padded = feature_energy._images(Settings(), data, "test", 5)
    assert (padded[:, 2:30, 2:30] == data.floats("test")[:, 0].double()).all()
    assert padded.sum() == pytest.approx(float(data.floats("test").double().sum()))
    averaged = feature_energy._images(Settings(side=14), data, "test", 5)
    plain = data.floats("test")[:, 0].double().view(5, 14, 2, 14, 2).mean((2, 4))
    torch.testing.assert_close(averaged, plain)


@pytest.mark.slow
@pytest.mark.skipif("PAPERLIB_DATA" not in os.environ, reason="needs MNIST")
@pytest.mark.parametrize(("own_mean", "shares"), [
    (False, (0.44, 0.10, 0.017)), (True, (0.50, 0.117, 0.0195)),
])  # fmt: skip
def test_mnist_gives_the_measured_shares(own_mean: bool, shares) -> None:
    data = load_dataset("mnist", limit=100)
    images = feature_energy._images(Settings(), data, "test", 100)
    if own_mean:
        images = images - images.mean((1, 2), keepdim=True)
    _, travelling, residual = feature_energy._shares(images, TIGHT, 3)
    assert residual < 1e-12
    assert travelling[1:].tolist() == pytest.approx(shares, rel=0.03)
