import json
from functools import partial
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.text import Text
from test_plots import GRID, result

from paperlib.cascade.fitting import SOLVERS
from paperlib.instruments.prediction.names import RECONSTRUCTED
from paperlib.instruments.trainability import plots_trainability as plots
from paperlib.instruments.trainability.points import TrainingSweep

DEPTHS = (2, 4, 8, 12)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def trained(seeds: int = 2, **settings: object) -> xr.Dataset:
    """Made-up trainings: the networks up to a depth that rises with the variance reach 0.9."""
    config = TrainingSweep(
        sigma_w2=GRID, depths=DEPTHS, seeds=tuple(range(seeds)), width=0, **settings
    )
    depth = np.array(DEPTHS)
    column = np.where(depth <= np.array([[1], [4], [8], [12], [12]]), 0.9, 0.1)
    accuracy = np.repeat(column[:, None], seeds, 1).astype(np.float32)
    about = json.loads(result(seeds=seeds).attrs["provenance"])
    about["config"] = config.as_dict()
    about["data"]["classes"] = 10
    dims = ("sigma_w2", "seed", "depth")
    return xr.Dataset(
        {"accuracy": (dims, accuracy), "finished": (dims, np.ones(accuracy.shape, np.int8))},
        {"sigma_w2": list(GRID), "seed": np.arange(seeds), "depth": depth},
        attrs={"provenance": json.dumps(about)},
    )


def lines(axis: plt.Axes) -> dict[str, plt.Line2D]:
    handles, labels = axis.get_legend_handles_labels()
    return {
        label: getattr(handle, "lines", [handle])[0]
        for handle, label in zip(handles, labels, strict=True)
    }


def test_the_measured_depths_are_drawn_over_the_variances() -> None:
    figure = plots.trainability(trained(), result())
    left, right = figure.axes[:2]
    drawn = lines(right)
    assert drawn["measured: deepest that trains"].get_ydata().tolist() == [0, 4, 8, 12, 12]
    assert drawn["… or deeper"].get_xdata().tolist() == list(GRID[3:])
    assert right.get_title(loc="left") == "Trained to 50% accuracy, and predicted"
    assert "SGD, rate 0.3/depth, 500 steps of 64" in figure.get_suptitle()
    values = left.collections[0].get_array()
    np.testing.assert_allclose(values[1], [0.1, 0.9, 0.9, 0.9, 0.9], atol=1e-6)


def test_bars_of_accuracy_stand_above_the_maps_of_what_is_lost() -> None:
    cascades, trainings = (
        f(architecture="cnn", sigma_b2=2e-5) for f in (partial(result, depth=40), trained)
    )
    figure = plots.wall_and_training(cascades, trainings)
    bars = next(a for a in figure.axes if a.get_title(loc="left") == "Accuracy of trained networks")
    np.testing.assert_allclose(
        bars.collections[0].get_array(), trainings["accuracy"].mean("seed").values.T
    )
    assert [tick.get_text() for tick in bars.get_yticklabels()] == ["2", "4", "8", "12"]
    drawn = lines(figure.axes[0])
    assert drawn["published"].get_xdata().tolist() == [0.65]
    assert drawn["published"].get_ydata().tolist() == [30]
    seen = drawn["collapse depth (R² < 0.02)"].get_ydata()
    assert seen[0] == 4
    assert np.isnan(seen[1:]).all()


def test_a_wall_is_drawn_in_the_published_entropy_where_a_result_has_it() -> None:
    cascades, trainings = (
        f(architecture="cnn", sigma_b2=2e-5) for f in (partial(result, depth=40), trained)
    )

    def titles() -> set[str]:
        figure = plots.wall_and_training(cascades, trainings)
        return {axis.get_title(loc="left") for axis in figure.axes}

    assert "Differential entropy" in titles()
    cascades["differential_entropy_published"] = cascades["r_squared"] - 7
    assert "Differential entropy, as published" in titles()
    assert "Differential entropy" not in titles()


def test_the_legend_of_a_wall_lies_below_the_map_and_leaves_out_what_is_not_drawn() -> None:
    cascades, trainings = (
        f(architecture="resnet", sigma_b2=2e-5) for f in (partial(result, depth=40), trained)
    )
    cascades["r_squared"][:] = 0.5  # nothing collapses
    figure = plots.wall_and_training(cascades, trainings)
    figure.draw_without_rendering()
    for axis in (a for a in figure.axes if a.get_legend()):
        words = [text.get_text() for text in axis.get_legend().get_texts()]
        assert "collapse depth (R² < 0.02)" not in words
        assert axis.get_legend().get_window_extent().y1 < axis.get_window_extent().y0


def test_what_a_search_left_out_stays_empty() -> None:
    some = trained()
    some["finished"][0] = 0
    figure = plots.trainability(some, result())
    assert np.isnan(np.ma.filled(figure.axes[0].collections[0].get_array(), np.nan)[:, 0]).all()
    depths = lines(figure.axes[1])["measured: deepest that trains"].get_ydata()
    assert np.isnan(depths[0])
    assert depths[1:].tolist() == [4, 8, 12, 12]


def test_networks_of_another_width_are_not_drawn_over_one_another() -> None:
    with pytest.raises(ValueError, match="width"):
        plots.trainability(trained(), result(width=50))


@pytest.mark.parametrize(("settings", "words"), [
    ({"rate_exponent": 0.0}, "SGD, rate 0.3, "),
    ({"rate_exponent": 0.5, "optimiser": "adam"}, "Adam, rate 0.3/depth^0.5, "),
])  # fmt: skip
def test_a_title_states_the_rule_of_the_rate(settings: dict, words: str) -> None:
    assert words in plots.describe_training(trained(**settings))


def test_the_front_joins_the_predictors_that_none_beats_at_less_cost() -> None:
    table = pd.DataFrame(
        {
            "auc": [0.99, 0.9, 0.8, 0.7],
            "auc_std": [0.01, 0.02, 0.0, np.nan],
            "seconds": [1.0, 0.1, 0.5, 0.01],
        },
        index=["r_squared_ridge", "correlation_depth", "snip", "random"],
    )
    figure = plots.cost_against_auc({"mnist": table, "cifar10": table})
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["mnist", "cifar10"]
    front = figure.axes[1].lines[-2]  # the last line is that of a coin
    assert front.get_xdata().tolist() == [0.01, 0.1, 1.0]
    assert {text.get_text() for text in figure.axes[0].texts} == {
        "R², closed form", "6 ξ_c (mean field)", "SNIP", "random",
    }  # fmt: skip


def test_the_names_of_predictors_that_are_as_good_do_not_collide() -> None:
    names = [f"{name}_{solver}" for name in RECONSTRUCTED for solver in SOLVERS]
    column = {"auc": 0.987, "auc_std": 0.002, "seconds": 1.0}
    figure = plots.cost_against_auc({"mnist": pd.DataFrame([column] * len(names), names)})
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]  # without its line
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)


def test_the_figure_of_costs_states_its_scale_its_colours_and_the_network() -> None:
    table = pd.DataFrame({"auc": 0.9, "auc_std": 0.1, "seconds": 1.0}, ["r_squared_adam"])
    figure = plots.cost_against_auc({"mnist": table}, trained(), trained())
    assert "1 − AUC, logarithmic" in figure.axes[0].get_ylabel()
    assert figure.get_suptitle().count("MLP, width 64, tanh") == 1
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "reconstruction, closed form" in legend


def test_mistakes_have_a_map_for_each_predictor() -> None:
    wrong = xr.DataArray(
        np.linspace(-1, 1, 6 * 5 * 4).reshape(6, 5, 4),
        {"predictor": list("abcdef"), "sigma_w2": list(GRID), "depth": list(DEPTHS)},
    )
    figure = plots.mistakes_maps(trained(), wrong)
    shown = [axis for axis in figure.axes if axis.get_visible() and axis.collections]
    assert [axis.get_title(loc="left") for axis in shown[:6]] == list("abcdef")
    np.testing.assert_allclose(shown[2].collections[0].get_array(), wrong[2].T)
    words = [tick.get_text() for tick in figure.axes[-1].get_yticklabels()]
    assert "missed in\n1 of 2 seeds" in words
