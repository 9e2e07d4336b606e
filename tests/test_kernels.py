"""Kernels of infinitely wide networks: quadrature, Monte Carlo, wide nets, limits."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from paperlib import kernels
from paperlib.kernels import cnn_kernels, descend, mean_product, mlp_kernels, regress
from paperlib.meanfield import SMOOTH, fixed_point_correlation, propagate
from paperlib.networks import initialise, mlp

FUNCTIONS = {
    **SMOOTH,
    "relu": (lambda u: np.maximum(u, 0), lambda u: (u > 0) * 1.0),
    "linear": (lambda u: u, np.ones_like),
}


def plane(function, k: float, q: float, p: float) -> float:
    """E[f(u) f(v)] by the trapezoid rule over the plane, exact for what is smooth."""
    z, step = np.linspace(-9, 9, 601, retstep=True)
    weights = np.exp(-z * z / 2) * step / math.sqrt(2 * math.pi)
    u = math.sqrt(q) * z[:, None]
    v = k / math.sqrt(q) * z[:, None] + math.sqrt(max(p - k * k / q, 0)) * z[None, :]
    return float(weights @ (function(u) * function(v)) @ weights)


def kinked_plane(function, k: float, q: float, p: float) -> float:
    """The same by Gauss–Legendre in the angle, for functions of degree d on half-lines."""
    degree = 1 if function(np.array([2.0]))[0] == 2 else 0
    edge = math.pi / 2 - math.acos(k / math.sqrt(q * p))  # both positive for angles between
    nodes, weights = np.polynomial.legendre.leggauss(60)
    low, high = -edge, math.pi / 2
    angle = (high - low) / 2 * nodes + (high + low) / 2
    first = math.sqrt(q) * np.cos(angle)
    second = k / math.sqrt(q) * np.cos(angle) + math.sqrt(p - k * k / q) * np.sin(angle)
    radial = 2.0 if degree else 1.0  # ∫ r^{2d+1} e^{-r²/2} dr
    product = (first * second) ** degree
    return float(radial * (weights @ product) * (high - low) / 2 / (2 * math.pi))


PAIRS = [(q, p, c) for q, p in ((0.05, 0.05), (0.5, 1.1), (2.0, 2.0), (1.5, 0.2))
         for c in (-0.9, 0.0, 0.3, 0.9, 0.99)]  # fmt: skip


@pytest.mark.parametrize("slopes", [False, True])
@pytest.mark.parametrize("activation", ["erf", "gelu", "tanh", "linear"])
def test_averages_agree_with_a_quadrature_over_the_plane(activation: str, slopes: bool) -> None:
    for q, p, c in PAIRS:
        k = c * math.sqrt(q * p)
        found = float(mean_product(k, q, p, activation=activation, slopes=slopes))
        expected = plane(FUNCTIONS[activation][int(slopes)], k, q, p)
        assert found == pytest.approx(expected, abs=1e-10), (q, p, c)


@pytest.mark.parametrize("slopes", [False, True])
def test_averages_of_relu_agree_with_a_quadrature_over_the_angle(slopes: bool) -> None:
    for q, p, c in PAIRS:
        k = c * math.sqrt(q * p)
        found = float(mean_product(k, q, p, activation="relu", slopes=slopes))
        expected = kinked_plane(FUNCTIONS["relu"][int(slopes)], k, q, p)
        assert found == pytest.approx(expected, abs=1e-10), (q, p, c)


@pytest.mark.parametrize("q", [0.01, 1.0, 2.0, 5.0, 8.0])
@pytest.mark.parametrize("c", [0.5, 0.99, 0.999, 1.0])
@pytest.mark.parametrize("slopes", [False, True])
def test_the_series_of_tanh_holds_for_large_variances_and_parallel_images(
    q: float, c: float, slopes: bool
) -> None:
    found = float(mean_product(c * q, q, q, slopes=slopes))
    assert found == pytest.approx(plane(SMOOTH["tanh"][int(slopes)], c * q, q, q), abs=1e-8)


@pytest.mark.parametrize("q", [0.3, 2.0, 8.0])
def test_the_series_of_erf_is_its_closed_form(q: float) -> None:
    k, variances = q * np.linspace(-1, 1, 41), np.full(41, q)
    for slopes in (False, True):
        series = kernels._series(k, variances, variances, SMOOTH["erf"][int(slopes)])
        closed = mean_product(k, q, q, activation="erf", slopes=slopes)
        np.testing.assert_allclose(series, closed, atol=1e-10)


@pytest.mark.parametrize("activation", ["tanh", "erf", "relu", "gelu"])
def test_the_average_of_slopes_is_the_derivative_with_respect_to_the_covariance(
    activation: str,
) -> None:
    q, p, k, step = 0.8, 1.3, 0.4, 1e-5
    ends = [float(mean_product(k + s, q, p, activation=activation)) for s in (-step, step)]
    slope = float(mean_product(k, q, p, activation=activation, slopes=True))
    assert (ends[1] - ends[0]) / (2 * step) == pytest.approx(slope, rel=1e-8)


def test_relu_keeps_the_digits_of_nearly_parallel_images() -> None:
    """For a small angle t the average is (1 − t²/2 + t³/3π) q/2 up to t⁵."""
    q, t = 1.3, 1e-5
    found = float(mean_product(q * (1 - t * t / 2), q, q, activation="relu", slopes=True))
    assert 0.5 - found == pytest.approx(t / (2 * math.pi), rel=1e-4)


def some_images(count: int = 6, pixels: int = 64) -> np.ndarray:
    return np.random.default_rng(0).random((count, pixels))


def last(levels):
    *_, found = levels
    return found


@pytest.mark.parametrize("activation", ["tanh", "erf", "gelu"])
@pytest.mark.parametrize("residual", [False, True])
def test_the_levels_are_those_of_mean_field(activation: str, residual: bool) -> None:
    images = some_images(2)
    images[1] *= np.linalg.norm(images[0]) / np.linalg.norm(images[1])
    found = list(mlp_kernels(images, depth=6, sigma_w2=1.4, sigma_b2=0.05, activation=activation,
                             residual=residual, ntk=False))  # fmt: skip
    start = found[1].activations
    squares, signals = propagate(
        1.4, 0.05, depth=5, mean_square=start[0, 0], signal=start[0, 0] - start[0, 1],
        activation=activation, residual=residual,
    )  # fmt: skip
    for level, square, signal in zip(found[1:], squares, signals, strict=True):
        assert level.activations[0, 0] == pytest.approx(square, rel=1e-6)
        assert level.activations[0, 0] - level.activations[0, 1] == pytest.approx(signal, rel=1e-4)


@pytest.mark.slow
def test_deep_images_reach_the_correlation_of_the_chaotic_phase() -> None:
    deep = last(mlp_kernels(some_images(), depth=120, sigma_w2=3.0, sigma_b2=0.05, ntk=False)).nngp
    correlations = deep[np.triu_indices(6, 1)] / deep[0, 0]
    np.testing.assert_allclose(correlations, fixed_point_correlation(3.0, 0.05), atol=1e-5)


def test_relu_at_its_critical_variance_keeps_every_size() -> None:
    images = some_images()
    deep = last(mlp_kernels(images, depth=30, sigma_w2=2.0, sigma_b2=0.0, activation="relu"))
    np.testing.assert_allclose(np.diag(deep.nngp), 2 * (images**2).mean(1), rtol=1e-12)


@pytest.mark.parametrize("sigma_w2", [0.7, 1.0, 1.6])
def test_a_linear_network_has_the_kernels_of_its_formula(sigma_w2: float) -> None:
    images, depth = some_images(), 4
    plain = images @ images.T / 64
    found = last(mlp_kernels(images, depth=depth, sigma_w2=sigma_w2, sigma_b2=0.0,
                             activation="linear"))  # fmt: skip
    np.testing.assert_allclose(found.nngp, sigma_w2 ** (depth + 1) * plain)
    np.testing.assert_allclose(found.ntk, (depth + 1) * sigma_w2 ** (depth + 1) * plain)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "erf"])
def test_a_monte_carlo_without_bias_agrees_layer_by_layer(activation: str) -> None:
    """Independent neurons of the exact covariance of every layer: no width is finite here."""
    images = some_images(3)
    levels = list(mlp_kernels(images, depth=3, sigma_w2=1.9, sigma_b2=0.1, activation=activation))
    rng = np.random.default_rng(1)
    value, slope = FUNCTIONS[activation]
    tangent = levels[0].ntk
    for before, after in pairwise(levels):
        root = np.linalg.cholesky(before.nngp)
        neurons = root @ rng.standard_normal((3, 400_000))
        for function, exact in (
            (value, after.activations),
            (slope, (after.ntk - after.nngp) / 1.9 / tangent),
        ):
            products = function(neurons)[:, None] * function(neurons)[None]
            error = products.std(-1) / math.sqrt(products.shape[-1])
            assert (np.abs(products.mean(-1) - exact) < 4.5 * error + 1e-12).all()
        tangent = after.ntk


def empirical(activation: str, width: int, seed: int, images: np.ndarray) -> np.ndarray:
    """J Jᵀ of one net of three stages and a linear layer, in the NTK parameterisation."""
    stages = mlp((1, 8, 8), depth=3, width=width, activation=activation).stages
    net = nn.Sequential(*stages, nn.Linear(width, 1)).double()
    initialise(net, sigma_w2=1.5, sigma_b2=0.1, seed=seed)
    given = torch.as_tensor(images).reshape(-1, 1, 8, 8)
    scales = {name: 1.5 / p[0].numel() if p.ndim > 1 else 0.1 for name, p in net.named_parameters()}
    total = np.zeros((len(images), len(images)))
    rows = []
    for image in given:
        net.zero_grad()
        net(image[None]).sum().backward()
        rows.append({name: p.grad.flatten().clone() for name, p in net.named_parameters()})
    for name, scale in scales.items():
        found = torch.stack([row[name] for row in rows])
        total += scale * (found @ found.T).numpy()
    return total


@pytest.mark.parametrize("activation", ["tanh", "erf", "relu", "gelu"])
def test_the_ntk_of_a_wide_net_is_within_five_percent(activation: str) -> None:
    images = some_images(5)
    exact = last(mlp_kernels(images, depth=3, sigma_w2=1.5, sigma_b2=0.1,
                             activation=activation)).ntk  # fmt: skip
    found = np.mean([empirical(activation, 1024, seed, images) for seed in range(2)], 0)
    assert np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact)


def test_the_error_of_a_net_falls_with_the_root_of_its_width() -> None:
    images = some_images(4)
    exact = last(mlp_kernels(images, depth=3, sigma_w2=1.5, sigma_b2=0.1)).ntk
    errors = {}
    for width in (32, 512):
        nets = [empirical("tanh", width, seed, images) for seed in range(12)]
        errors[width] = np.mean([np.linalg.norm(net - exact) for net in nets])
    assert errors[32] / errors[512] == pytest.approx(4, rel=0.4)  # √16


def drawn_field(images: torch.Tensor, channels: int, seed: int, pooling: bool) -> np.ndarray:
    """The tangent kernel of a net of two circular convolutions, φ after each, and a layer."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    seen = images.shape[1]
    size = channels if pooling else channels * images[0, 0].numel()
    layers = [(normal(channels, seen, 3, 3), normal(channels)),
              (normal(channels, channels, 3, 3), normal(channels)),
              (normal(size), normal(1))]  # fmt: skip
    flat = [part.requires_grad_() for layer in layers for part in layer]
    rows = []
    for image in images:
        here = image[None]
        for weight, bias in layers[:2]:
            padded = nn.functional.pad(here, (1, 1, 1, 1), mode="circular")
            scale = math.sqrt(1.5 / weight[0].numel())
            here = torch.tanh(nn.functional.conv2d(padded, scale * weight, math.sqrt(0.1) * bias))
        read = here.mean((2, 3)).flatten() if pooling else here.flatten()
        out = math.sqrt(1.5 / size) * layers[2][0] @ read + math.sqrt(0.1) * layers[2][1]
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(out, flat)]))
    stacked = torch.stack(rows)
    return (stacked @ stacked.T).numpy()


@pytest.mark.parametrize("pooling", [False, True])
def test_the_ntk_of_a_net_of_many_channels_is_that_of_its_convolutions(pooling: bool) -> None:
    images = np.random.default_rng(2).random((3, 1, 5, 5))
    exact = last(cnn_kernels(images, depth=2, sigma_w2=1.5, sigma_b2=0.1, pooling=pooling)).ntk
    # a net's pooled kernel is off by 13% as a whole; the mean of 150 by 1%
    nets = [drawn_field(torch.as_tensor(images), 64, seed, pooling) for seed in range(150)]
    assert np.linalg.norm(np.mean(nets, 0) - exact) < 0.03 * np.linalg.norm(exact)


@pytest.mark.parametrize("pooling", [False, True])
def test_convolutions_of_one_pixel_are_a_fully_connected_network(pooling: bool) -> None:
    images = some_images(4, 3)
    options = {"depth": 3, "sigma_w2": 1.5, "sigma_b2": 0.1, "residual": True}
    fields = cnn_kernels(images.reshape(4, 3, 1, 1), pooling=pooling, **options)
    for field, plain in zip(fields, mlp_kernels(images, **options), strict=True):
        np.testing.assert_allclose(field.nngp, plain.nngp)
        np.testing.assert_allclose(field.ntk, plain.ntk)


def test_pooling_makes_shifted_images_equal() -> None:
    images = np.random.default_rng(3).random((1, 1, 5, 5))
    both = np.concatenate([images, np.roll(images, (2, 1), (2, 3))])
    options = {"depth": 3, "sigma_w2": 1.5, "sigma_b2": 0.1}
    pooled = last(cnn_kernels(both, pooling=True, **options))
    flat = last(cnn_kernels(both, pooling=False, **options))
    for kernel in (pooled.nngp, pooled.ntk):
        np.testing.assert_allclose(kernel, np.full((2, 2), kernel[0, 0]))
    assert flat.nngp[0, 1] < 0.999 * flat.nngp[0, 0]


def test_residual_kernels_are_those_of_wide_nets() -> None:
    images, width = some_images(4), 600
    exact = last(mlp_kernels(images, depth=3, sigma_w2=1.2, sigma_b2=0.1, residual=True))
    rng = np.random.default_rng(4)
    found = []
    for _ in range(3):

        def affine(here):
            weight = rng.standard_normal((width, here.shape[1])) * math.sqrt(1.2 / here.shape[1])
            return here @ weight.T + rng.standard_normal(width) * math.sqrt(0.1)

        here = np.tanh(affine(images))
        for _ in range(2):
            here = here + affine(np.tanh(affine(here)))
        found.append(here @ here.T / width)
    mean = np.mean(found, 0)
    assert np.linalg.norm(mean - exact.activations) < 0.05 * np.linalg.norm(exact.activations)


def test_an_image_for_itself_is_as_large_as_its_series_says() -> None:
    found = list(mlp_kernels(some_images(), depth=3, sigma_w2=3.0, sigma_b2=0.05))
    for before, after in pairwise(found):
        points, weights = kernels.quadrature()
        q = np.diag(before.nngp)
        exact = np.tanh(np.sqrt(q)[:, None] * points) ** 2 @ weights
        np.testing.assert_allclose(np.diag(after.activations), exact, rtol=1e-10)


def test_regression_without_a_ridge_interpolates_and_with_a_large_one_returns_nothing() -> None:
    kernel = last(mlp_kernels(some_images(), depth=2, sigma_w2=1.5, sigma_b2=0.1)).ntk
    targets = np.random.default_rng(5).standard_normal((6, 2))
    np.testing.assert_allclose(regress(kernel, kernel, targets), targets, rtol=1e-6)
    assert np.abs(regress(kernel, kernel, targets, ridge=1e9)).max() < 1e-6


def test_descent_is_that_of_the_linear_model_step_by_step() -> None:
    features = np.random.default_rng(6).standard_normal((7, 4))
    targets = np.random.default_rng(7).standard_normal((5, 2))
    train, test, weight = features[:5], features[5:], np.zeros((4, 2))
    for _ in range(30):
        weight -= 0.3 * train.T @ (train @ weight - targets) / 5
    found = descend(train @ train.T, test @ train.T, targets, rate=0.3, steps=30)
    np.testing.assert_allclose(found, test @ weight, atol=1e-12)


def test_descent_for_ever_is_regression_without_a_ridge() -> None:
    kernel = last(mlp_kernels(some_images(), depth=2, sigma_w2=1.5, sigma_b2=0.1)).ntk
    within, across, targets = kernel[:4, :4], kernel[4:, :4], np.eye(4)
    rate = 4 / np.linalg.eigvalsh(within)[-1]
    there = descend(within, across, targets, rate=rate, steps=10**7)
    np.testing.assert_allclose(there, regress(within, across, targets), rtol=1e-6)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"depth": 0}, "depth must be >= 1, got 0"),
    ({"sigma_w2": -1.0}, "sigma_w2 must be >= 0, got -1.0"),
    ({"activation": "tan"}, "activation must be one of"),
])  # fmt: skip
def test_wrong_arguments_are_refused_before_the_first_level(wrong, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mlp_kernels(some_images(), **{"depth": 2, "sigma_w2": 1.0, "sigma_b2": 0.0, **wrong})


def test_images_are_left_as_they_were() -> None:
    images = some_images()
    before = images.copy()
    list(mlp_kernels(images, depth=2, sigma_w2=1.0, sigma_b2=0.1))
    assert (images == before).all()
    with pytest.raises(ValueError, match=r"images must be \(n, channels, height, width\)"):
        cnn_kernels(images, depth=2, sigma_w2=1.0, sigma_b2=0.1)
