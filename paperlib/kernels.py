"""Infinitely wide networks as kernels: what they are at initialisation, and what training makes.

A network whose layers are infinitely wide is a Gaussian process (its NNGP kernel), and gradient
descent on all of its weights is kernel regression with another, fixed kernel (its NTK). Both follow
layer by layer from Gaussian averages of the activation φ and its slope over two pre-activations
with a 2 × 2 covariance. These are closed forms for relu, erf and gelu, and a series for tanh.

Weights are N(0, σ_w²/fan-in) and biases N(0, σ_b²), as `initialise` draws them. The NTK is that of
the NTK parameterisation: what is trained are standard normal numbers, which σ_w/√fan-in and σ_b
multiply. Gradient descent at the rate η in it is the usual one with the rates η σ_w²/fan-in for
weights and η σ_b² for biases.

Source: Lee et al., arXiv:2007.15801; Jacot et al., arXiv:1806.07572.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, eigh

from paperlib.core.checks import checked
from paperlib.meanfield import HOMOGENEOUS, SMOOTH, quadrature

Array = NDArray[np.float64]
ACTIVATIONS = (*HOMOGENEOUS, *SMOOTH)

# Of the Hermite series: the share of the mean square that may be missing, the most terms, and the
# weights that count, because Hermite polynomials grow as fast as the roots of those shrink.
MISSING = 1e-13
TERMS = 600
NEGLIGIBLE_WEIGHT = 1e-40
BLOCK = 2**15  # numbers that pass through the series at a time: they stay in the cache


class Kernels(NamedTuple):
    """What is known of an infinitely wide network that ends here, for all pairs of images.

    Attributes:
        activations: (n, n), the mean product of two images' activations.
        nngp: (n, n), the covariance of the outputs of a linear layer that reads them.
        ntk: (n, n), the tangent kernel of those outputs; None where it was not wanted.
    """

    activations: Array
    nngp: Array
    ntk: Array | None


def mlp_kernels(
    images: ArrayLike,
    *,
    depth: int,
    sigma_w2: float,
    sigma_b2: float,
    activation: str = "tanh",
    residual: bool = False,
    ntk: bool = True,
) -> Iterator[Kernels]:
    """Yield the kernels of an infinitely wide MLP read at level 0, the pixels, 1, …, `depth`.

    Example:
        >>> import numpy as np
        >>> from paperlib.kernels import mlp_kernels
        >>> images = np.random.default_rng(0).random((5, 64))
        >>> levels = list(mlp_kernels(images, depth=3, sigma_w2=1.7, sigma_b2=0.05))
        >>> len(levels), levels[3].nngp.shape
        (4, (5, 5))
        >>> together = [level.nngp[0, 1] / level.nngp.diagonal()[:2].mean() for level in levels]
        >>> bool(together[3] > together[1])  # ordered: images become more alike with depth
        True

    Args:
        images: (n, *image), flattened.
        depth: number of stages, at least 1.
        sigma_w2: weight variance σ_w² >= 0 (times fan-in).
        sigma_b2: bias variance σ_b² >= 0.
        activation: tanh, erf, relu, gelu or linear.
        residual: stages after the first are x + W₂ φ(W₁ x + b₁) + b₂. Blocks whose sum passes φ
            have no closed form: their x is no Gaussian.
        ntk: whether the tangent kernels are wanted; they double the time.

    Raises:
        ValueError: an argument is not valid; the message names it.

    Source: arXiv:2007.15801, appendix; residual: arXiv:1712.08969.
    """
    given = np.asarray(images, float)
    flat = given.reshape(len(given), -1)
    start = flat @ flat.T / flat.shape[1]
    stack = _Stack(sigma_w2, sigma_b2, activation, lambda field: field, _variances)
    return _levels(stack, start, lambda field: field, depth, residual, ntk)


def cnn_kernels(
    images: ArrayLike,
    *,
    depth: int,
    sigma_w2: float,
    sigma_b2: float,
    activation: str = "tanh",
    pooling: bool = False,
    residual: bool = False,
    ntk: bool = True,
) -> Iterator[Kernels]:
    """Yield the kernels of a CNN of infinitely many channels read at level 0, …, `depth`.

    Its convolutions are 3×3 with circular padding, and a linear layer reads all positions, or with
    `pooling` their mean. Covariances of all pairs of positions are n² · (pixels)² numbers with
    pooling and n² · pixels without: this is for tens of small images.

    Example:
        >>> import numpy as np
        >>> from paperlib.kernels import cnn_kernels
        >>> images = np.random.default_rng(0).random((4, 1, 6, 6))
        >>> *_, last = cnn_kernels(images, depth=3, sigma_w2=1.7, sigma_b2=0.05, pooling=True)
        >>> last.nngp.shape, bool(np.linalg.eigvalsh(last.ntk).min() > 0)
        ((4, 4), True)

    Args:
        images: (n, channels, height, width).
        depth: number of convolutions, or with `residual` one and blocks of two; at least 1.
        sigma_w2: weight variance σ_w² >= 0 (times fan-in).
        sigma_b2: bias variance σ_b² >= 0.
        activation: tanh, erf, relu, gelu or linear.
        pooling: the last layer reads the mean over positions.
        residual: as of `mlp_kernels`.
        ntk: whether the tangent kernels are wanted.

    Raises:
        ValueError: an argument is not valid; the message names it.

    Source: Novak et al., arXiv:1810.05148; Arora et al., arXiv:1904.11955.
    """
    given = np.asarray(images, float)
    if given.ndim != 4:
        raise ValueError(f"images must be (n, channels, height, width), got {given.shape}")
    channels = given.shape[1]
    if pooling:
        start = np.einsum("nchw,mcij->nmhwij", given, given) / channels
        window, variances = _windows((2, 3), (4, 5)), _field_variances
    else:
        start = np.einsum("nchw,mchw->nmhw", given, given) / channels
        window, variances = _windows((2, 3)), _position_variances
    stack = _Stack(sigma_w2, sigma_b2, activation, window, variances)
    return _levels(stack, start, _over_positions, depth, residual, ntk)


def mean_product(
    covariance: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    activation: str = "tanh",
    slopes: bool = False,
) -> Array:
    """Return E[φ(u) φ(v)], or with `slopes` E[φ′(u) φ′(v)], of Gaussian pairs with mean 0.

    Closed forms for relu, erf, gelu and linear. For tanh the series Σ_j a_j(q) a_j(q′) c^j in the
    correlation c, whose coefficients are Hermite's; it has as many terms as the largest variance
    needs, and errors below 1e-10 up to variances of 8.

    Example:
        >>> from paperlib.kernels import mean_product
        >>> round(float(mean_product(1.0, 1.0, 1.0, activation="relu")), 6)  # half of E[u²]
        0.5
        >>> round(float(mean_product(0.0, 1.0, 1.0, activation="tanh")), 6)
        0.0

    Args:
        covariance: of u and v, of any shape.
        first: variance of u, of a shape that broadcasts to that.
        second: variance of v, likewise.
        activation: tanh, erf, relu, gelu or linear.
        slopes: of the slopes instead.

    Raises:
        ValueError: an unknown activation.

    Source: relu: Cho & Saul 2009; erf: Williams 1997; gelu: Tsuchida et al., arXiv:2002.08517.
    """
    checked("activation", activation, str, choices=ACTIVATIONS)
    k, q, p = (np.asarray(values, float) for values in (covariance, first, second))
    if activation == "linear":
        return np.ones_like(k) if slopes else k
    if activation in _CLOSED:
        return _CLOSED[activation](k, q, p)[int(slopes)]()
    return _series(k, q, p, SMOOTH[activation][int(slopes)])


def regress(within: Array, across: Array, targets: Array, *, ridge: float = 0.0) -> Array:
    """Return the predictions of kernel ridge regression: across (within + ridge)⁻¹ targets.

    Example:
        >>> import numpy as np
        >>> from paperlib.kernels import regress
        >>> kernel, targets = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[1.0], [-1.0]])
        >>> regress(kernel, kernel, targets).round(6).tolist()  # without a ridge it interpolates
        [[1.0], [-1.0]]

    Args:
        within: (n, n), the kernel of the training images.
        across: (m, n), of other images with these.
        targets: (n, outputs).
        ridge: added to the diagonal, >= 0, in units of the kernel.

    Returns:
        (m, outputs).

    Raises:
        numpy.linalg.LinAlgError: a kernel with that ridge is not positive definite.
    """
    ridge = checked("ridge", ridge, float, low=0)
    factor = cho_factor(within + ridge * np.eye(len(within)), lower=True, overwrite_a=True)
    return across @ cho_solve(factor, targets)


def descend(within: Array, across: Array, targets: Array, *, rate: float, steps: int) -> Array:
    """Return the predictions after so many steps of gradient descent from 0, with the NTK given.

    The loss is half the mean over images of the squared distance to the targets, summed over
    outputs. Along an eigenvector of eigenvalue λ a step shrinks it by 1 − rate λ/n.

    Example:
        >>> import numpy as np
        >>> from paperlib.kernels import descend
        >>> kernel, targets = np.diag([2.0, 1.0]), np.array([[1.0], [1.0]])
        >>> descend(kernel, kernel, targets, rate=1.0, steps=1).tolist()
        [[1.0], [0.5]]

    Args:
        within: (n, n), the kernel of the training images.
        across: (m, n), of other images with these.
        targets: (n, outputs).
        rate: > 0; stable below 2n/λ₁.
        steps: number of steps, 0 or more.

    Returns:
        (m, outputs).
    """
    rate, steps = checked("rate", rate, float, above=0), checked("steps", steps, int, low=0)
    values, vectors = eigh(within)
    values = values.clip(min=0.0)
    left = (1 - rate * values / len(values)) ** steps
    # where rounding has made an eigenvalue 0, its limit
    filters = np.full_like(values, rate * steps / len(values))
    np.divide(1 - left, values, out=filters, where=values > 1e-12 * values[-1])
    return across @ (vectors * filters @ (vectors.T @ targets))


class _Stack(NamedTuple):
    """Layers of one kind, over images or over fields of them."""

    sigma_w2: float
    sigma_b2: float
    activation: str
    window: Callable[[Array], Array]  # the mean over what a neuron sees
    variances: Callable[[Array], tuple[Array, Array]]

    def affine(self, covariance: Array) -> Array:
        """Covariance of W x + b for that of x."""
        return self.sigma_w2 * self.window(covariance) + self.sigma_b2

    def layer(self, covariance: Array, tangent: Array | None) -> tuple[Array, Array | None]:
        """Covariance and tangent kernel of φ(W x + b) for those of x."""
        pre = self.affine(covariance)
        pair = (pre, *self.variances(pre))
        after = mean_product(*pair, activation=self.activation)
        if tangent is None:
            return after, None
        slopes = mean_product(*pair, activation=self.activation, slopes=True)
        return after, (pre + self.sigma_w2 * self.window(tangent)) * slopes

    def block(self, covariance: Array, tangent: Array | None) -> tuple[Array, Array | None]:
        """The same of x + W₂ φ(W₁ x + b₁) + b₂."""
        inner, moved = self.layer(covariance, tangent)
        added = self.affine(inner)
        if tangent is None or moved is None:
            return covariance + added, None
        return covariance + added, tangent + added + self.sigma_w2 * self.window(moved)


def _levels(
    stack: _Stack,
    covariance: Array,
    read: Callable[[Array], Array],
    depth: int,
    residual: bool,
    ntk: bool,
) -> Iterator[Kernels]:
    """The kernels level by level; all arguments are checked before the first."""
    depth = checked("depth", depth, int, low=1)
    for name in ("sigma_w2", "sigma_b2"):
        checked(name, getattr(stack, name), float, low=0)
    checked("activation", stack.activation, str, choices=ACTIVATIONS)
    if not np.isfinite(covariance).all():
        raise ValueError("images must hold finite numbers only; got NaN or infinity")

    def levels() -> Iterator[Kernels]:
        here: Array = covariance
        tangent: Array | None = np.zeros_like(covariance) if ntk else None
        for level in range(depth + 1):
            if level:
                step = stack.block if residual and level > 1 else stack.layer
                here, tangent = step(here, tangent)
            seen = read(here)
            nngp = stack.sigma_w2 * seen + stack.sigma_b2
            whole = None if tangent is None else nngp + stack.sigma_w2 * read(tangent)
            yield Kernels(seen, nngp, whole)

    return levels()


def _variances(covariance: Array) -> tuple[Array, Array]:
    """Those of all pairs of images, (n, 1) and (1, n), from their covariance."""
    own = np.diagonal(covariance)
    return own[:, None], own[None, :]


def _position_variances(covariance: Array) -> tuple[Array, Array]:
    own = np.einsum("nnhw->nhw", covariance)
    return own[:, None], own[None, :]


def _field_variances(covariance: Array) -> tuple[Array, Array]:
    own = np.einsum("nnhwhw->nhw", covariance)
    return own[:, None, :, :, None, None], own[None, :, None, None, :, :]


def _windows(*planes: tuple[int, int]) -> Callable[[Array], Array]:
    """The mean over a 3×3 window that moves in all of these pairs of axes together."""
    axes = sum(planes, ())
    shifts = [(down, right) * len(planes) for down in (-1, 0, 1) for right in (-1, 0, 1)]

    def mean(field: Array) -> Array:
        moved: Any = sum(np.roll(field, shift, axes) for shift in shifts)
        return moved / len(shifts)

    return mean


def _over_positions(field: Array) -> Array:
    return field.mean(tuple(range(2, field.ndim)))


# --- Gaussian averages


Pair = tuple[Callable[[], Array], Callable[[], Array]]  # of values, of slopes


def _relu(k: Array, q: Array, p: Array) -> Pair:
    size = np.sqrt(q * p)
    # by both legs: near parallel images arccos would lose half of the digits
    leg = np.sqrt(np.maximum((size - k) * (size + k), 0.0))
    angle = np.arctan2(leg, k)
    return (
        lambda: (leg + (math.pi - angle) * k) / (2 * math.pi),
        lambda: (math.pi - angle) / (2 * math.pi),
    )


def _erf(k: Array, q: Array, p: Array) -> Pair:
    size = (1 + 2 * q) * (1 + 2 * p)
    return (
        lambda: 2 / math.pi * np.arcsin(2 * k / np.sqrt(size)),
        lambda: 4 / math.pi / np.sqrt(size - 4 * k * k),
    )


def _gelu(k: Array, q: Array, p: Array) -> Pair:
    """By integrating E[u v Φ(u) Φ(v)] by parts, and by its derivative with respect to k."""
    size = (1 + q) * (1 + p)
    rest = size - k * k
    both = 0.25 + np.arcsin(k / np.sqrt(size)) / (2 * math.pi)  # E[Φ(u) Φ(v)]
    density = 1 / (2 * math.pi * np.sqrt(rest))
    share = 1 / (1 + q) + 1 / (1 + p) - 1
    product = q * p + k * k * share
    return (
        lambda: k * both + product * density,
        lambda: both + (k + 2 * k * share + product * k / rest) * density,
    )


_CLOSED: dict[str, Callable[[Array, Array, Array], Pair]] = {
    "relu": _relu,
    "erf": _erf,
    "gelu": _gelu,
}


def _series(k: Array, q: Array, p: Array, function: Callable[[Array], Array]) -> Array:
    """Σ_j a_j(q) a_j(p) c^j, in blocks of the first axis."""
    shapes = k.shape, q.shape, p.shape
    k, q, p = np.atleast_1d(k), np.atleast_1d(q), np.atleast_1d(p)
    terms = _terms(max(q.max(), p.max()), function)
    left, right = (_coefficients(values, function, terms) for values in (q, p))
    size = np.sqrt(q * p)
    c = np.divide(k, size, out=np.zeros(np.broadcast(k, size).shape), where=size > 0)
    np.clip(c, -1, 1, out=c)
    found = np.empty_like(c)
    rows = max(1, BLOCK * len(c) // c.size)
    for begin in range(0, len(c), rows):
        part = slice(begin, begin + rows)
        sides = [side[:, part] if side.shape[1] > 1 else side for side in (left, right)]
        found[part] = _sum(c[part], *sides)
    return found.reshape(np.broadcast_shapes(*shapes))


def _sum(c: Array, left: Array, right: Array) -> Array:
    """Σ_j left_j right_j c^j; where every other coefficient is 0, by c² in one step."""
    steps = [
        j for j in range(len(left)) if np.abs(left[j]).max() > 0 and np.abs(right[j]).max() > 0
    ]
    total, term, power, at = np.zeros_like(c), np.empty_like(c), np.ones_like(c), 0
    square = c * c
    for j in steps:
        while at < j:
            jump = 2 if j - at > 1 else 1
            power *= square if jump == 2 else c
            at += jump
        np.multiply(power, left[j], out=term)
        term *= right[j]
        total += term
    return total


def _terms(variance: float, function: Callable[[Array], Array]) -> int:
    """As many coefficients as hold the whole mean square of f(√q z)."""
    points, weights = quadrature(NEGLIGIBLE_WEIGHT)
    whole = float(weights @ function(math.sqrt(variance) * points) ** 2)
    found = _coefficients(np.array([variance]), function, TERMS)[:, 0]
    missing = whole - np.cumsum(found**2)
    enough = np.flatnonzero(missing <= MISSING * whole)
    return int(enough[0]) + 1 if len(enough) else TERMS


def _coefficients(variances: Array, function: Callable[[Array], Array], terms: int) -> Array:
    """a_j = ∫Dz f(√q z) h_j(z) for the normalised Hermite polynomials h_j, (terms, *variances)."""
    points, weights = quadrature(NEGLIGIBLE_WEIGHT)
    values = function(np.sqrt(variances.ravel())[:, None] * points) * weights
    found = np.empty((terms, variances.size))
    before, here = np.zeros_like(points), np.ones_like(points)
    for j in range(terms):
        found[j] = values @ here
        following = (points * here - math.sqrt(j) * before) / math.sqrt(j + 1)
        before, here = here, following
    # the series of an odd or even function holds every other term
    odd = [np.abs(found[start::2]).max(initial=0.0) for start in (0, 1)]
    for start in (0, 1):
        if odd[start] < 1e-14 * odd[1 - start]:
            found[start::2] = 0.0
    return found.reshape(terms, *variances.shape)
