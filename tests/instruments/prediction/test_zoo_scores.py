"""The zoo's scores: against scikit-learn, plain sums, and tables whose answer is known."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from sklearn.metrics import roc_auc_score

from paperlib import probe
from paperlib.core.provenance import provenance
from paperlib.instruments.prediction import zoo_scores
from paperlib.instruments.prediction.forecasts import SIGNALS, ZooForecast, ZooForecasts
from paperlib.instruments.prediction.rivals import RIVALS
from paperlib.instruments.prediction.zoo_scores import (
    EQUAL_COST,
    calibration_error,
    changed_labels,
    interval,
    judged_grid,
    left_out,
    reliability,
    trained_longer,
    verdicts_of,
    zoo_scoreboard,
    zoo_table,
)
from paperlib.instruments.probe.signals import signals
from paperlib.instruments.probe.verdict import FITTED, SOURCE
from paperlib.instruments.trainability.trainings import labels
from paperlib.networks.zoo import zoo_network
from paperlib.sweep import measure_point
from paperlib.sweep.store import load_result

RANDOM = np.random.default_rng(0)


def trainable(networks: int = 80) -> pd.DataFrame:
    """Networks in four families whose R² says which learn, but for some noise."""
    kept = RANDOM.uniform(0, 1, networks)
    return pd.DataFrame(
        {
            "family": np.array(["a", "b", "c", "d"])[np.arange(networks) % 4],
            "r_squared_smallest": kept,
            "sensitivity_decades": 0.0,
            "step_r_squared": 0.5,
            "step_accuracy": 0.5,
            "chance": 0.1,
            "adam_share": 1.0,
            "loss": 2.3,
            "step_gain": 0.01,
            "trial_accuracy": 0.5,
            "trial_loss": 1.0,
            "coin": RANDOM.uniform(size=networks),
            "learns_at_all": kept + RANDOM.normal(0, 0.2, networks) > 0.5,
        }
    )


def results(budget: int = 400) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """A forecast of networks 0, 1 and 3, and trainings of 0, 1 and 2."""
    forecasts = xr.Dataset(
        {
            "signals": (("number", "signal"), [[0.1, 0.2], [0.3, 0.4], [np.nan, np.nan]]),
            "rivals": (("number", "rival"), [[1.0], [2.0], [np.nan]]),
            "probe_seconds": ("number", [1.0, 0.5, np.nan]),
            "signal_seconds": ("number", [1.0, 0.5, np.nan]),
            "finished": ("number", [1, 1, 0]),
        },
        {"number": [0, 1, 3], "signal": ["r_squared_smallest", "gain"], "rival": ["snip"]},
    )
    moments = ["20 steps", "30 steps", "100 steps", "quarter", "end"]
    shape = (3, 2, 5)
    curve = np.linspace(3, 1, 100) * np.ones((3, 2, 1))
    curve[0, 1] -= 0.5
    curve[1, :, 30:] = np.nan  # diverged
    zoo = xr.Dataset(
        {
            "accuracy": (("number", "training", "moment"), RANDOM.uniform(size=shape)),
            "curve": (("number", "training", "step"), curve),
            "seconds": (("number", "training"), np.full((3, 2), 4.0)),
            "steps": (("number", "training"), np.full((3, 2), 400)),
        },
        {
            "number": [0, 1, 2],
            "training": ["adam", "sgd"],
            "moment": moments,
            "step": np.arange(1, 101),
            "family": ("number", ["mlp", "cnn", "mlp"]),
            "depth": ("number", [3, 4, 5]),
        },
        attrs={"provenance": json.dumps({"config": {"budget": budget}})},
    )
    learns = xr.Dataset({"learns_at_all": ("number", [True, False, True])}, zoo.coords)
    return forecasts, zoo, learns


# --- the table


def test_a_row_holds_what_is_known_of_a_network_that_is_finished_in_both() -> None:
    forecasts, zoo, learns = results()
    table = zoo_table(forecasts, zoo, learns)
    assert table.index.tolist() == [0, 1]
    assert table["family"].tolist() == ["mlp", "cnn"]
    assert table["gain"].tolist() == [0.2, 0.4]
    assert table["snip"].tolist() == [1, 2]
    assert table["learns_at_all"].tolist() == [True, False]
    best = zoo["accuracy"].sel(moment="30 steps").max("training").values[:2]
    np.testing.assert_allclose(table["accuracy_30"], best)


def test_equal_cost_counts_a_step_of_every_training_as_one() -> None:
    table = zoo_table(*results())
    step = 2 * 4.0 / 400  # seconds
    assert table["verdict_seconds"].tolist() == [2, 1]
    assert table["budget_seconds"].tolist() == [400 * step] * 2
    assert table["steps_paid"].tolist() == [100, 50]
    curve = np.linspace(3, 1, 100) - 0.5  # of the better training
    np.testing.assert_allclose(table[EQUAL_COST][0], -curve[90:].mean(), rtol=1e-6)
    assert table[EQUAL_COST][1] == -np.inf  # diverged before


def test_nothing_in_common_is_refused() -> None:
    forecasts, zoo, learns = results()
    with pytest.raises(ValueError, match="no finished network in common"):
        zoo_table(forecasts.isel(number=[2]), zoo, learns)


# --- left out


def test_a_family_is_judged_by_a_fit_to_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    table, seen = trainable(), []
    plain = zoo_scores.fit_verdict

    def noted(others: pd.DataFrame, *args: object, **options: object) -> object:
        seen.append(set(others["family"]))
        return plain(others, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(zoo_scores, "fit_verdict", noted)
    found = left_out(table, "learns_at_all")
    assert seen == [{"b", "c", "d"}, {"a", "c", "d"}, {"a", "b", "d"}, {"a", "b", "c"}]
    assert found.between(0, 1).all()
    assert roc_auc_score(table["learns_at_all"], found) > 0.8


# --- the scoreboard


def test_aucs_are_those_of_scikit_learn_ties_included() -> None:
    table = trainable()
    table["tied"] = table["coin"].round(1)
    found = zoo_scoreboard(table, "learns_at_all", ["coin", "tied"], against="r_squared_smallest")
    for name in ("coin", "tied"):
        expected = roc_auc_score(table["learns_at_all"], table[name])
        assert found["auc"][name] == pytest.approx(expected, abs=1e-12)


def test_infinite_scores_are_ranked() -> None:
    table = trainable()
    table["coin"] = np.where(table["learns_at_all"], np.inf, -np.inf)
    found = zoo_scoreboard(table, "learns_at_all", ["coin"], against="coin")
    assert found["auc"]["coin"] == 1


def test_intervals_hold_the_auc_and_a_better_predictor_is_ahead() -> None:
    table = trainable(300)
    names = ["coin", "r_squared_smallest"]
    found = zoo_scoreboard(table, "learns_at_all", names, against="r_squared_smallest")
    assert found.index.tolist() == names[::-1]
    assert ((found["low"] < found["auc"]) & (found["auc"] < found["high"])).all()
    assert found["ahead_low"]["coin"] > 0
    assert (found.loc["r_squared_smallest", ["ahead", "ahead_low", "ahead_high"]] == 0).all()


def test_an_interval_of_an_auc_is_as_wide_as_its_standard_error_says() -> None:
    table = trainable(400)
    found = zoo_scoreboard(table, "learns_at_all", ["coin"], against="coin")
    ones = int(table["learns_at_all"].sum())
    error = np.sqrt(401 / (12 * ones * (400 - ones)))  # of a coin's AUC
    assert found["high"]["coin"] - found["low"]["coin"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_the_draws_depend_on_the_seed_alone() -> None:
    table = trainable()
    first, again, other = (
        zoo_scoreboard(table, "learns_at_all", ["coin"], against="coin", seed=seed)
        for seed in (0, 0, 1)
    )
    assert first.equals(again)
    assert not first.equals(other)


# --- calibration


def test_probabilities_that_are_frequencies_are_calibrated() -> None:
    probability = np.repeat([0.25, 0.75], 400)
    learns = np.tile([1, 0, 0, 0], 100).tolist() + np.tile([1, 1, 1, 0], 100).tolist()
    assert calibration_error(probability, learns) == pytest.approx(0)
    found = reliability(probability, learns)
    assert found["share"].tolist() == [0.25, 0.75]
    assert found["networks"].tolist() == [400, 400]


def test_being_always_sure_and_half_the_time_wrong_is_an_error_of_a_half() -> None:
    assert calibration_error(np.ones(100), np.arange(100) % 2) == pytest.approx(0.5)


def test_an_interval_leaves_out_draws_of_one_kind() -> None:
    assert interval([np.nan, *np.linspace(0, 1, 101)]) == pytest.approx((0.025, 0.975))


def test_changed_labels_are_counted_where_both_know() -> None:
    def known_of(values: dict[int, bool]) -> xr.Dataset:
        known = ("number", list(values.values()))
        return xr.Dataset({"learns_at_all": known}, {"number": list(values)})

    first = known_of({0: True, 1: False, 2: False})
    longer = known_of({1: True, 2: False, 3: True})
    assert changed_labels(first, longer, "learns_at_all") == (1, 2)


def test_networks_of_a_grid_that_were_trained_longer_have_both_labels() -> None:
    grid = load_result("trainability_cnn.nc")
    networks = judged_grid(load_result("forecasts_cnn.nc"), grid, labels(grid))
    longer = load_result("trainability_cnn_longer.nc")
    found = trained_longer(networks, longer, labels(longer))
    assert len(found) == int((longer["finished"] == 1).sum())
    assert found.attrs["budget"] == 4 * provenance(grid)["config"]["budget"]
    one = found.query("sigma_w2 == 3.0 and depth == 60").iloc[0]  # at chance in 600 steps
    assert (one["learns_at_all"], one["learns_longer"]) == (False, True)
    there = longer.sel(sigma_w2=3.0, seed=0, depth=60)["accuracy"].max()
    assert one["longer_accuracy"] == float(there) > 0.5
    assert one["verdict"] == networks.query("sigma_w2 == 3.0 and depth == 60")["verdict"].iloc[0]


def test_more_steps_bring_the_labels_of_resnets_to_the_verdict() -> None:
    grid, longer = (load_result(f"trainability_resnet_{n}.nc") for n in ("published", "longer"))
    networks = judged_grid(load_result("forecasts_resnet.nc"), grid, labels(grid))
    found = trained_longer(networks, longer, labels(longer))
    before, after = found["learns_at_all"].astype(bool), found["learns_longer"].astype(bool)
    assert (len(found), (after & ~before).sum(), (before & ~after).sum()) == (36, 10, 0)
    assert found["verdict"][after & ~before].min() > 0.65
    assert roc_auc_score(after, found["verdict"]) > 0.93
    errors = [calibration_error(found["verdict"], learns) for learns in (before, after)]
    assert errors[1] < 0.6 * errors[0]


# --- forecasts


@pytest.mark.slow
def test_a_forecast_holds_the_numbers_of_signals_and_all_rivals() -> None:
    point = ZooForecast(dataset="digits", number=9, train_images=60)
    found = measure_point(point)
    assert found["rivals"].shape == (len(RIVALS),)
    assert np.isfinite(found["rivals"]).all()
    from paperlib.datasets import load_dataset

    data = load_dataset("digits", limit=60)
    images, answers = data.floats("train")[:60], data.labels("train")[:60]
    numbers = signals(zoo_network(9, (1, 28, 28), 10), images, answers).numbers
    assert set(numbers) <= set(SIGNALS)
    for name, value in zip(SIGNALS, found["signals"], strict=True):
        assert numbers.get(name, np.nan) == pytest.approx(value, nan_ok=True, rel=1e-6)


def test_forecasts_name_their_signals_and_rivals() -> None:
    coordinates = ZooForecasts(numbers=(4, 2)).coordinates()
    assert coordinates["number"].tolist() == [2, 4]
    assert coordinates["signal"].tolist() == list(SIGNALS)
    assert coordinates["rival"].tolist() == list(RIVALS)


# --- the shipped zoo


@pytest.fixture(scope="module")
def shipped() -> pd.DataFrame:
    zoo, forecasts = (load_result(name) for name in ("zoo.nc", "zoo_forecasts.nc"))
    return zoo_table(forecasts, zoo, labels(zoo))


def test_the_probes_verdict_is_the_fit_to_the_shipped_zoo(shipped: pd.DataFrame) -> None:
    found = verdicts_of(shipped, source=SOURCE)
    assert f"{len(shipped)} networks" in SOURCE
    assert found.keys() == FITTED.keys()
    for kind, fitted in found.items():
        assert fitted.intercept == pytest.approx(FITTED[kind].intercept, rel=2e-3)
        assert fitted.weights == pytest.approx(FITTED[kind].weights, rel=2e-3)


@pytest.mark.slow
def test_on_families_left_out_the_verdict_beats_what_does_not_train(shipped: pd.DataFrame) -> None:
    rivals = [name for name in RIVALS if name in shipped]
    for label, wanted in (("learns_at_all", 0.95), ("learns_fast", 0.94)):
        probability = left_out(shipped, label)
        names = ["verdict", "r_squared_smallest", *rivals]
        board = zoo_scoreboard(shipped.assign(verdict=probability), label, names)
        assert board.index[0] == "verdict"
        assert board["auc"]["verdict"] > wanted
        assert calibration_error(probability, shipped[label]) <= 0.08


def test_a_network_of_the_zoo_is_probed_by_its_number(shipped: pd.DataFrame) -> None:
    images = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    verdict = probe(zoo_network(int(shipped.index[9])), images).verdict
    assert 0 <= verdict.probability <= 1
