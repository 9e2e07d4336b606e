import math
from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf

from paperlib import meanfield
from paperlib.meanfield import (
    correlation_depth,
    critical_sigma_w2,
    fixed_point_correlation,
    fixed_point_variance,
    propagate,
    susceptibility,
)

SINGLE = [fixed_point_variance, susceptibility, fixed_point_correlation, correlation_depth]
SIGMAS_W2 = [0.1, 0.6, 1.0, 1.05, 1.5, 1.7, 1.8, 2.0, 3.0, 4.5, 6.0]
SIGMAS_B2 = [0.0, 2e-5, 0.05]


def gaussian_mean(function):
    """∫Dz by adaptive quadrature, an oracle that shares nothing with Gauss–Hermite."""
    density = 1 / math.sqrt(2 * math.pi)
    return quad(lambda z: density * math.exp(-z * z / 2) * function(z), -12, 12, limit=200)[0]


# --- published values


@pytest.mark.parametrize(
    ("sigma_w2", "depth"),
    [(1.0, 3.63), (1.5, 15.8), (1.6, 27.0), (1.8, 126), (2.0, 25.2), (3.0, 9.05)],
)
def test_correlation_depth_of_tanh_agrees_with_the_checked_values(sigma_w2, depth):
    assert float(f"{correlation_depth(sigma_w2, 0.05):.3g}") == depth


@pytest.mark.parametrize(("sigma_b2", "sigma_w2"), [(0.05, 1.7610), (2e-5, 1.0499)])
def test_critical_sigma_w2_of_tanh_agrees_with_the_checked_values(sigma_b2, sigma_w2):
    assert critical_sigma_w2(sigma_b2) == pytest.approx(sigma_w2, abs=5e-5)


# --- the tanh network against independent quadrature and simulation


@pytest.mark.parametrize("sigma_w2", [0.6, 1.761, 3.0, 6.0])
def test_variance_and_susceptibility_satisfy_their_equations_under_adaptive_quadrature(sigma_w2):
    q = fixed_point_variance(sigma_w2, 0.05)
    square = gaussian_mean(lambda z: math.tanh(math.sqrt(q) * z) ** 2)
    slope = gaussian_mean(lambda z: math.cosh(math.sqrt(q) * z) ** -4)
    assert sigma_w2 * square + 0.05 == pytest.approx(q, rel=1e-9)
    assert susceptibility(sigma_w2, 0.05) == pytest.approx(sigma_w2 * slope, rel=1e-9)


def test_correlation_of_a_chaotic_tanh_network_agrees_with_monte_carlo():
    sigma_w2, sigma_b2, size = 2.5, 0.05, 2_000_000
    q, c = fixed_point_variance(sigma_w2, sigma_b2), fixed_point_correlation(sigma_w2, sigma_b2)
    z1, z2 = np.random.default_rng(0).standard_normal((2, size))
    first = np.tanh(math.sqrt(q) * z1)
    second = np.tanh(math.sqrt(q) * (c * z1 + math.sqrt(1 - c * c) * z2))
    mapped = (sigma_w2 * np.mean(first * second) + sigma_b2) / q
    chi = sigma_w2 * np.mean((1 - first**2) * (1 - second**2))
    assert 0.1 < c < 0.9
    assert mapped == pytest.approx(c, abs=3e-3)
    assert -1 / math.log(chi) == pytest.approx(correlation_depth(sigma_w2, sigma_b2), rel=1e-2)


def test_wide_random_layers_converge_to_the_fixed_points():
    sigma_w2, sigma_b2, width, inputs = 3.0, 0.05, 800, 8
    rng = np.random.default_rng(1)
    post = rng.standard_normal((width, 1)) + 0.3 * rng.standard_normal((width, inputs))
    variances, correlations = [], []
    for _ in range(80):
        weights = rng.normal(0, math.sqrt(sigma_w2 / width), (width, width))
        pre = weights @ post + rng.normal(0, math.sqrt(sigma_b2), (width, 1))
        post = np.tanh(pre)
        covariance = pre.T @ pre / width
        variances.append(np.diag(covariance).mean())
        pairs = np.triu_indices(inputs, k=1)
        correlations.append((covariance / covariance[0, 0])[pairs].mean())
    # The correlation depth is 9: after 40 layers the start is forgotten.
    q, c = fixed_point_variance(sigma_w2, sigma_b2), fixed_point_correlation(sigma_w2, sigma_b2)
    assert correlations[0] > 0.8
    assert np.mean(variances[40:]) == pytest.approx(q, rel=0.02)
    assert np.mean(correlations[40:]) == pytest.approx(c, abs=0.05)


@pytest.mark.parametrize("sigma_b2", SIGMAS_B2)
def test_twice_the_nodes_change_no_digit_of_the_first_four(sigma_b2, monkeypatch):
    def everything():
        meanfield.quadrature.cache_clear()
        return np.array([[f(s, sigma_b2) for f in SINGLE] for s in SIGMAS_W2])

    usual = everything()
    monkeypatch.setattr(meanfield, "NODES", 2 * meanfield.NODES)
    finer = everything()
    meanfield.quadrature.cache_clear()
    np.testing.assert_allclose(usual, finer, rtol=1e-5, atol=1e-9)


# --- the erf network, whose kernels are known


def erf_map(c, q, sigma_w2, sigma_b2):
    return (sigma_w2 * 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q)) + sigma_b2) / q


@pytest.mark.parametrize("sigma_b2", SIGMAS_B2)
@pytest.mark.parametrize("sigma_w2", [1.5, 2.0, 4.0, 6.0, 20.0])
def test_erf_network_agrees_with_its_arcsine_kernel(sigma_w2, sigma_b2):
    q = fixed_point_variance(sigma_w2, sigma_b2, activation="erf")
    c = fixed_point_correlation(sigma_w2, sigma_b2, activation="erf")
    assert erf_map(1.0, q, sigma_w2, sigma_b2) == pytest.approx(1, abs=1e-9)
    assert erf_map(c, q, sigma_w2, sigma_b2) == pytest.approx(c, abs=1e-9)
    chi = sigma_w2 * 4 / math.pi / math.sqrt((1 + 2 * q) ** 2 - (2 * q * c) ** 2)
    depth = correlation_depth(sigma_w2, sigma_b2, activation="erf")
    assert c < 1
    assert depth == pytest.approx(-1 / math.log(chi), rel=1e-6)


def test_erf_network_without_bias_has_a_closed_fixed_point():
    # arcsin(2q/(1+2q)) = π q / (2 σ_w²) is solved by q = 1/2 at σ_w² = 3/2.
    assert fixed_point_variance(1.5, 0, activation="erf") == pytest.approx(0.5, rel=1e-10)
    assert susceptibility(1.5, 0, activation="erf") == pytest.approx(6 / math.pi / math.sqrt(3))
    # c* = 0, where the slope of the arcsine kernel is (4/π) σ_w² / (1 + 2q).
    assert correlation_depth(1.5, 0, activation="erf") == pytest.approx(-1 / math.log(3 / math.pi))


@pytest.mark.parametrize("sigma_b2", [0.0, 2e-5, 0.05, 1.0])
def test_critical_erf_network_has_unit_slope_in_its_closed_form(sigma_b2):
    sigma_w2 = critical_sigma_w2(sigma_b2, activation="erf")
    # χ₁ = 1 fixes q; the arcsine kernel then fixes the bias.
    q = ((4 * sigma_w2 / math.pi) ** 2 - 1) / 4
    bias = q - sigma_w2 * 2 / math.pi * math.asin(2 * q / (1 + 2 * q))
    assert bias == pytest.approx(sigma_b2, abs=1e-9)


# --- gelu


@pytest.mark.parametrize(("sigma_w2", "sigma_b2"), [(1.5, 0.05), (1.9, 0.3), (0.5, 1.0)])
def test_gelu_variance_satisfies_its_equation_under_adaptive_quadrature(sigma_w2, sigma_b2):
    q = fixed_point_variance(sigma_w2, sigma_b2, activation="gelu")

    def gelu(z):
        return math.sqrt(q) * z * (1 + erf(math.sqrt(q / 2) * z)) / 2

    square = gaussian_mean(lambda z: gelu(z) ** 2)
    assert sigma_w2 * square + sigma_b2 == pytest.approx(q, rel=1e-8)


@pytest.mark.parametrize("name", list(meanfield.SMOOTH))
def test_slopes_are_the_derivatives_of_their_activations(name):
    phi, slope = meanfield.SMOOTH[name]
    u, step = np.linspace(-4, 4, 41), 1e-5
    numeric = (phi(u + step) - phi(u - step)) / (2 * step)
    np.testing.assert_allclose(slope(u), numeric, atol=1e-9)


def test_gelu_without_bias_is_ordered_up_to_four():
    assert critical_sigma_w2(0, activation="gelu") == 4
    assert fixed_point_variance(3, 0, activation="gelu") == 0
    assert correlation_depth(3, 0, activation="gelu") == pytest.approx(-1 / math.log(0.75))


@pytest.mark.parametrize("sigma_w2", [2.0, 2.3, 2.41, 2.42])
def test_gelu_variance_is_where_a_growing_variance_first_stops(sigma_w2):
    # Just below 2.42 a fixed point that attracts and one that repels are about to meet.
    phi, q = meanfield.SMOOTH["gelu"][0], 0.0
    for _ in range(2000):
        q = sigma_w2 * meanfield._mean_square(phi, q) + 0.05 if q < 30 else math.inf
    assert fixed_point_variance(sigma_w2, 0.05, activation="gelu") == pytest.approx(q, rel=1e-6)


def test_gelu_with_large_weights_grows_without_bound_as_relu_does():
    assert fixed_point_variance(2.5, 0.3, activation="gelu") == math.inf
    assert susceptibility(2.5, 0.3, activation="gelu") == 1.25
    assert fixed_point_correlation(2.5, 0.3, activation="gelu") == 1
    assert correlation_depth(2.5, 0.3, activation="gelu") == math.inf


def test_gelu_is_half_stable_at_the_known_point():
    # Roberts, Yaida and Hanin, The Principles of Deep Learning Theory (2022), section 5.3.4.
    assert critical_sigma_w2(0.17292239, activation="gelu") == pytest.approx(1.98305826, rel=1e-7)


# --- relu and linear, in closed form


@pytest.mark.parametrize(("activation", "critical"), [("relu", 2.0), ("linear", 1.0)])
def test_homogeneous_activations_are_critical_at_their_known_weights(activation, critical):
    assert critical_sigma_w2(0, activation=activation) == critical
    assert correlation_depth(critical, 0, activation=activation) == math.inf
    assert math.isnan(fixed_point_variance(critical, 0, activation=activation))
    assert fixed_point_variance(critical, 0.1, activation=activation) == math.inf


@pytest.mark.parametrize(("activation", "critical"), [("relu", 2.0), ("linear", 1.0)])
@pytest.mark.parametrize("gain", [0.3, 0.9])
def test_homogeneous_activations_keep_a_geometric_series_below_criticality(
    activation, critical, gain
):
    sigma_w2 = gain * critical
    variance = fixed_point_variance(sigma_w2, 0.1, activation=activation)
    assert variance == pytest.approx(0.1 / (1 - gain))
    assert fixed_point_variance(sigma_w2, 0, activation=activation) == 0
    assert susceptibility(sigma_w2, 0.1, activation=activation) == pytest.approx(gain)
    depth = correlation_depth(sigma_w2, 0.1, activation=activation)
    assert depth == pytest.approx(-1 / math.log(gain))


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_homogeneous_activations_diverge_above_criticality(activation):
    assert fixed_point_variance(3, 0, activation=activation) == math.inf
    assert fixed_point_correlation(3, 0.1, activation=activation) == 1
    assert correlation_depth(3, 0.1, activation=activation) == math.inf


# --- phases


@pytest.mark.parametrize("activation", ["tanh", "erf"])
@pytest.mark.parametrize("sigma_b2", [0.0, 2e-5, 0.05, 1.0])
def test_the_critical_line_separates_the_phases(activation, sigma_b2):
    critical = critical_sigma_w2(sigma_b2, activation=activation)
    assert correlation_depth(critical, sigma_b2, activation=activation) == math.inf
    assert susceptibility(0.99 * critical, sigma_b2, activation=activation) < 1
    assert susceptibility(1.01 * critical, sigma_b2, activation=activation) > 1
    assert fixed_point_correlation(0.99 * critical, sigma_b2, activation=activation) == 1
    assert fixed_point_correlation(1.01 * critical, sigma_b2, activation=activation) < 1


@pytest.mark.parametrize("side", [-1, 1])
def test_correlation_depth_diverges_towards_criticality_as_its_inverse_distance(side):
    critical = critical_sigma_w2(0.05)
    near = [correlation_depth(critical + side * d, 0.05) for d in (1e-3, 1e-4, 1e-5)]
    assert near[1] / near[0] == pytest.approx(10, rel=0.02)
    assert near[2] / near[1] == pytest.approx(10, rel=0.02)


def test_correlation_depth_approaches_the_same_law_from_both_sides():
    critical = critical_sigma_w2(0.05)
    ordered, chaotic = (correlation_depth(critical + d, 0.05) for d in (-1e-5, 1e-5))
    assert ordered == pytest.approx(chaotic, rel=1e-2)


def test_a_tanh_network_without_bias_loses_its_signal_in_the_ordered_phase():
    assert critical_sigma_w2(0) == 1
    assert fixed_point_variance(0.9, 0) == 0
    assert correlation_depth(0.9, 0) == pytest.approx(-1 / math.log(0.9))


def test_a_chaotic_tanh_network_without_bias_makes_inputs_orthogonal():
    assert fixed_point_correlation(2.0, 0) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("activation", ["tanh", "erf", "gelu", "relu", "linear"])
def test_a_network_without_weights_forgets_at_once(activation):
    assert fixed_point_variance(0, 0.05, activation=activation) == 0.05
    assert correlation_depth(0, 0.05, activation=activation) == 0


# --- stage by stage


VARIANCES = [(0.8, 2e-5), (1.05, 2e-5), (2.0, 0.05)]
STAGES = ["plain", "residual", "bounded"]


@cache
def wide_networks(*, depth, width=800, networks=5):
    """Mean square and signal of two correlated inputs in random networks, stage by stage: means by
    stage, sigma_w2 and sigma_b2. Networks of all variances and stages have the same draws, of
    which their weights are multiples: to draw takes most of the time."""
    points = {case: [] for case in product(STAGES, VARIANCES)}
    for seed in range(networks):
        rng = np.random.default_rng(seed)
        shared, own = rng.standard_normal((width, 1)), rng.standard_normal((width, 2))
        x = dict.fromkeys(points, 0.5 * (math.sqrt(0.7) * shared + math.sqrt(0.3) * own))
        measured = {case: [square_and_signal(x[case])] for case in points}
        for _ in range(depth):
            first, second = (layer(rng, width) for _ in range(2))
            for (stage, variances), values in x.items():
                after = np.tanh(first(values, *variances))
                if stage != "plain":
                    after = values + second(after, *variances)
                after = np.tanh(after) if stage == "bounded" else after
                x[stage, variances] = after
                measured[stage, variances].append(square_and_signal(after))
        for case, found in measured.items():
            points[case].append(found)
    return {case: np.mean(found, axis=0).T for case, found in points.items()}


def layer(rng, width):
    weights, bias = rng.standard_normal((width, width)), rng.standard_normal((width, 1))

    def apply(values, sigma_w2, sigma_b2):
        return math.sqrt(sigma_w2 / width) * (weights @ values) + math.sqrt(sigma_b2) * bias

    return apply


def square_and_signal(x):
    return (x**2).mean(), ((x[:, 0] - x[:, 1]) ** 2).mean() / 2


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("sigma_w2", "sigma_b2"), VARIANCES)
def test_propagation_agrees_with_a_wide_random_network(sigma_w2, sigma_b2, stage):
    squares, signals = wide_networks(depth=12)[stage, (sigma_w2, sigma_b2)]
    found = propagate(
        sigma_w2, sigma_b2, depth=12, mean_square=squares[0], signal=signals[0],
        residual=stage != "plain", bounded=stage == "bounded",
    )  # fmt: skip
    np.testing.assert_allclose(found[0], squares, rtol=0.1)
    np.testing.assert_allclose(found[1], signals, rtol=0.2)


def test_propagation_agrees_with_monte_carlo_integrals():
    rng, size = np.random.default_rng(0), 4_000_000
    z1, z2 = rng.standard_normal((2, size))
    square, signal, sigma_w2, sigma_b2 = 0.4, 0.1, 1.7, 0.05
    q = sigma_w2 * square + sigma_b2
    c = 1 - sigma_w2 * signal / q
    first = np.tanh(math.sqrt(q) * z1)
    second = np.tanh(math.sqrt(q) * (c * z1 + math.sqrt(1 - c * c) * z2))
    after, differing = np.mean(first**2), np.mean((first - second) ** 2) / 2
    start = {"depth": 1, "mean_square": square, "signal": signal}
    squares, signals = propagate(sigma_w2, sigma_b2, **start)
    assert squares[1] == pytest.approx(after, rel=2e-3)
    assert signals[1] == pytest.approx(differing, rel=2e-3)
    squares, signals = propagate(sigma_w2, sigma_b2, residual=True, **start)
    assert squares[1] == pytest.approx(square + sigma_w2 * after + sigma_b2, rel=2e-3)
    assert signals[1] == pytest.approx(signal + sigma_w2 * differing, rel=2e-3)


def test_propagation_ends_at_the_fixed_points():
    squares, signals = propagate(3.0, 0.05, depth=300, mean_square=0.3, signal=0.01)
    q = 3.0 * squares[-1] + 0.05
    assert q == pytest.approx(fixed_point_variance(3.0, 0.05), rel=1e-6)
    c = 1 - 3.0 * signals[-1] / q
    assert c == pytest.approx(fixed_point_correlation(3.0, 0.05), abs=1e-6)


def test_a_signal_in_the_ordered_phase_falls_by_the_susceptibility_at_every_layer():
    _, signals = propagate(0.8, 2e-5, depth=400, mean_square=0.1, signal=0.05)
    assert signals[-1] / signals[-2] == pytest.approx(susceptibility(0.8, 2e-5), rel=1e-6)


@pytest.mark.slow
def test_a_residual_network_never_loses_its_signal_and_grows_linearly():
    squares, signals = propagate(2.0, 0.1, depth=3000, mean_square=0.1, signal=0.01, residual=True)
    assert bool((np.diff(signals) > 0).all())
    # deep down every tanh is saturated: σ_w² + σ_b² a block (Yang & Schoenholz)
    assert squares[-1] - squares[-2] == pytest.approx(2.1, rel=0.05)


def test_a_bounded_block_stays_below_one_and_a_faint_signal_is_followed_exactly():
    squares, _ = propagate(
        6.0, 0.05, depth=100, mean_square=0.5, signal=0.1, residual=True, bounded=True
    )
    assert squares.max() < 1
    start = {"depth": 5, "mean_square": 0.3, "residual": True, "bounded": True}
    _, faint = propagate(0.5, 2e-5, signal=1e-20, **start)
    _, seen = propagate(0.5, 2e-5, signal=1e-10, **start)
    np.testing.assert_allclose(faint / faint[0], seen / seen[0], rtol=1e-4)


def test_a_bounded_propagation_is_the_same_at_every_call():
    start = {"depth": 5, "mean_square": 0.3, "signal": 0.1, "residual": True, "bounded": True}
    assert np.array_equal(propagate(1.5, 0.05, **start), propagate(1.5, 0.05, **start))


@pytest.mark.parametrize(("wrong", "message"), [
    ({"bounded": True}, "bounded is an option of residual blocks"),
    ({"depth": 0}, "depth must be >= 1"),
    ({"signal": 0.3}, "0 <= signal <= mean_square"),
    ({"mean_square": 0, "signal": 0}, "mean_square > 0"),
    ({"mean_square": math.inf}, "mean_square must be a finite number, got inf"),
    ({"activation": "relu"}, "activation must be one of tanh, erf, gelu, got 'relu'"),
])  # fmt: skip
def test_a_propagation_that_makes_no_sense_is_refused(wrong, message):
    arguments = {"depth": 3, "mean_square": 0.2, "signal": 0.1, **wrong}
    with pytest.raises(ValueError, match=message):
        propagate(1.0, 0.05, **arguments)


# --- arguments


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "1.7", None, True, [1.0]])
def test_variances_that_are_none_are_refused_by_name(bad):
    for function in SINGLE:
        with pytest.raises(ValueError, match=r"sigma_w2 must be (a finite number|>= 0), got"):
            function(bad, 0.05)
        with pytest.raises(ValueError, match=r"sigma_b2 must be (a finite number|>= 0), got"):
            function(1.0, bad)
    with pytest.raises(ValueError, match=r"sigma_b2 must be (a finite number|>= 0), got"):
        critical_sigma_w2(bad)


def test_an_unknown_activation_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match=r"tanh, erf, gelu.*got 'tanhh' \(did you mean 'tanh'\?"):
        critical_sigma_w2(0.05, activation="tanhh")
    for function in SINGLE:
        with pytest.raises(ValueError, match=r"got 'Relu' \(did you mean 'relu'\?"):
            function(1.0, 0.05, activation="Relu")
    with pytest.raises(ValueError, match="activation must be a string, got None"):
        critical_sigma_w2(0.05, activation=None)


def test_variances_beyond_the_reach_of_the_quadrature_are_refused():
    with pytest.raises(ValueError, match=r"sigma_w2 = 100\.0.*exceeds 30"):
        correlation_depth(100, 0.05)
    for sigma_b2 in (22.0, 50.0):  # the critical q is 33 and 64
        with pytest.raises(ValueError, match=f"sigma_b2 = {sigma_b2}.*exceeds 30"):
            critical_sigma_w2(sigma_b2)
    assert critical_sigma_w2(19) > 9  # q is 29


def test_numpy_numbers_are_taken():
    assert correlation_depth(np.float64(1.5), np.float32(0)) == correlation_depth(1.5, 0)
    assert type(correlation_depth(np.float64(1.5), 0.05)) is float
    assert type(susceptibility(np.float32(1.5), 0.05)) is float
