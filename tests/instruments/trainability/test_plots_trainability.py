import json
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from test_plots import GRID, result

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


@pytest.mark.slow
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


@pytest.mark.slow
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
