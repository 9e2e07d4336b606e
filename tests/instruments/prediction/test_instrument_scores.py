"""What instruments say of networks, as points and as scores."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from paperlib import instruments, measure_point
from paperlib.datasets import load_dataset
from paperlib.instruments.prediction.instrument_forecasts import (
    InstrumentForecast,
    InstrumentForecasts,
    InstrumentPoint,
    InstrumentSweep,
)
from paperlib.instruments.prediction.instrument_scores import (
    grid_table,
    owners,
    said_of,
    seconds_of,
)
from paperlib.networks import untrained
from paperlib.networks.zoo import zoo_network

DIGITS = load_dataset("digits")


def images_and_labels(count: int):
    return DIGITS.floats("train")[:count], DIGITS.labels("train")[:count]


def test_a_forecast_is_what_the_instrument_says_of_that_network_of_the_zoo() -> None:
    point = InstrumentForecast(
        dataset="digits", number=4, instrument="sample_sets", train_images=60
    )
    module = instruments.foretellers()["sample_sets"]
    network = zoo_network(4, (1, *DIGITS.image_shape[1:]), 10)
    said = module.foretell(network, *images_and_labels(60), seed=0)
    found = measure_point(point)
    assert found["scores"][:2].tolist() == [said[name] for name in module.FORETELLS]
    assert np.isnan(found["scores"][2])
    assert found["seconds"] > 0


def test_a_point_of_the_grid_is_what_the_instrument_says_of_that_mlp() -> None:
    point = InstrumentPoint(dataset="digits", sigma_w2=0.9, depth=4, width=30, seed=5,
                            instrument="feature_energy", train_images=50)  # fmt: skip
    module = instruments.foretellers()["feature_energy"]
    network = untrained(point, DIGITS.image_shape, 10)
    said = module.foretell(network, *images_and_labels(50), seed=0)
    assert measure_point(point)["scores"][0] == said["differing energy"]


def test_an_instrument_that_foretells_nothing_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'fewshot' foretells.*did you mean 'few_shot'"):
        InstrumentForecast(instrument="fewshot")
    with pytest.raises(ValueError, match="'forgetting' foretells"):
        InstrumentForecasts(instruments=("forgetting",), numbers=(0,))


def test_the_identity_knows_the_instruments_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def identity() -> str:
        return InstrumentForecast(number=3).identity(code_version=1, checksum="0")

    before = identity()
    monkeypatch.setattr(instruments.foretellers()["few_shot"], "CODE_VERSION", 999)
    assert identity() != before


def forecasts() -> xr.Dataset:
    scores = np.full((2, 3, 3), np.nan)
    scores[0, :, 0] = [0.1, 0.2, np.nan]  # few_shot
    scores[1, :, :2] = [[1.0, 0.5], [0.0, 0.25], [0.3, 0.4]]  # sample_sets
    return xr.Dataset(
        {
            "scores": (("instrument", "number", "score"), scores),
            "seconds": (("instrument", "number"), [[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]]),
            "finished": (("instrument", "number"), [[1, 1, 1], [1, 0, 1]]),
        },
        {"instrument": ["few_shot", "sample_sets"], "number": [3, 5, 8], "score": [0, 1, 2]},
    )


def test_scores_get_their_names_and_what_cannot_be_read_ranks_last() -> None:
    table = said_of(forecasts())
    assert [*table.columns] == ["few-shot accuracy", "different codes", "changing nodes"]
    assert table.index.tolist() == [3, 8]  # 5 is not finished with every instrument
    assert table.loc[3].tolist() == [0.1, 1.0, 0.5]
    assert table.loc[8].tolist() == [-np.inf, 0.3, 0.4]
    seconds = seconds_of(forecasts())
    assert seconds == {"few-shot accuracy": 2.0, "different codes": 4.0, "changing nodes": 4.0}


def test_a_grid_stands_beside_its_trainings_predictors_and_results() -> None:
    axes = {"sigma_w2": [1.0, 2.0], "seed": [0], "depth": [3, 7]}
    index = pd.MultiIndex.from_product(axes.values(), names=axes.keys())
    said = pd.DataFrame({"few-shot accuracy": [0.4, 0.3, 0.2, 0.1]}, index)
    trained = xr.Dataset(
        {
            "accuracy": (("sigma_w2", "depth", "seed"), [[[0.9], [0.1]], [[0.8], [np.nan]]]),
            "finished": (("sigma_w2", "depth", "seed"), [[[1], [1]], [[1], [0]]]),
        },
        axes,
        {"provenance": '{"data": {"classes": 10}}'},
    )  # fmt: skip
    names = ["collapse_depth_ridge", "correlation_depth", "gradient_ratio", "snip"]
    numbers = np.arange(56.0)
    predictions = xr.Dataset(
        {"scores": (("sigma_w2", "seed", "predictor", "depth"), numbers.reshape(2, 1, 4, 7))},
        {"sigma_w2": [1.0, 2.0], "seed": [0], "predictor": names, "depth": np.arange(1, 8)},
    )  # fmt: skip
    bits = xr.DataArray(
        np.arange(14.0).reshape(2, 7), {"sigma_w2": [1.0, 2.0], "level": np.arange(1, 8)}
    )
    result = xr.Dataset(
        {"phase_accuracy": bits.rename(level="depth").expand_dims(network=1, shot=1)}
    )
    table = grid_table(said, trained, predictions, {"few_shot": result})
    assert table["trains"].tolist() == [True, False, True]  # the unfinished network is left out
    assert table["collapse_depth_ridge"].tolist() == [2.0, 6.0, 30.0]
    assert table["few-shot accuracy above the resolution"].tolist() == [2.0, 6.0, 9.0]
    assert "snip" not in table
    assert owners({"few_shot": result})["few-shot accuracy above the resolution"] == "few shot"
    short = result.sel(depth=slice(1, 4))
    assert "few-shot accuracy above the resolution" not in grid_table(
        said, trained, predictions, {"few_shot": short}
    )


def test_points_lie_along_every_axis() -> None:
    sweep = InstrumentSweep(sigma_w2=(1.0, 1.7), seeds=(0, 1), depths=(5, 10, 20),
                            instruments=("sample_sets", "few_shot"))  # fmt: skip
    points = list(sweep.points())
    assert len({point.identity(code_version=1, checksum="0") for point in points}) == 24
    assert sweep.coordinates()["score"].tolist() == [0, 1, 2]
