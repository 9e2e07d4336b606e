"""Mean-field theory of wide random networks: where they are critical, how deep signals travel.

Everything is a Gaussian integral of the activation φ: over one pre-activation √q z, or over a pair
of them with correlation c. Source of the equations: Schoenholz et al., arXiv:1611.01232.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import erf, ndtr, roots_hermitenorm

from paperlib.core.checks import checked

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

# Activations by their networks' names, with their slopes: (φ, φ′).
SMOOTH: dict[str, tuple[Function, Function]] = {
    "tanh": (np.tanh, lambda u: 1 - np.tanh(u) ** 2),
    "erf": (erf, lambda u: 2 / math.sqrt(math.pi) * np.exp(-u * u)),
    "gelu": (
        lambda u: u * ndtr(u),
        lambda u: ndtr(u) + u * np.exp(-u * u / 2) / math.sqrt(2 * math.pi),
    ),
}
# Activations without a scale, with the σ_w² that keeps every variance: σ_w² ∫Dz φ²(√q z) = q.
HOMOGENEOUS: dict[str, float] = {"relu": 2.0, "linear": 1.0}

# A thousand nodes resolve tanh(√q z), whose poles approach the real line as q grows, to 4 digits up
# to q = 30. Only the 170 that carry weight in float64 are kept, so that double integrals are cheap.
NODES = 1000
NEGLIGIBLE_WEIGHT = 1e-17
# Variances between which fixed points are looked for (from σ_b² on where that is positive), and the
# ratio of the steps: small, because gelu can have two fixed points close to each other.
SMALLEST_VARIANCE = 1e-12
LARGEST_VARIANCE = 30.0
VARIANCE_STEP = 1.25
# Neurons that are followed through residual blocks whose sum passes an activation.
PAIRS = 2**15
# |χ₁ − 1| below which a network counts as exactly critical: rounding hides what is finer.
CRITICAL_TOLERANCE = 1e-8


def critical_sigma_w2(sigma_b2: float, *, activation: str = "tanh") -> float:
    """Return the weight variance σ_w² at which χ₁ = 1, between the ordered and the chaotic phase.

    The critical line is solved along its own variance q, where both coordinates are explicit:
    σ_w² = 1/∫Dz φ′² and σ_b² = q − σ_w² ∫Dz φ². relu (2) and linear (1) have χ₁ = 1 there for
    every σ_b², but no finite variance unless σ_b² = 0. For gelu and σ_b² < 0.17 the critical q
    repels: small variances stay below it, in the ordered phase, and larger ones leave it upwards.

    Example:
        >>> from paperlib import critical_sigma_w2
        >>> critical_sigma_w2(0.0), critical_sigma_w2(0.05, activation="relu")
        (1.0, 2.0)
        >>> round(critical_sigma_w2(0.05), 2)
        1.76

    Args:
        sigma_b2: bias variance σ_b² >= 0.
        activation: tanh, erf, gelu, relu or linear.

    Raises:
        ValueError: an argument is not valid, or so large that the critical q exceeds 30.

    Source: arXiv:1611.01232, section 3.
    """
    sigma_b2 = _variance("sigma_b2", sigma_b2)
    _check_activation(activation)
    if activation in HOMOGENEOUS:
        return HOMOGENEOUS[activation]
    phi, slope = SMOOTH[activation]
    if sigma_b2 == 0:
        return 1 / float(slope(np.zeros(1))[0]) ** 2

    if sigma_b2 > LARGEST_VARIANCE:
        raise _beyond_reach(f"sigma_b2 = {sigma_b2!r}")

    def excess(q: float) -> float:
        return q - _mean_square(phi, q) / _mean_square(slope, q) - sigma_b2

    q = _first_crossing(excess, start=sigma_b2)
    if math.isinf(q):
        raise _beyond_reach(f"sigma_b2 = {sigma_b2!r}")
    return 1 / _mean_square(slope, q)


def correlation_depth(sigma_w2: float, sigma_b2: float, *, activation: str = "tanh") -> float:
    """Return the correlation depth ξ_c in layers: how deep two inputs stay distinguishable.

    ξ_c = −1/ln χ at the correlation's fixed point c*. inf at criticality, and for relu and linear
    wherever χ₁ >= 1: correlations then converge slower than exponentially, or not at all, although
    variances grow. Networks train down to about 6 ξ_c.

    Example:
        >>> from paperlib import correlation_depth, critical_sigma_w2
        >>> round(correlation_depth(1.5, 0.05), 1)
        15.8
        >>> correlation_depth(1.5, 0.05) < correlation_depth(1.7, 0.05)  # nearer to criticality
        True
        >>> correlation_depth(critical_sigma_w2(0.05), 0.05)
        inf

    Args:
        sigma_w2: weight variance σ_w² >= 0 (per fan-in).
        sigma_b2: bias variance σ_b² >= 0.
        activation: tanh, erf, gelu, relu or linear.

    Raises:
        ValueError: an argument is not valid, or as in `fixed_point_variance` too large.

    Source: arXiv:1611.01232, equation 9.
    """
    chi = susceptibility(sigma_w2, sigma_b2, activation=activation)
    if chi == 0:
        return 0.0
    q = fixed_point_variance(sigma_w2, sigma_b2, activation=activation)
    if chi > 1 + CRITICAL_TOLERANCE and activation in SMOOTH and math.isfinite(q):
        distance = _fixed_point_distance(sigma_w2, q, SMOOTH[activation][0])
        first, second = _pair(q, distance)
        slope = SMOOTH[activation][1]
        chi = sigma_w2 * _mean_2d(slope(first) * slope(second))
    return -1 / math.log(chi) if chi < 1 - CRITICAL_TOLERANCE else math.inf


def fixed_point_variance(sigma_w2: float, sigma_b2: float, *, activation: str = "tanh") -> float:
    """Return the variance q* of the pre-activations deep in the network (no unit).

    The first fixed point that a growing variance reaches; 0 where a small signal dies out
    (σ_b² = 0, ordered phase), inf where the variance grows without bound, and NaN where every
    variance is a fixed point (relu at σ_w² = 2, linear at 1, both with σ_b² = 0).

    Example:
        >>> from paperlib.meanfield import fixed_point_variance
        >>> fixed_point_variance(0.9, 0.0)  # ordered: a small signal dies out
        0.0
        >>> round(fixed_point_variance(1.7, 0.05), 2)
        0.53

    Args:
        sigma_w2: weight variance σ_w² >= 0 (per fan-in).
        sigma_b2: bias variance σ_b² >= 0.
        activation: tanh, erf, gelu, relu or linear.

    Raises:
        ValueError: an argument is not valid, or so large that a finite q* exceeds 30 (not for relu
            and linear).

    Source: arXiv:1611.01232, equation 3.
    """
    sigma_w2, sigma_b2 = (
        _variance("sigma_w2", sigma_w2),
        _variance("sigma_b2", sigma_b2),
    )
    _check_activation(activation)
    if activation in HOMOGENEOUS:
        return _homogeneous_variance(sigma_w2 / HOMOGENEOUS[activation], sigma_b2)
    phi, _ = SMOOTH[activation]

    def decay(q: float) -> float:
        return q - sigma_w2 * _mean_square(phi, q) - sigma_b2

    start = sigma_b2 or SMALLEST_VARIANCE
    if decay(start) >= 0:
        return sigma_b2
    q = _first_crossing(decay, start=start)
    if math.isinf(q) and not (activation == "gelu" and sigma_w2 >= HOMOGENEOUS["relu"]):
        raise _beyond_reach(f"sigma_w2 = {sigma_w2!r}, sigma_b2 = {sigma_b2!r}")
    return q


def susceptibility(sigma_w2: float, sigma_b2: float, *, activation: str = "tanh") -> float:
    """Return χ₁, the factor by which a layer multiplies a small squared difference of inputs.

    χ₁ = σ_w² ∫Dz φ′²(√q* z): below 1 ordered, above 1 chaotic. It is σ_w²/2 for relu, σ_w² for
    linear, and its limit σ_w²/2 for gelu where q* is inf.

    Example:
        >>> from paperlib.meanfield import susceptibility
        >>> susceptibility(1.2, 0.05) < 1 < susceptibility(2.5, 0.05)  # ordered and chaotic
        True

    Args:
        sigma_w2: weight variance σ_w² >= 0 (per fan-in).
        sigma_b2: bias variance σ_b² >= 0.
        activation: tanh, erf, gelu, relu or linear.

    Raises:
        ValueError: an argument is not valid, or as in `fixed_point_variance` too large.

    Source: arXiv:1611.01232, equation 5.
    """
    q = fixed_point_variance(sigma_w2, sigma_b2, activation=activation)
    if activation in HOMOGENEOUS:
        return float(sigma_w2) / HOMOGENEOUS[activation]
    if math.isinf(q):  # only gelu grows without bound, and it then acts as relu does
        return float(sigma_w2) / HOMOGENEOUS["relu"]
    return float(sigma_w2) * _mean_square(SMOOTH[activation][1], q)


def fixed_point_correlation(sigma_w2: float, sigma_b2: float, *, activation: str = "tanh") -> float:
    """Return the correlation c* in [0, 1] that any two different inputs reach deep in the network.

    1 unless the network is chaotic with a finite q*; so always 1 for relu and linear (where a
    linear network without bias in fact keeps every correlation).

    Example:
        >>> from paperlib.meanfield import fixed_point_correlation
        >>> fixed_point_correlation(1.2, 0.05)  # ordered: all inputs become parallel
        1.0
        >>> 0 < fixed_point_correlation(3.0, 0.05) < 1  # chaotic
        True

    Args:
        sigma_w2: weight variance σ_w² >= 0 (per fan-in).
        sigma_b2: bias variance σ_b² >= 0.
        activation: tanh, erf, gelu, relu or linear.

    Raises:
        ValueError: an argument is not valid, or as in `fixed_point_variance` too large.

    Source: arXiv:1611.01232, equation 4.
    """
    chi = susceptibility(sigma_w2, sigma_b2, activation=activation)
    q = fixed_point_variance(sigma_w2, sigma_b2, activation=activation)
    if chi <= 1 + CRITICAL_TOLERANCE or activation in HOMOGENEOUS or math.isinf(q):
        return 1.0
    return 1 - _fixed_point_distance(float(sigma_w2), q, SMOOTH[activation][0])


def propagate(
    sigma_w2: float,
    sigma_b2: float,
    *,
    depth: int,
    mean_square: float,
    signal: float,
    activation: str = "tanh",
    residual: bool = False,
    bounded: bool = False,
) -> tuple[Array, Array]:
    """Return the mean square of the activations and their signal, before and after each stage.

    The signal is the part of the mean square that two inputs do not share, half the mean square of
    their difference; so their correlation is 1 − signal / mean square. A stage is one layer, or
    with `residual` x + W₂ φ(W₁ x + b₁) + b₂, both weights drawn with σ_w² and both biases with
    σ_b², or with `bounded` too φ of that sum, as published. Convolutions follow the same equations
    away from the border (Xiao et al. 2018).

    In a `bounded` block x is no Gaussian. There the pairs (x, x′) of 2¹⁵ neurons are followed, with
    a Gaussian draw for f(x) at every block, the same at every call; the first pairs are taken to be
    Gaussian. The sampling error of a mean square is about 1%.

    Example:
        >>> from paperlib.meanfield import propagate
        >>> squares, signals = propagate(1.2, 0.05, depth=20, mean_square=0.1, signal=0.1)
        >>> correlations = 1 - signals / squares  # ordered: from 0 towards 1
        >>> squares.shape, float(correlations[0]), bool(correlations[-1] > 0.9)
        ((21,), 0.0, True)

    Args:
        sigma_w2: weight variance σ_w² >= 0 (per fan-in).
        sigma_b2: bias variance σ_b² >= 0.
        depth: number of stages, at least 1.
        mean_square: of the values that enter the first stage, > 0.
        signal: in them, between 0 and their mean square.
        activation: tanh, erf or gelu.
        residual: whether the stages are residual blocks.
        bounded: whether the activation follows a block's sum.

    Returns:
        two arrays (depth + 1,), without a unit.

    Raises:
        ValueError: an argument is not valid; the message names it.

    Source: arXiv:1611.01232, equations 3 and 4; residual: Yang & Schoenholz, arXiv:1712.08969,
    section 4.2; bounded: the block of arXiv:2406.12916.
    """
    sigma_w2, sigma_b2 = _variance("sigma_w2", sigma_w2), _variance("sigma_b2", sigma_b2)
    mean_square, signal = _variance("mean_square", mean_square), _variance("signal", signal)
    if activation not in SMOOTH:
        raise ValueError(f"activation must be one of {', '.join(SMOOTH)}, got {activation!r}")
    if depth < 1 or not 0 <= signal <= mean_square or not mean_square:
        raise ValueError(
            "depth must be >= 1, and 0 <= signal <= mean_square > 0; "
            f"got depth {depth!r}, signal {signal!r}, mean_square {mean_square!r}"
        )
    if bounded and not residual:
        raise ValueError("bounded is an option of residual blocks; a layer ends in φ anyway")
    pairs = _Pairs(mean_square, signal) if bounded else None
    points = [(mean_square, signal)]
    for _ in range(depth):
        after, differing = _layer(sigma_w2, sigma_b2, mean_square, signal, activation)
        if pairs:
            variance = sigma_w2 * after + sigma_b2
            mean_square, signal = pairs.block(variance, sigma_w2 * differing, SMOOTH[activation][0])
        elif residual:
            mean_square += sigma_w2 * after + sigma_b2
            signal += sigma_w2 * differing
        else:
            mean_square, signal = after, differing
        points.append((mean_square, signal))
    squares, signals = np.array(points).T
    return squares, signals


def _layer(
    sigma_w2: float, sigma_b2: float, mean_square: float, signal: float, activation: str
) -> tuple[float, float]:
    """Mean square and signal of φ(W x + b) for those of x."""
    phi, slope = SMOOTH[activation]
    q = sigma_w2 * mean_square + sigma_b2
    distance = sigma_w2 * signal / q if q else 0.0
    after = _mean_square(phi, q)
    if distance < CRITICAL_TOLERANCE:  # to first order: rounding would hide the difference
        return after, q * distance * _mean_square(slope, q)
    first, second = _pair(q, distance)
    return after, _mean_2d((phi(first) - phi(second)) ** 2) / 2


class _Pairs:
    """Two inputs' activations of many neurons, followed through φ(x + f(x))."""

    def __init__(self, mean_square: float, signal: float) -> None:
        self._draws = np.random.default_rng(0)
        self._middle, self._apart = self._gaussian(mean_square, signal)

    def block(self, variance: float, signal: float, phi: Function) -> tuple[float, float]:
        """Mean square and signal after a block whose f(x) has this variance and signal."""
        middle, apart = self._gaussian(variance, signal)
        middle, apart = self._middle + middle, self._apart + apart
        first, second = phi(middle + apart), phi(middle - apart)
        self._middle, self._apart = (first + second) / 2, (first - second) / 2
        # half the mean square of the difference 2 · apart
        return float(np.mean(first**2 + second**2)) / 2, 2 * float(np.mean(self._apart**2))

    def _gaussian(self, variance: float, signal: float) -> tuple[Array, Array]:
        """Half the sum and half the difference of Gaussian pairs, of exactly these moments."""
        shared, own = self._draws.standard_normal((2, PAIRS))
        shared /= math.sqrt(np.mean(shared**2))
        own /= math.sqrt(np.mean(own**2))
        return math.sqrt(variance - signal / 2) * shared, math.sqrt(signal / 2) * own


def _homogeneous_variance(gain: float, sigma_b2: float) -> float:
    """Fixed point of q = gain · q + σ_b², as `fixed_point_variance` documents it."""
    if gain == 1 and sigma_b2 == 0:
        return math.nan
    return sigma_b2 / (1 - gain) if gain < 1 else math.inf


def _fixed_point_distance(sigma_w2: float, q: float, phi: Function) -> float:
    """1 − c* in the chaotic phase.

    Solved for the distance, not for c*, from E[(φ(u₁) − φ(u₂))²]: near criticality c* differs
    from 1 by less than the correlation map itself can be computed to.
    """

    def growth(distance: float) -> float:
        first, second = _pair(q, distance)
        difference = phi(first) - phi(second)
        return sigma_w2 * _mean_2d(difference * difference) / (2 * q * distance) - 1

    if growth(1.0) >= 0:  # without biases and for odd φ, different inputs become orthogonal
        return 1.0
    return float(brentq(growth, CRITICAL_TOLERANCE / 100, 1.0, xtol=1e-15, rtol=1e-11))


def _first_crossing(function: Callable[[float], float], *, start: float) -> float:
    """First root above `start`, where `function` is negative; inf if none is within reach."""
    low, high = start, VARIANCE_STEP * start
    while function(high) < 0:
        if high > LARGEST_VARIANCE:
            return math.inf
        low, high = high, VARIANCE_STEP * high
    root = float(brentq(function, low, high, xtol=1e-300, rtol=1e-14))
    return root if root <= LARGEST_VARIANCE else math.inf


@functools.lru_cache(maxsize=2)
def quadrature(negligible: float = NEGLIGIBLE_WEIGHT) -> tuple[Array, Array]:
    """Return points and weights of the standard normal average ∫Dz (Gauss–Hermite).

    Example:
        >>> from paperlib.meanfield import quadrature
        >>> points, weights = quadrature()
        >>> round(float(weights @ points**4), 6)
        3.0

    Args:
        negligible: weights below it are left out. Where a function grows as fast as high Hermite
            polynomials do, the points far out count too, and it must be smaller.
    """
    points, weights = roots_hermitenorm(NODES)
    weights = weights / weights.sum()
    kept = weights > negligible
    return points[kept], weights[kept]


def _mean_square(function: Function, q: float) -> float:
    """∫Dz f²(√q z)."""
    points, weights = quadrature()
    return float(weights @ function(math.sqrt(q) * points) ** 2)


def _pair(q: float, distance: float) -> tuple[Array, Array]:
    """Two pre-activations of variance q and correlation 1 − distance, on the grid of nodes."""
    points, _ = quadrature()
    first = math.sqrt(q) * points[:, None]
    other = math.sqrt(q * distance * (2 - distance)) * points[None, :]
    return first, (1 - distance) * first + other


def _mean_2d(values: Array) -> float:
    """∫∫Dz₁Dz₂ of a function given on the grid of nodes."""
    _, weights = quadrature()
    return float(weights @ values @ weights)


def _beyond_reach(given: str) -> ValueError:
    return ValueError(
        f"the variance at {given} exceeds {LARGEST_VARIANCE:g}, "
        "beyond which the quadrature is not accurate: choose smaller variances"
    )


def _variance(name: str, value: float) -> float:
    """`value` as a float, or a ValueError that says what a variance must be."""
    return float(checked(name, value, float, low=0))


def _check_activation(name: str) -> None:
    known = [*SMOOTH, *HOMOGENEOUS]
    checked("activation", name, str, choices=known)
