"""Figures of networks that were really trained."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperlib.core.provenance import provenance
from paperlib.plots import (
    COLLAPSE_COLOUR,
    COLLAPSE_LABEL,
    CUTOFF_COLOUR,
    PUBLISHED_WALLS,
    SEQUENTIAL,
    VARIANCE,
    check_comparable,
    collapse_depths,
    depth_lines,
    describe,
    describe_training,
    draw_theory,
    edges,
    hatch,
    heat_map,
    legend_below,
    mean_with_bars,
    paper_style,
    published_entropy,
    sign,
)
from paperlib.training.outcome import accuracy_of, threshold_of, trainable_depth


def trainability(trained: xr.Dataset, predicted: xr.Dataset) -> Figure:
    """Draw the measured accuracy over σ_w² × depth, and of what predicts its border.

    Args:
        trained: from `run_sweep` or `run_search` of trainings; networks that were not trained
            are hatched.
        predicted: cascades of the same networks before training.

    Raises:
        ValueError: the two are of different data or networks.

    Source: arXiv:2406.12916, the figure of the trainability search.
    """
    check_comparable(trained, predicted)
    with paper_style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.0), sharex=True, sharey=True)
        _accuracy_map(left, trained)
        draw_theory(left, predicted, colour="white")
        depth_lines(left, predicted, COLLAPSE_LABEL, COLLAPSE_COLOUR)
        draw_theory(right, predicted, colour="0.55")
        depth_lines(right, predicted, COLLAPSE_LABEL, COLLAPSE_COLOUR)
        cutoff = predicted["cutoff"].where(predicted["cutoff"] >= 0)
        mean_with_bars(right, cutoff, "published cutoff", CUTOFF_COLOUR)
        threshold = threshold_of(trained)
        _measured_depths(right, trained, threshold)
        right.set(title=f"Trained to {threshold:.0%} accuracy, and predicted", xlabel=VARIANCE)
        right.set_xlim(*edges(trained.sigma_w2.values)[[0, -1]])
        right.set_ylim(0, edges(trained.depth.values)[-1])
        legend_below(right, ncols=4)
        sign(figure, describe_training(trained), trained)
    return figure


def wall_and_training(result: xr.Dataset, trained: xr.Dataset) -> Figure:
    """Draw where images are lost in a phase diagram, and above it which networks train.

    The published measure, as `plots.published_entropy` chooses it, and R², each with the depth from
    which the image is lost and the published wall; above each, a bar for each trained depth: the
    brighter, the better it trains.

    Args:
        result: cascades, from `run_sweep`.
        trained: trainings of the same kind of network, of any depth and size; their title says of
            which.

    Source: arXiv:2406.12916, the figures of the CNN and of the ResNet.
    """
    published = PUBLISHED_WALLS.get(provenance(result)["config"]["architecture"], {})
    depth = result.sizes["depth"]
    known = {d: s for d, s in published.items() if d <= depth}
    bars = trained.sizes["depth"]
    with paper_style():
        figure = plt.figure(figsize=(10.5, 3.6 + 0.22 * bars))
        grid = figure.add_gridspec(2, 2, height_ratios=(0.3 * bars, 4))
        for column, measure in enumerate((published_entropy(result), "r_squared")):
            below = figure.add_subplot(grid[1, column])
            heat_map(below, result, measure)
            depths = collapse_depths(result).mean("seed")
            seen = depths.where(depths <= depth)
            below.plot(seen.sigma_w2, seen, color=COLLAPSE_COLOUR, lw=1.4, label=COLLAPSE_LABEL)
            below.plot(
                [*known.values()], [*known], "o", color="white", mec="black", label="published"
            )
            for level in trained.depth.values[trained.depth.values <= depth]:
                below.axhline(level, color="white", lw=0.6, ls=":", label="trained depth")
            below.set_ylabel("depth")
            above = figure.add_subplot(grid[0, column], sharex=below)
            _training_bars(above, trained)
        ground = {"frameon": True, "facecolor": "0.35"}  # on which white lines are seen
        legend_below(below, ncols=3, labelcolor="white", **ground)
        title = f"{describe(result)}\nbars: {describe_training(trained)}"
        sign(figure, title, result)
    return figure


def _training_bars(axis: Axes, trained: xr.Dataset) -> None:
    """Draw a row for each trained depth, black at chance and white at the best."""
    accuracy = accuracy_of(trained).mean("seed")
    count = trained.sizes["depth"]
    mesh = axis.pcolormesh(
        edges(trained.sigma_w2.values),
        np.arange(count + 1),
        accuracy.values.T,
        cmap="gray",
        vmin=1 / provenance(trained)["data"]["classes"],
        vmax=max(float(accuracy.max()), 0.5),
        edgecolors="0.5",
        linewidth=0.2,
    )
    axis.set_yticks(np.arange(count) + 0.5, [f"{depth}" for depth in trained.depth.values])
    axis.tick_params(labelbottom=False, length=0)
    hatch(axis)
    axis.set_ylabel("trained,\ndepth", fontsize=6)
    axis.set_title("Accuracy of trained networks")
    axis.figure.colorbar(mesh, ax=axis, pad=0.02, ticks=[mesh.norm.vmin, mesh.norm.vmax])


def _accuracy_map(axis: Axes, trained: xr.Dataset) -> None:
    accuracy = accuracy_of(trained).mean("seed")
    hatch(axis)  # where nothing was trained
    mesh = axis.pcolormesh(
        edges(trained.sigma_w2.values),
        edges(trained.depth.values),
        accuracy.values.T,
        cmap=SEQUENTIAL,
        vmin=0,
        edgecolors="0.4",
        linewidth=0.2,
    )
    axis.figure.colorbar(mesh, ax=axis, label="accuracy on the test images", pad=0.02)
    axis.set(title="Measured accuracy", xlabel=VARIANCE, ylabel="depth")


def _measured_depths(axis: Axes, trained: xr.Dataset, threshold: float) -> None:
    """Draw the depths that train; an arrow points up where no depth was too deep."""
    depths = xr.apply_ufunc(
        trainable_depth,
        accuracy_of(trained),
        trained.depth,
        threshold,
        input_core_dims=[["depth"], ["depth"], []],
    )
    mean_with_bars(axis, depths, "measured: deepest that trains", "black")
    deepest = int(trained.depth[-1])
    at = depths.sigma_w2.values[(depths == deepest).any("seed").values]
    axis.plot(at, np.full(len(at), deepest), "^", color="black", ms=5, label="… or deeper")
