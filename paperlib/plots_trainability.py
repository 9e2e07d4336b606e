"""Figures of networks that were really trained, and of what was predicted of them."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from paperlib.core.provenance import provenance
from paperlib.plots import (
    COLLAPSE_COLOUR,
    COLLAPSE_LABEL,
    CUTOFF_COLOUR,
    PUBLISHED_WALLS,
    SEQUENTIAL,
    SOLVER_COLOURS,
    VARIANCE,
    check_comparable,
    collapse_depths,
    depth_lines,
    describe,
    draw_theory,
    edges,
    heat_map,
    legend_below,
    mean_with_bars,
    network_of,
    paper_style,
    published_entropy,
    seeds_of,
    sign,
)
from paperlib.scoring import predictor_label
from paperlib.training.outcome import accuracy_of, threshold_of, trainable_depth

LINE = 7  # points from one name to the next
DECADES = 3  # of 1 − AUC that are drawn
NAMED_LEFT = ("_ridge", "correlation_depth", "ntk_condition")  # on the right there are others' dots


def trainability(trained: xr.Dataset, predicted: xr.Dataset) -> Figure:
    """A figure of the measured accuracy over σ_w² × depth, and of what predicts its border.

    Args:
        trained: from `run_sweep` or `run_search` of trainings; networks that were not trained
            stay grey.
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
        cutoff = predicted["cutoff"].where(predicted["finished"] == 1)
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
    """A figure of where images are lost in a phase diagram, and above it which networks train.

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
    """Nothing; draws a row for each trained depth, black at chance and white at the best."""
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
    axis.set_facecolor("0.85")
    axis.set_ylabel("trained,\ndepth", fontsize=6)
    axis.set_title("Accuracy of trained networks")
    axis.figure.colorbar(mesh, ax=axis, pad=0.02, ticks=[mesh.norm.vmin, mesh.norm.vmax])


def describe_training(trained: xr.Dataset) -> str:
    """A result's title in words: data really used, network, optimiser, budget, seeds."""
    config = provenance(trained)["config"]
    power = config["rate_exponent"]
    rule = "" if not power else "/depth" if power == 1 else f"/depth^{power:g}"
    optimiser = {"sgd": "SGD", "adam": "Adam"}[config["optimiser"]]
    return (
        f"{network_of(trained)}  ·  {optimiser}, rate {config['learning_rate']:g}{rule}, "
        f"{config['steps']:,} steps of {config['batch_size']}  ·  {seeds_of(trained)}"
    )


def _accuracy_map(axis: Axes, trained: xr.Dataset) -> None:
    accuracy = accuracy_of(trained).mean("seed")
    axis.set_facecolor("0.85")  # where nothing was trained
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
    """Nothing; draws the depths that train, an arrow up where no depth was too deep."""
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


def cost_against_auc(tables: Mapping[str, pd.DataFrame], *trained: xr.Dataset) -> Figure:
    """A figure of how well predictors do against what they cost, a panel for each data set.

    Upwards, 1 - AUC falls on a logarithmic scale, so that the best can be told apart.

    Args:
        tables: by data set, from `scoring.scoreboard`. Predictors on the Pareto front, which none
            beats at less cost, are joined by a line.
        trained: the trainings that the predictors are judged by; the title names their networks.
    """
    with paper_style():
        figure, axes = plt.subplots(1, len(tables), figsize=(5.2 * len(tables), 5), sharey=True)
        for axis, (name, table) in zip(np.atleast_1d(axes), tables.items(), strict=True):
            _predictors(axis, table)
            axis.axhline(0.5, color="0.8", lw=0.8, ls=":")
            axis.set(xscale="log", yscale="log", ylim=(1, 10**-DECADES), title=name)
            axis.set_xlabel("CPU seconds to judge one network at all depths")
            first, last = axis.get_xlim()
            axis.set_xlim(first, last * 30)  # room for the last names
            axis.set_yticks(
                [1, 0.5, 0.1, 0.05, 0.01, 0.005], ["0", "0.5", "0.9", "0.95", "0.99", "0.995"]
            )
            axis.minorticks_off()
        first = np.atleast_1d(axes)[0]
        first.set_ylabel("ROC-AUC of “this network trains” (scale: 1 − AUC, logarithmic)")
        _solver_legend(first)
        title = "Predictors of trainability: agreement against cost"
        networks = dict.fromkeys(network_of(r).split("  ·  ", 1)[1] for r in trained)
        figure.suptitle("  ·  ".join([title, *networks]), fontsize=9)
    return figure


def _solver_legend(axis: Axes) -> None:
    colours = {
        "reconstruction, closed form": SOLVER_COLOURS["ridge"],
        "reconstruction, Adam": SOLVER_COLOURS["adam"],
        "everything else": "0.4",
    }
    for label, colour in colours.items():
        axis.plot([], [], "o", ms=4, color=colour, label=label)
    axis.plot([], [], color="0.7", lw=1, label="none better at less cost")
    axis.legend(loc="upper left", fontsize=6)


def _predictors(axis: Axes, table: pd.DataFrame) -> None:
    """Nothing; draws a dot with its name for each predictor."""
    wrong = (1 - table["auc"]).clip(lower=2e-3)
    beside = _apart(wrong, axis)
    for predictor in map(str, table.index):
        seconds, spread = (float(table[c][predictor]) for c in ("seconds", "auc_std"))
        height = float(wrong[predictor])
        solver = predictor.rpartition("_")[2]
        colour = SOLVER_COLOURS.get(solver, "0.4")
        bar = [[min(spread, 0.5 * height)], [spread]]
        axis.errorbar(seconds, height, yerr=bar, fmt="o", ms=4, color=colour, elinewidth=0.6)
        left = predictor.endswith(NAMED_LEFT)
        axis.annotate(
            predictor_label(predictor),
            (seconds, height),
            xytext=(-8 if left else 8, beside[predictor]),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=5.5,
            color=colour,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": colour, "shrinkA": 0, "shrinkB": 2},
        )
    front = table.sort_values(["seconds", "auc"], ascending=[True, False])
    front = front[front["auc"] > front["auc"].cummax().shift(fill_value=0)]
    axis.plot(front["seconds"], wrong[front.index], color="0.7", lw=1, zorder=0)


def _apart(wrong: pd.Series, axis: Axes) -> dict[str, float]:
    """By predictor, by how many points its name is moved up, so that a solver's do not collide.

    As little as possible: the isotonic regression of the heights less what the names above take.
    """
    decade = axis.get_window_extent().height / axis.figure.dpi * 72 / DECADES
    moved: dict[str, float] = {}
    groups = wrong.index.map(lambda name: name.rpartition("_")[2])
    for solver, theirs in wrong.groupby(groups):
        heights = -decade * np.log10(theirs.sort_values(ascending=False))
        steps = LINE * np.arange(len(heights)) if solver in SOLVER_COLOURS else 0
        fitted = isotonic_regression(heights - steps).x + steps
        moved |= dict(zip(heights.index, fitted - heights, strict=True))
    return moved


def mistakes_maps(trained: xr.Dataset, wrong: xr.DataArray) -> Figure:
    """A figure of where predictors err, a small map of σ_w² × depth for each.

    Args:
        trained: the trainings, whose grid it is.
        wrong: from `scoring.mistakes`, of the predictors to be shown, in this order.
    """
    columns = min(5, wrong.sizes["predictor"])
    rows = -(-wrong.sizes["predictor"] // columns)
    with paper_style():
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(2.1 * columns, 0.5 + 1.7 * rows),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for axis, name in zip(axes.flat, wrong.predictor.values, strict=False):
            mesh = axis.pcolormesh(
                edges(wrong.sigma_w2.values),
                np.arange(wrong.sizes["depth"] + 1),
                wrong.sel(predictor=name).values.T,
                cmap="RdBu_r",
                vmin=-1,
                vmax=1,
                edgecolors="0.85",
                linewidth=0.2,
            )
            axis.set_title(predictor_label(str(name)), fontsize=6)
        for axis in axes.flat[wrong.sizes["predictor"] :]:
            axis.set_visible(False)
        ticks = np.arange(wrong.sizes["depth"])
        axes[0, 0].set_yticks(ticks + 0.5, [f"{depth}" for depth in wrong.depth.values])
        for axis in axes[:, 0]:
            axis.set_ylabel("depth")
        for axis in axes[-1]:
            axis.set_xlabel(VARIANCE)
        shares = _shares_wrong(trained.sizes["seed"])
        bar = figure.colorbar(mesh, ax=axes, ticks=[*shares], shrink=0.8)
        bar.ax.set_yticklabels([*shares.values()], fontsize=6)
        sign(figure, describe_training(trained), trained)
    return figure


def _shares_wrong(seeds: int) -> dict[float, str]:
    """By value of `scoring.mistakes`, what it means."""
    if seeds == 1:
        return {-1: "missed", 0: "right", 1: "promised"}
    return {
        -1: "missed in\nevery seed",
        -1 / seeds: f"missed in\n1 of {seeds} seeds",
        0: "right",
        1 / seeds: f"promised in\n1 of {seeds} seeds",
        1: "promised in\nevery seed",
    }
