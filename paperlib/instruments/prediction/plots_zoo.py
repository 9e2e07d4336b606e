"""Figures of the zoo: who foretold which networks learn, how surely, and at what cost."""

from collections.abc import Collection, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from paperlib.instruments.prediction.scoring import predictor_label, roc_auc
from paperlib.instruments.prediction.zoo_scores import reliability
from paperlib.plots import BLUE, GREEN, ORANGE, paper_style

OURS = ("verdict", "verdict_untried", "r_squared_smallest", "collapse_depth_ridge")
TRAINED = ("accuracy_20", "accuracy_30", "accuracy_100", "loss_at_equal_cost")
COLOURS = {"ours": BLUE, "training itself": ORANGE, "rivals": "0.45", "instruments": GREEN}
MARKERS = "osD^"  # of boards in one panel
NAMES = {
    "verdict": "verdict",
    "verdict_untried": "verdict without a trial",
    "r_squared_smallest": "R², smallest",
    "accuracy_20": "accuracy after 20 steps",
    "accuracy_30": "accuracy after 30 steps",
    "accuracy_100": "accuracy after 100 steps",
    "loss_at_equal_cost": "loss at the verdict's cost",
    "smallest_of_three": "min(R², gain, 1/gain)",
    "grad_cosine": "GradCosine",
    "gradient_quotient": "gradient quotient (MetaInit)",
    "gradinit_sgd": "loss after a step (GradInit, SGD)",
    "gradinit_adam": "loss after a step (GradInit, Adam)",
    "tangent_condition": "NTK condition number",
    "mean_predictor": "NTK mean predictor",
    "mean_field": "mean field, 6 ξ_c over depth",
}
LINE = 0.027  # of AUC, from one name to the next


def zoo_label(name: str) -> str:
    """Return a predictor's name in figures and tables."""
    return NAMES.get(name) or predictor_label(name)


def zoo_figure(
    table: pd.DataFrame,
    scores: Mapping[str, pd.DataFrame],
    probabilities: Mapping[str, pd.Series],
    seconds: Mapping[str, float],
) -> Figure:
    """Draw the scoreboard, the cost, the calibration, and the AUC within each family.

    Args:
        table: of `zoo_scores.zoo_table`.
        scores: by label, of `zoo_scoreboard`; the first one orders the predictors.
        probabilities: by label, of `left_out`.
        seconds: by predictor, the mean cost of a network.
    """
    first = next(iter(scores))
    with paper_style():
        figure, axes = plt.subplots(
            2, 2, figsize=(10, 8.4), height_ratios=(1.35, 1), width_ratios=(1.15, 1)
        )
        _aucs(axes[0, 0], scores)
        _costs(axes[0, 1], scores[first], seconds)
        _calibration(axes[1, 0], table, probabilities)
        _families(axes[1, 1], table, first, probabilities[first])
        figure.suptitle(
            f"Will it train? {len(table)} networks of {table['family'].nunique()} families, really "
            "trained on MNIST, judged before",
            fontsize=10,
        )
    return figure


def instruments_figure(
    zoo: Mapping[str, pd.DataFrame], grid: pd.DataFrame, said: Collection[str]
) -> Figure:
    """Draw how well the instruments foretold which networks learn, beside verdict and training.

    Args:
        zoo: by label, of `zoo_scoreboard` on the zoo; the first one orders the predictors.
        grid: the same on a grid of MLPs.
        said: the names of what instruments say.
    """
    rows = [len(next(iter(zoo.values()))), len(grid)]
    with paper_style():
        figure, axes = plt.subplots(
            2, 1, figsize=(7, 1.4 + 0.24 * sum(rows)), height_ratios=rows, layout="constrained"
        )
        _aucs(axes[0], zoo, said)
        _aucs(axes[1], {"trains": grid}, said)
        axes[0].set_title("The zoo", fontsize=9)
        axes[1].set_title("Tanh MLPs by weight variance and depth", fontsize=9)
    return figure


def grids_figure(boards: Mapping[str, pd.DataFrame], said: Collection[str] = ()) -> Figure:
    """Draw how well predictors foretold which networks of grids learn.

    Args:
        boards: by grid in words, of `zoo_scoreboard`; the first one orders the predictors.
        said: the names of what instruments say.
    """
    rows = len(next(iter(boards.values())))
    with paper_style():
        figure, axis = plt.subplots(
            figsize=(7, 1.2 + (0.2 + 0.06 * len(boards)) * rows), layout="constrained"
        )
        _aucs(axis, boards, said)
    return figure


def words_of(label: str) -> str:
    """Return a label in words: "learns at all", "learns fast, Adam 1e-3"."""
    default = label.startswith("default_")
    words = label.removeprefix("default_").replace("_", " ")
    return f"{words}, Adam 1e-3" if default else words


def _kind(name: str, said: Collection[str] = ()) -> str:
    if name in OURS:
        return "ours"
    if name in said:
        return "instruments"
    return "training itself" if name in TRAINED else "rivals"


def _aucs(axis: Axes, scores: Mapping[str, pd.DataFrame], said: Collection[str] = ()) -> None:
    order = list(dict.fromkeys(name for board in scores.values() for name in board.index))[::-1]
    places = pd.Series(np.arange(len(order)), order)
    apart = min(0.18, 0.36 / max(1, len(scores) - 1))  # so that none lies in another one's row
    for number, (label, board) in enumerate(scores.items()):
        at = places[board.index] + apart * (len(scores) - 1 - 2 * number)
        filled, marker = number == 0, MARKERS[number % len(MARKERS)]
        for name, row, height in zip(board.index, board.to_dict("records"), at, strict=True):
            colour = COLOURS[_kind(str(name), said)]
            axis.plot([row["low"], row["high"]], [height] * 2, color=colour, lw=0.9)
            axis.plot(row["auc"], height, marker, ms=4, mec=colour, mfc=colour if filled else "w")
        axis.plot([], [], marker, ms=4, mec="0.2", mfc="0.2" if filled else "w", ls="none",
                  label=words_of(label))  # fmt: skip
    kinds = {_kind(str(name), said) for name in order}
    for kind in [kind for kind in COLOURS if kind in kinds]:
        axis.plot([], [], color=COLOURS[kind], lw=2, label=kind)
    axis.axvline(0.5, color="0.8", lw=0.8, ls=":")
    axis.set_xticks(np.arange(0.3, 1.01, 0.1).round(1))
    axis.set_yticks(places.tolist(), [zoo_label(str(name)) for name in order], fontsize=7)
    axis.set(
        xlabel="ROC-AUC, 95% interval over networks", xlim=(0.3, 1.3), ylim=(-0.7, len(order) - 0.3)
    )
    axis.legend(fontsize=6, loc="lower right")


def _costs(axis: Axes, board: pd.DataFrame, seconds: Mapping[str, float]) -> None:
    """Draw a dot for each predictor, and its name at the right edge, as high as there is room."""
    axis.axhline(0.5, color="0.8", lw=0.8, ls=":")
    axis.set(xscale="log", xlabel="CPU seconds a network", ylabel="ROC-AUC", ylim=(0.35, 1.02))
    heights = board["auc"].sort_values()
    steps = LINE * np.arange(len(heights))
    named = isotonic_regression(heights.to_numpy(float) - steps).x + steps
    axis.set_xlim(min(seconds.values()) / 2, max(seconds.values()) * 60)
    for name, score, height in zip(heights.index, heights, named, strict=True):
        colour, cost = COLOURS[_kind(str(name))], seconds[str(name)]
        axis.plot(cost, score, "o", ms=4, color=colour)
        axis.annotate(
            zoo_label(str(name)), (cost, score), xytext=(max(seconds.values()) * 2.5, height),
            fontsize=6, color=colour, va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.3, "color": colour},
        )  # fmt: skip


def _calibration(axis: Axes, table: pd.DataFrame, probabilities: Mapping[str, pd.Series]) -> None:
    axis.plot([0, 1], [0, 1], color="0.8", lw=0.8)
    for (label, probability), colour in zip(probabilities.items(), (BLUE, ORANGE), strict=False):
        found = reliability(probability, table[label])
        axis.plot(found["predicted"], found["share"], color=colour, lw=1, label=words_of(label))
        axis.scatter(found["predicted"], found["share"], s=4 * found["networks"], color=colour,
                     alpha=0.5, lw=0)  # fmt: skip
    axis.set(xlabel="verdict's probability, family left out", ylabel="share that learns")
    axis.legend(fontsize=6, loc="upper left", title="area: networks", title_fontsize=6)


def _families(axis: Axes, table: pd.DataFrame, label: str, probability: pd.Series) -> None:
    drawn = {"verdict": probability, **{n: table[n] for n in ("r_squared_smallest", "accuracy_30")}}
    colours = (BLUE, "0.45", ORANGE)
    families = sorted(table["family"].unique())
    for (name, values), colour, shift in zip(drawn.items(), colours, (-0.2, 0, 0.2), strict=True):
        scores = [
            roc_auc(values[table["family"] == f], table[label][table["family"] == f])
            for f in families
        ]
        at = np.arange(len(families)) + shift
        axis.plot(at, scores, "o", ms=5, color=colour, label=zoo_label(name))
    shares = [table[label][table["family"] == family].mean() for family in families]
    named = [f"{f.replace(' ', chr(10))}\n{s:.0%}" for f, s in zip(families, shares, strict=True)]
    axis.set_xticks(range(len(families)), named, fontsize=6.5)
    axis.axhline(0.5, color="0.8", lw=0.8, ls=":")
    axis.set(ylabel=f"ROC-AUC within a family, “{words_of(label)}”")
    axis.set_xlabel("family, and the share of it that learns")
    axis.legend(fontsize=6, loc="lower left")
