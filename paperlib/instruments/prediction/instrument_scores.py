"""How well what the instruments say of untrained networks foretold which of them learn.

said = said_of(forecasts)  # a row per network, a column per score
board = zoo_scoreboard(table.join(said), "learns_at_all", [*said])  # AUC with intervals
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from paperlib import instruments
from paperlib.training.outcome import accuracy_of, threshold_of

NOTHING = -np.inf  # the score of a network that an instrument cannot read: it ranks last
# predictors of `PredictorSweep` that the instruments stand beside on the grid
BESIDE = ("collapse_depth_ridge", "correlation_depth", "gradient_ratio")


def said_of(forecasts: xr.Dataset) -> pd.DataFrame:
    """Return what the instruments said, in a column per score.

    Args:
        forecasts: of `InstrumentForecasts` or `InstrumentSweep`.

    Returns:
        By number, or by sigma_w2, seed and depth, of the networks that all of its instruments are
        finished with. A network that an instrument cannot read has the lowest score there is.
    """
    rest = [dim for dim in forecasts["finished"].dims if dim != "instrument"]
    columns = {}
    modules = instruments.foretellers()
    for name in forecasts["instrument"].values:
        scores = forecasts["scores"].sel(instrument=name)
        for number, score in enumerate(modules[str(name)].FORETELLS):
            columns[score] = scores.isel(score=number).transpose(*rest).to_series()
    done = (forecasts["finished"] == 1).all("instrument").transpose(*rest).to_series()
    return pd.DataFrame(columns)[done].fillna(NOTHING)


def seconds_of(forecasts: xr.Dataset) -> dict[str, float]:
    """Return what each score costs, in seconds of the processor for a network, its whole
    instrument's."""
    modules = instruments.foretellers()
    rest = [dim for dim in forecasts["seconds"].dims if dim != "instrument"]
    taken = forecasts["seconds"].mean(rest).to_series()
    return {score: float(taken[name]) for name in taken.index for score in modules[name].FORETELLS}


def owners(results: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Return the instrument, in words, of every score that instruments foretell or that their
    results hold by sigma_w2 and depth.

    Args:
        results: of instruments, by name.
    """
    pairs = [
        (score, name) for name, m in instruments.foretellers().items() for score in m.FORETELLS
    ]
    pairs += [(score, name) for name, result in results.items() for score in _theirs(name, result)]
    return {score: name.replace("_", " ") for score, name in pairs}


def grid_table(
    said: pd.DataFrame,
    trained: xr.Dataset,
    predictions: xr.Dataset,
    results: Mapping[str, xr.Dataset],
) -> pd.DataFrame:
    """Return what is known of each network of a grid of trained MLPs, in one row.

    Args:
        said: of `said_of`.
        trained: of `TrainingSweep`: `accuracy` and `finished` (sigma_w2, seed, depth).
        predictions: of `PredictorSweep`, of the same networks.
        results: of instruments, by name: what their `scores` say by sigma_w2 and depth, or level,
            is added if it covers the grid and has not been said of these very networks.

    Returns:
        By sigma_w2, seed and depth: what was said; the predictors of `BESIDE`;
        `trains`, whether the accuracy reaches the grid's threshold.
    """
    accuracy = accuracy_of(trained).transpose("sigma_w2", "seed", "depth").to_series().dropna()
    table = said.join(accuracy, how="inner")
    for name in BESIDE:
        one = predictions["scores"].sel(predictor=name, drop=True)
        table[name] = one.transpose("sigma_w2", "seed", "depth").to_series()
    table["trains"] = table.pop("accuracy") >= threshold_of(trained)
    for name, result in results.items():
        for score, values in _theirs(name, result).items():
            theirs = values.to_series().rename("theirs")
            found = table.join(theirs, on=["sigma_w2", "depth"])["theirs"]
            if found.notna().all() and score not in table:
                table[score] = found
    return table


def _theirs(name: str, result: xr.Dataset) -> dict[str, xr.DataArray]:
    """What the scores of an instrument's own result say by sigma_w2 and depth."""
    module: Any = instruments.modules()[name]
    found: dict[str, xr.DataArray] = {}
    if not hasattr(module, "scores"):
        return found
    for score, values in module.scores(result).items():
        values = values.rename(level="depth") if "level" in values.dims else values
        if set(values.dims) == {"sigma_w2", "depth"}:
            found[score] = values.transpose("sigma_w2", "depth")
    return found
