"""Heat maps of variance and depth, and the phase diagrams made of them."""

from functools import partial
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from paperlib.core.provenance import provenance
from paperlib.meanfield import critical_sigma_w2
from paperlib.measures import LOST, collapse_depth
from paperlib.plots.labels import describe, known_points, sign
from paperlib.plots.published import EDGE, ENTROPY, ENTROPY_PUBLISHED, published_entropy
from paperlib.plots.style import (
    CENSORED,
    COLLAPSE_COLOUR,
    COLLAPSE_LABEL,
    CUTOFF_COLOUR,
    SEQUENTIAL,
    SEQUENTIAL_REVERSED,
    VARIANCE,
    edges,
    hatch,
    legend_below,
    mean_with_bars,
    paper_style,
    pixels,
)
from paperlib.plots.theory import _mean_field, draw_theory

# measure: (title, colour-bar label, map, lowest and highest colour; None is the data's own)
_PANELS = {
    "r_squared": ("R²", "fraction of image (0: average)", SEQUENTIAL, 0.0, 1.0),
    "gram_entropy": ("Gram entropy", "fraction of ln n", SEQUENTIAL, 0.0, None),
    ENTROPY_PUBLISHED: (
        "Differential entropy, as published", "nats per pixel", SEQUENTIAL, None, -5.0,
    ),
    ENTROPY: (
        "Differential entropy", "nats per pixel, pictures not shifted", SEQUENTIAL, None, -5.0,
    ),
    "relative_entropy": ("Relative entropy", "nats", SEQUENTIAL_REVERSED, 0.0, None),
}  # fmt: skip
# As published: the MLP's scale begins where all images are alike, the others' higher up. A scale of
# the data's own would make walls of differences that mean nothing.
FEW, APART = 3, 0.25  # variances that are drawn apart, and half their width in the smallest gap
_LEAST_ENTROPY = {"mlp": -19.3, "cnn": EDGE, "resnet": EDGE}


def phase_diagram(result: xr.Dataset) -> Figure:
    """Draw one sweep: four measures over σ_w² × depth, the depths reached, and examples.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib import load_result
        >>> from paperlib.plots import phase_diagram
        >>> result = load_result("mnist_mlp_adam.nc").isel(sigma_w2=slice(8, 12))
        >>> figure = phase_diagram(result)
        >>> len(figure.axes) > 8
        True
        >>> plt.close(figure)

    Args:
        result: from `run_sweep`; dims sigma_w2, seed, depth.

    Source: arXiv:2406.12916, figures of the MLP; R² and the collapse depth are this package's.
    """
    with paper_style():
        figure = plt.figure(figsize=(10.5, 6.4))
        top, bottom = cast("Any", figure.subfigures(2, 1, height_ratios=(1, 1.15)))
        _heat_maps(top, result)
        left, right = bottom.subfigures(1, 2, width_ratios=(1, 1.1))
        _depths_reached(left.subplots(), result)
        _examples(right, result)
        sign(figure, describe(result), result)
    return figure


def heat_maps(result: xr.Dataset) -> Figure:
    """Draw the four measures over σ_w² × depth alone.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib import load_result
        >>> from paperlib.plots import heat_maps
        >>> result = load_result("mnist_mlp_adam.nc").isel(sigma_w2=slice(8, 12))
        >>> figure = heat_maps(result)
        >>> figure.axes[0].get_ylabel()
        'depth'
        >>> plt.close(figure)
    """
    with paper_style():
        figure = plt.figure(figsize=(10.5, 2.9))
        _heat_maps(figure, result)
        sign(figure, describe(result), result)
    return figure


def _heat_maps(panel: Figure | SubFigure, result: xr.Dataset) -> None:
    axes = panel.subplots(1, 4, sharey=True)
    measures = ("r_squared", "gram_entropy", published_entropy(result), "relative_entropy")
    for axis, measure in zip(axes, measures, strict=True):
        heat_map(axis, result, measure)
    axes[0].set_ylabel("depth")


def heat_map(axis: Axes, result: xr.Dataset, measure: str) -> None:
    """Draw one measure over σ_w² × depth, averaged over seeds, with mean-field curves over it.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib import load_result
        >>> from paperlib.plots import heat_map
        >>> result = load_result("mnist_mlp_adam.nc").isel(sigma_w2=slice(8, 12))
        >>> figure, axis = plt.subplots()
        >>> heat_map(axis, result, "r_squared")
        >>> axis.get_title()
        'R²'
        >>> plt.close(figure)
    """
    title, unit, colours = _PANELS[measure][:3]
    values = result[measure].mean("seed").values.T
    lowest, highest = _limits(result, measure, values)
    borders, drawn = _columns(axis, result.sigma_w2.values, values)
    mesh = axis.pcolormesh(
        borders,
        np.arange(result.sizes["depth"] + 1) + 0.5,
        drawn,
        cmap=colours,
        vmin=lowest,
        vmax=highest,
        rasterized=True,
    )
    draw_theory(axis, result, colour="white")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(title=title, xlabel=VARIANCE, ylim=(0.5, result.sizes["depth"] + 0.5))
    label = f"{unit}\nhatched: no value" if np.isnan(values).any() else unit
    extend = _beyond(values, *mesh.get_clim())
    axis.figure.colorbar(mesh, ax=axis, label=label, pad=0.02, extend=extend)


def _limits(
    result: xr.Dataset, measure: str, values: np.ndarray
) -> tuple[float | None, float | None]:
    """The values at the ends of the colours; None is the data's own."""
    lowest, highest = _PANELS[measure][3:]
    if measure in (ENTROPY, ENTROPY_PUBLISHED):
        lowest = _LEAST_ENTROPY[provenance(result)["config"]["architecture"]]
    lost = measure == "r_squared" and not (values > 0).any()
    if lost and (values < 0).any():
        return float(np.nanmin(values)), 0.0
    return lowest, highest


def _columns(axis: Axes, variances: np.ndarray, values: np.ndarray) -> tuple[Any, np.ndarray]:
    """The borders of a map's columns and their values; a few variances stand apart from each other,
    for nothing is known between them. What has no value is hatched."""
    if not 1 < len(variances) <= FEW:
        hatch(axis)
        return edges(variances), values
    half = APART * np.diff(variances).min()
    apart = np.full((len(values), 2 * len(variances) - 1), np.nan)
    apart[:, ::2] = values
    for variance in variances:
        axis.axvspan(variance - half, variance + half, fc="white", ec="0.7", hatch="////", lw=0,
                     zorder=0)  # fmt: skip
    return np.stack([variances - half, variances + half], 1).ravel(), apart


def _beyond(values: np.ndarray, lowest: float, highest: float) -> str:
    """On which sides values lie outside of the limits, as a colour bar calls it."""
    slack = 0.02 * (highest - lowest)  # of rounding, and of what scatters around 0
    below, above = (values < lowest - slack).any(), (values > highest + slack).any()
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get(
        (bool(below), bool(above)), "neither"
    )


def _depths_reached(axis: Axes, result: xr.Dataset) -> None:
    draw_theory(axis, result, colour="0.55")
    depth_lines(axis, result, COLLAPSE_LABEL, COLLAPSE_COLOUR)
    cutoff = result["cutoff"].where(result["cutoff"] >= 0)
    mean_with_bars(axis, cutoff, "published cutoff", CUTOFF_COLOUR)
    depth = result.sizes["depth"]
    axis.axhline(depth, color="0.8", lw=0.6, zorder=0)
    axis.set(title="Depth reached", xlabel=VARIANCE, ylabel="depth", ylim=(0, 1.1 * (depth + 1)))
    legend_below(axis, ncols=3)


def collapse_depths(
    result: xr.Dataset, measure: str = "r_squared", *, threshold: float = LOST
) -> xr.DataArray:
    """Return the collapse depth of every point, dims sigma_w2 and seed; depth + 1 if none was seen.

    It is that of R², or the depth from which another measure stays below a threshold.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots import collapse_depths
        >>> depths = collapse_depths(load_result("mnist_mlp_adam.nc"))
        >>> depths.dims, float(depths.min()) >= 1
        (('sigma_w2', 'seed'), True)
    """
    depth = partial(collapse_depth, threshold=threshold)
    return xr.apply_ufunc(
        depth, result[measure], input_core_dims=[["depth"]], vectorize=True
    ).where(known_points(result))


def depth_lines(axis: Axes, result: xr.Dataset, label: str, colour: str) -> None:
    """Draw the collapse depth of R²; triangles mark networks where none was seen.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from paperlib import load_result
        >>> from paperlib.plots import depth_lines
        >>> figure, axis = plt.subplots()
        >>> depth_lines(axis, load_result("mnist_mlp_adam.nc"), "Adam", "tab:blue")
        >>> axis.get_legend_handles_labels()[1]
        ['R² ≥ 0.02 down to the last stage', 'Adam']
        >>> plt.close(figure)
    """
    depths = collapse_depths(result)
    mean_with_bars(axis, depths, label, colour)
    censored = (depths > result.sizes["depth"]).any("seed")
    at = result.sigma_w2.values[censored.values]
    if len(at):
        height = np.full(len(at), result.sizes["depth"] + 1)
        axis.plot(at, height, "^", color=colour, ms=3, label=CENSORED)


def _examples(panel: SubFigure, result: xr.Dataset) -> None:
    """One test image as it comes back from several depths, a row per phase."""
    rows = _phases(result)
    shown = result.shown_depth.values
    axes = panel.subplots(len(rows), len(shown) + 1, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for row, (phase, sigma_w2) in enumerate(rows):
        pictures = result["example"].sel(sigma_w2=sigma_w2).isel(seed=0)
        _picture(axes[row, 0], result["original"])
        axes[row, 0].set_ylabel(f"{phase}\n$\\sigma_w^2$ = {sigma_w2:g}", fontsize=7)
        for column, depth in enumerate(shown, start=1):
            _picture(axes[row, column], pictures.sel(shown_depth=depth))
    axes[0, 0].set_title("input", fontsize=7, loc="center", fontweight="normal")
    for column, depth in enumerate(shown, start=1):
        axes[0, column].set_title(f"{depth}", fontsize=7, loc="center", fontweight="normal")
    panel.suptitle("One test image, reconstructed from depth …", fontsize=9, fontweight="bold")


def _phases(result: xr.Dataset) -> list[tuple[str, float]]:
    """A variance of the grid for each phase that it holds: below, at and above the critical one.

    Where none is known, as of residual networks: the smallest, the middle and the largest.
    """
    config = provenance(result)["config"]
    grid = result.sigma_w2.values[result["finished"].values[:, 0] == 1]
    residual = config["architecture"] == "resnet"
    critical = np.nan if residual else _mean_field(critical_sigma_w2, config)
    if np.isnan(critical):
        middle = float(grid[len(grid) // 2])
        wanted = {"small": float(grid[0]), "middle": middle, "large": float(grid[-1])}
    else:
        wanted = {"ordered": 0.6 * critical, "critical": critical, "chaotic": 1.7 * critical}
    found: dict[float, str] = {}
    for phase, target in wanted.items():
        found.setdefault(float(grid[np.abs(grid - target).argmin()]), phase)
    return [(phase, sigma_w2) for sigma_w2, phase in found.items()]


def _picture(axis: Axes, image: xr.DataArray) -> None:
    axis.imshow(pixels(image), cmap="gray", vmin=0, vmax=255)
