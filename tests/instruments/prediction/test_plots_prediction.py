"""Figures of what was predicted: cost against agreement, and where a predictor errs."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.text import Text
from test_plots import GRID
from test_plots_trainability import DEPTHS, trained

from paperlib.cascade.fitting import SOLVERS
from paperlib.instruments.prediction import plots_prediction
from paperlib.instruments.prediction.names import RECONSTRUCTED


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def test_the_front_joins_the_predictors_that_none_beats_at_less_cost() -> None:
    table = pd.DataFrame(
        {
            "auc": [0.99, 0.9, 0.8, 0.7],
            "auc_std": [0.01, 0.02, 0.0, np.nan],
            "seconds": [1.0, 0.1, 0.5, 0.01],
        },
        index=["r_squared_ridge", "correlation_depth", "snip", "random"],
    )
    figure = plots_prediction.cost_against_auc({"mnist": table, "cifar10": table})
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["mnist", "cifar10"]
    front = figure.axes[1].lines[-2]  # the last line is that of a coin
    assert front.get_xdata().tolist() == [0.01, 0.1, 1.0]
    assert {text.get_text() for text in figure.axes[0].texts} == {
        "R², closed form", "6 ξ_c (mean field)", "SNIP", "random",
    }  # fmt: skip


def test_the_names_of_predictors_that_are_as_good_do_not_collide() -> None:
    names = [f"{name}_{solver}" for name in RECONSTRUCTED for solver in SOLVERS]
    column = {"auc": 0.987, "auc_std": 0.002, "seconds": 1.0}
    figure = plots_prediction.cost_against_auc(
        {"mnist": pd.DataFrame([column] * len(names), names)}
    )
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]  # without its line
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)


def test_the_figure_of_costs_states_its_scale_its_colours_and_the_network() -> None:
    table = pd.DataFrame({"auc": 0.9, "auc_std": 0.1, "seconds": 1.0}, ["r_squared_adam"])
    figure = plots_prediction.cost_against_auc(
        {"mnist": table, "more": table}, trained(), trained()
    )
    assert "1 − AUC, logarithmic" in figure.axes[0].get_ylabel()
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["made-up  ·  MLP, width 64, tanh, σ_b² = 0.05"] * 2
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "reconstruction, closed form" in legend


def test_mistakes_have_a_map_for_each_predictor() -> None:
    wrong = xr.DataArray(
        np.linspace(-1, 1, 6 * 5 * 4).reshape(6, 5, 4),
        {"predictor": list("abcdef"), "sigma_w2": list(GRID), "depth": list(DEPTHS)},
    )
    figure = plots_prediction.mistakes_maps(trained(), wrong)
    shown = [axis for axis in figure.axes if axis.get_visible() and axis.collections]
    assert [axis.get_title(loc="left") for axis in shown[:6]] == list("abcdef")
    np.testing.assert_allclose(shown[2].collections[0].get_array(), wrong[2].T)
    words = [tick.get_text() for tick in figure.axes[-1].get_yticklabels()]
    assert "missed in\n1 of 2 seeds" in words
