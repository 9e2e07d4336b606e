"""How many bits activations hold about inputs and labels, at a resolution that is always stated.

A network without noise has no mutual information of its own with its input: for N different inputs
it is log2 N, or infinite. What is measured is the information of activations that were made coarse,
by bins (`widths`, `edges`, `ranges`, `quantiles`, `patterns`, then `information`), or by noise
(`noisy`, `gaussian_channel`). All is in bits; activations are (…, n, neurons), one row an input.

Source: arXiv:1703.00810 and ICLR 2018, OpenReview ry_WPG-A- (bins), Kolchinsky & Tracey,
arXiv:1706.02419 (pairwise bounds), arXiv:2106.12912 (quantiles).
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from paperlib.core.checks import checked

Array = NDArray[Any]
OUTSIDE = 0.01  # share of activations beyond the outer edges from which bins are refused
_NEGLIGIBLE = -21.0  # logarithm of a term that its sum, at least 1, does not notice
_FARTHEST = 2**62  # number of a bin
_HASHING = 0x5EED  # of the odd numbers that rows of symbols are multiplied by


def widths(values: Array, width: float, *, shift: float = 0.0) -> Array:
    """Return the number of each activation's bin; one bin ends at `shift` and the next begins.

    Args:
        values: (…, n, neurons).
        width: of every bin, in units of the activations.
        shift: half a width puts 0 into the middle of a bin. With an edge at 0 a symmetric signal
            has a bit however small it is.
    """
    width = checked("width", width, float, above=0)
    return np.floor((values - shift) / width).clip(-_FARTHEST, _FARTHEST).astype(np.int64)


def edges(values: Array, limits: Array) -> Array:
    """Return the number of each activation's bin between fixed edges; what is beyond the outer
    edges is added to the outer bins.

    Example:
        >>> import numpy as np
        >>> from paperlib.measures.information import edges
        >>> edges(np.array([[-0.9, 0.1, 1.0]]), np.linspace(-1, 1, 4)).tolist()
        [[0, 1, 2]]

    Args:
        values: (…, n, neurons).
        limits: (bins + 1,), increasing.

    Raises:
        ValueError: more than 1% of the activations are outside. They would share one symbol, which
            looks like compression; take `widths`.
    """
    outside = share_outside(values, limits)
    if outside > OUTSIDE:
        raise ValueError(
            f"{outside:.0%} of the activations are outside of the bins from {limits[0]:g} to "
            f"{limits[-1]:g}, and would share one symbol, which looks like compression; expected "
            f"at most {OUTSIDE:.0%}: take bins of a fixed width, or of the activations' own range"
        )
    return np.clip(np.searchsorted(limits, values, side="right") - 1, 0, len(limits) - 2)


def share_outside(values: Array, limits: Array) -> float:
    """Return the share of activations beyond the first and the last of some edges."""
    return float(((values < limits[0]) | (values > limits[-1])).mean())


def ranges(values: Array, bins: int, low: Array | float, high: Array | float) -> Array:
    """Return the number of each activation's bin, of equal ones between two values.

    Args:
        values: (…, n, neurons).
        bins: their number, an odd one so that no edge lies in the middle.
        low: where they begin, such as the least activation of all layers and epochs; broadcast.
        high: where they end.
    """
    span = np.maximum(np.asarray(high, float) - low, np.finfo(np.float32).tiny)
    return np.clip(np.floor((values - low) / span * bins), 0, bins - 1).astype(np.int64)


def quantiles(values: Array, bins: int) -> Array:
    """Return the number of each activation's bin; each holds as many activations of a layer.

    Args:
        values: (…, n, neurons); all neurons share their edges.
        bins: their number. Equal activations share a bin, so that some may hold more.
    """
    shares = np.linspace(0, 1, bins + 1)[1:-1]
    layers = values.reshape(-1, *values.shape[-2:])
    found = [np.searchsorted(np.quantile(each, shares), each, side="right") for each in layers]
    return np.stack(found).reshape(values.shape)


def patterns(values: Array) -> Array:
    """Return the bits of each activation in float32 as a number: the computer's own resolution."""
    return (values.astype(np.float32) + 0.0).view(np.int32)  # −0 becomes 0


def information(symbols: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Return what rows of symbols say of the input and of the label, in bits.

    Example:
        >>> import numpy as np
        >>> from paperlib.measures.information import information
        >>> symbols = np.array([[0, 0], [0, 1], [1, 0], [1, 0]])
        >>> [float(bits) for bits in information(symbols, np.array([0, 1, 0, 1]))]
        [1.5, 0.5, 0.5]

    Args:
        symbols: whole numbers (…, n, neurons), one row for each of n equally likely inputs.
        labels: (n,), from 0.

    Returns:
        I(X;T), I(T;Y), and the share of the inputs whose row no other input has; (…) each. I(X;T)
        is the rows' entropy, at most log2 n, which it reaches where all inputs are alone.
    """
    numbers = np.random.default_rng(_HASHING).integers(0, 2**63, symbols.shape[-1]) * 2 + 1
    rows = (symbols.astype(np.int64) * numbers).sum(-1)  # rows that differ do so here, modulo 2^64
    room = int(labels.max()).bit_length()
    joint = np.sort((rows >> room << room) | labels, axis=-1)
    known, alone = _entropy(joint >> room)
    both, _ = _entropy(joint)
    counts = np.bincount(labels) / len(labels)
    label = -float((counts * np.log2(counts, where=counts > 0, out=np.zeros(len(counts)))).sum())
    return known, known + label - both, alone


def noisy(values: Tensor, labels: Tensor, noise: float) -> tuple[Array, Array, Array]:
    """Return bounds of the information of activations plus Gaussian noise, in bits.

    Example:
        >>> import torch
        >>> from paperlib.measures.information import noisy
        >>> two = torch.tensor([[0.0], [100.0]]), torch.tensor([0, 1])
        >>> [round(float(bits), 6) for bits in noisy(*two, 1e-3)]  # far apart: one bit
        [1.0, 1.0, 1.0]

    Args:
        values: (…, n, neurons).
        labels: (n,), from 0.
        noise: its variance, in squared units of the activations, in every direction.

    Returns:
        the lower and the upper bound of I(X;T + noise), and I(T + noise;Y) by the upper bound of
        the mixture and those of its classes; (…) each. The bounds are at most log2 n.
    """
    noise = checked("noise", noise, float, above=0)
    layers = values.reshape(-1, *values.shape[-2:])
    found = np.array([_pairwise(layer, labels, noise) for layer in layers]).T
    lower, upper, label = found.reshape(3, *values.shape[:-2])
    return lower, upper, label


def gaussian_channel(values: Tensor, noise: float) -> Array:
    """Return the most that activations of this covariance can carry through noise, in bits (…).

    Args:
        values: (…, n, neurons).
        noise: its variance, in squared units of the activations.
    """
    noise = checked("noise", noise, float, above=0)
    values = values.double()
    centred = values - values.mean(-2, keepdim=True)
    covariance = centred.mT @ centred / values.shape[-2]
    size = covariance.shape[-1]
    unit = torch.eye(size, dtype=torch.float64)
    return (torch.linalg.slogdet(unit + covariance / noise)[1] / (2 * math.log(2))).numpy()


def minimal_model(weight: float, *, noise: float = 1e-3) -> dict[str, float]:
    """Return the bits that one unit f(w x) holds of a standard normal x, in closed form.

    Args:
        weight: w, above 0.
        noise: variance of the noise of the last of them.

    Returns:
        `tanh` in 30 bins of [−1, 1]; `relu` and `linear` in bins of 1/15; `relu, own range`, in 30
        bins from 0 to 4 standard deviations; `linear + noise`.

    Source: after Saxe et al., ICLR 2018, section 2.
    """
    with np.errstate(divide="ignore"):
        tanh = np.arctanh(np.linspace(-1, 1, 31)) / weight
    step = 1 / (15 * weight)
    up = np.append(np.arange(step, max(10, 2 * step), step), np.inf)
    own = np.arange(1, 31) * 4 / 30
    own[-1] = np.inf
    return {
        "tanh": _bits(tanh),
        "relu": _bits(np.append(-np.inf, up)),
        "linear": _bits(np.concatenate([-up[::-1], [0], up])),
        "relu, own range": _bits(np.append(-np.inf, own)),
        "linear + noise": math.log2(1 + weight**2 / noise) / 2,
    }


def mean_field_information(distance: Any, count: int, noise: float) -> Any:
    """Return the upper bound of the information of `count` inputs, in bits, where all pairs have
    one squared distance: log2 N − log2(1 + (N − 1) exp(−D / 2σ²)).

    Args:
        distance: D, a number or an array.
        count: N.
        noise: σ².
    """
    return math.log2(count) - np.log2(1 + (count - 1) * np.exp(-np.asarray(distance) / 2 / noise))


def _bits(limits: NDArray[Any]) -> float:
    """The entropy of the bin that a standard normal number is in."""
    share = np.diff(ndtr(limits))
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def _pairwise(values: Tensor, labels: Tensor, noise: float) -> tuple[float, float, float]:
    """The numbers of `noisy` for one layer (n, neurons)."""
    members = torch.nn.functional.one_hot(labels).to(values.dtype)
    sizes = members.sum(0)
    values = values - values.mean(0)  # small numbers round less
    scaled = values / math.sqrt(4 * noise)
    squares = scaled.square().sum(1, keepdim=True) / 2
    ones = torch.ones_like(squares)
    left, right = (torch.cat(each, 1) for each in ((scaled, squares, ones),
                                                   (scaled, -ones, -squares)))  # fmt: skip
    # −‖a − b‖² / 8σ²; what is below rounding would only be slow to compute with
    near = (left @ right.T).clamp_(_NEGLIGIBLE, 0)
    near.fill_diagonal_(0).exp_()
    lower = -near.mean(1).log2().mean()
    within = near.square_().square_() @ members  # 2σ² where the lower bound has 8σ²
    upper = -(within.sum(1) / len(labels)).log2().mean()
    own = -((within * members).sum(1) / sizes[labels]).log2().mean()
    return float(lower), float(upper), float(upper - own)


def _entropy(ordered: Array) -> tuple[Array, Array]:
    """The entropy in bits of ordered symbols (…, n), and the share of those that stand alone."""
    rows = ordered.reshape(-1, ordered.shape[-1])
    begins = np.ones(rows.shape, bool)
    begins[:, 1:] = rows[:, 1:] != rows[:, :-1]
    first = np.flatnonzero(begins)
    count = np.diff(first, append=begins.size)
    row, (of, size) = first // rows.shape[1], rows.shape
    entropy = math.log2(size) - np.bincount(row, count * np.log2(count), of) / size
    alone = np.bincount(row, count == 1, of) / size
    return entropy.reshape(ordered.shape[:-1]), alone.reshape(ordered.shape[:-1])
