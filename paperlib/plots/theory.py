"""Mean-field curves over a map."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from paperlib.core.provenance import provenance
from paperlib.meanfield import SMOOTH, correlation_depth, critical_sigma_w2, propagate
from paperlib.networks.kinds import STEM
from paperlib.plots.style import edges

_propagated = lru_cache(maxsize=1000)(propagate)  # kept for a figure's other panels


def draw_theory(axis: Axes, result: xr.Dataset, *, colour: str) -> None:
    """Draw the mean-field predictions for the network.

    ξ_c and 6 ξ_c, and the critical line where it lies inside the grid; of a residual network, which
    has no fixed point, the depth at which two images have become twice as parallel. Of
    convolutional networks also where the closed form loses what is left of the image.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib import load_result
        >>> from paperlib.plots import draw_theory
        >>> result = load_result("mnist_mlp_adam.nc").isel(sigma_w2=slice(8, 12))
        >>> figure, axis = plt.subplots()
        >>> draw_theory(axis, result, colour="black")
        >>> len(axis.lines)  # ξ_c and 6 ξ_c
        2
        >>> plt.close(figure)
    """
    config = provenance(result)["config"]
    ends = edges(result.sigma_w2.values)[[0, -1]]
    lowest = max(ends[0], 1e-3)
    if config["architecture"] != "resnet":
        grid = np.linspace(lowest, ends[1], 200)
        lengths = np.array([_mean_field(correlation_depth, config, float(s)) for s in grid])
        axis.plot(grid, lengths, color=colour, lw=1, ls="--", label=r"$\xi_c$ (mean field)")
        axis.plot(grid, 6 * lengths, color=colour, lw=1, label=r"$6\,\xi_c$ (mean field)")
        critical = _mean_field(critical_sigma_w2, config)
        if ends[0] <= critical <= ends[1]:
            axis.axvline(critical, color=colour, lw=0.8, ls=":", label=f"critical: {critical:.2f}")
    if config["architecture"] != "mlp" and config["activation"] in SMOOTH:
        grid = np.linspace(lowest, ends[1], 60)
        paths = [signal_path(float(s), result) for s in grid]
        if config["architecture"] == "resnet":
            halved = [_first(apart <= apart[0] / 2) for apart, _ in paths]
            axis.plot(grid, halved, color=colour, lw=1, label="mean field: 1 − c halved")
        if config.get("solver") == "ridge":
            lost = [_first(signal < config["resolution"]) for _, signal in paths]
            axis.plot(grid, lost, color=colour, lw=1.4, ls="-.", label="mean field: signal < λ")
    axis.set_xlim(*ends)


def signal_path(sigma_w2: float, result: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return, by mean field, how two images differ at the end of the stem and after each stage.

    The first array is 1 − c, with c the correlation of the two; the second is the variance of what
    they do not share, summed over the channels.

    All channels carry the same few patterns, so that their sum is what stands out of the noise. The
    images have nothing in common at first; the stem is three ordinary layers. NaN for activations
    whose path mean field does not follow.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots import signal_path
        >>> apart, variance = signal_path(1.7, load_result("mnist_cnn_adam.nc"))
        >>> apart.shape, float(apart[0]) > float(apart[-1])
        ((11,), True)
    """
    config = provenance(result)["config"]
    if config["activation"] not in SMOOTH:
        nothing = np.full(result.sizes["depth"] + 1, np.nan)
        return nothing, nothing
    brightness = round(float(((result["original"] / 255) ** 2).mean()), 6)
    block = config.get("block", "plain") if config["architecture"] == "resnet" else ""
    through = partial(_propagated, sigma_w2, config["sigma_b2"], activation=config["activation"])
    squares, signals = through(depth=STEM, mean_square=brightness, signal=brightness)
    squares, signals = through(
        depth=result.sizes["depth"],
        mean_square=float(squares[-1]),
        signal=float(signals[-1]),
        residual=bool(block),
        bounded=block == "published",
    )
    return signals / squares, config["channels"] * signals


def _first(true: np.ndarray) -> float:
    """The first place where it is true, NaN where it never is."""
    return float(true.argmax()) if true.any() else np.nan


def _mean_field(
    quantity: Callable[..., float], config: Mapping[str, Any], *sigma_w2: float
) -> float:
    """A quantity of mean field, NaN where a variance is beyond what the quadrature can reach."""
    return _quantity(quantity, config["activation"], *sigma_w2, config["sigma_b2"])


@lru_cache(maxsize=1000)  # kept for a figure's other panels, and for its next figures
def _quantity(quantity: Callable[..., float], activation: str, *variances: float) -> float:
    try:
        return quantity(*variances, activation=activation)
    except ValueError:
        return np.nan
