"""Figures of what was predicted of networks, and at what cost."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from paperlib.instruments.prediction.scoring import predictor_label
from paperlib.plots import (
    SOLVER_COLOURS,
    VARIANCE,
    describe_training,
    edges,
    network_of,
    paper_style,
    sign,
)

LINE = 7  # points from one name to the next
DECADES = 3  # of 1 − AUC that are drawn
NAMED_LEFT = ("_ridge", "correlation_depth", "ntk_condition")  # on the right there are others' dots


def cost_against_auc(tables: Mapping[str, pd.DataFrame], *trained: xr.Dataset) -> Figure:
    """Draw how well predictors do against what they cost, a panel for each grid.

    Upwards, 1 - AUC falls on a logarithmic scale, so that the best can be told apart.

    Args:
        tables: by grid, from `scoring.scoreboard`. Predictors on the Pareto front, which none
            beats at less cost, are joined by a line.
        trained: the trainings that the predictors are judged by, in the same order; titles name
            their networks.
    """
    with paper_style():
        columns = min(2, len(tables))
        rows = -(-len(tables) // columns)
        size = (5.2 * columns, 4.6 * rows + 0.4)
        figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
        for axis in axes.flat[len(tables) :]:
            axis.set_visible(False)
        titles = [network_of(result) for result in trained] or [*tables]
        for axis, title, table in zip(axes.flat, titles, tables.values(), strict=False):
            _predictors(axis, table)
            axis.axhline(0.5, color="0.8", lw=0.8, ls=":")
            axis.set(xscale="log", yscale="log", ylim=(1, 10**-DECADES))
            axis.set_title(title, fontsize=8)
            axis.set_xlabel("CPU seconds to judge one network at all depths")
            first, last = axis.get_xlim()
            axis.set_xlim(first, last * 30)  # room for the last names
            axis.set_yticks(
                [1, 0.5, 0.1, 0.05, 0.01, 0.005], ["0", "0.5", "0.9", "0.95", "0.99", "0.995"]
            )
            axis.minorticks_off()
        for first in axes[:, 0]:
            first.set_ylabel("ROC-AUC of “this network trains” (1 − AUC, logarithmic)")
        _solver_legend(axes[0, 0])
        figure.suptitle("Predictors of trainability: agreement against cost", fontsize=9)
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
    """Draw a dot with its name for each predictor."""
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
    """Draw where predictors err, a small map of σ_w² × depth for each.

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
