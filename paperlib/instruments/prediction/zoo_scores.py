"""How well the verdict and its rivals foretold which networks of the zoo learn.

table = zoo_table(forecasts, zoo, labels(zoo))  # a row per network
table["verdict"] = left_out(table, "learns_at_all")  # each family judged by a fit to the others
zoo_scoreboard(table, "learns_at_all")  # AUC with intervals, a row per predictor
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr
from numpy.typing import ArrayLike

from paperlib.core.provenance import provenance
from paperlib.core.seeds import random_numbers
from paperlib.instruments.prediction.scoring import roc_auc
from paperlib.instruments.probe.verdict import (
    FITTED,
    WITH_TRIAL,
    WITHOUT_LABELS,
    WITHOUT_TRIAL,
    Coefficients,
    fit_verdict,
)
from paperlib.meanfield import correlation_depth
from paperlib.networks.kinds import IN_WORDS
from paperlib.sweep.grid import numbered

DRAWS = 1000  # of the bootstrap
LEVEL = 0.95  # of the intervals
BINS = 10  # of predicted probabilities
LOOKS = (20, 30, 100)  # steps after which accuracies were taken
LABELS = ("learns_at_all", "learns_fast", "default_learns_at_all", "default_learns_fast")
MEAN_FIELD = ("mlp", "cnn")  # kinds of networks of which there is a correlation depth
EQUAL_COST = "loss_at_equal_cost"  # of training itself


def zoo_table(forecasts: xr.Dataset, zoo: xr.Dataset, learns: xr.Dataset) -> pd.DataFrame:
    """Return what is known of each network of the zoo, in one row.

    Args:
        forecasts: of `ZooForecasts`, or of `GridForecasts`.
        zoo: of `ZooSweep`, on the same data set; or of `GridTrainings`, of the same grid.
        learns: `labels` of it.

    Returns:
        By number, of the networks that are finished in both: what describes them (family, depth,
        …); the signals and the rivals' scores; `accuracy_20`, `accuracy_30` and `accuracy_100`, the
        best of the trainings after so many steps; `loss_at_equal_cost`, minus the lowest loss of
        the trainings after as many steps of each as the verdict's time pays for, 100 at most, which
        are `steps_paid`; `probe_seconds`, `verdict_seconds`, `step_seconds` of one step of each
        training, and `budget_seconds` that all take to the end of their budget; and the labels.
        What counts steps is left out of trainings that were not looked at early (`TrainingSweep`).

    Raises:
        ValueError: no network is finished in both, or they are of different grids.
    """
    if forecasts["finished"].dims != ("number",):
        _check_same_grid(forecasts, zoo)
        forecasts, zoo = numbered(forecasts), numbered(zoo)
    done = forecasts.isel(number=np.flatnonzero(forecasts["finished"].values == 1))
    numbers = np.intersect1d(done["number"].values, learns["number"].values)
    if not len(numbers):
        raise ValueError("forecasts and zoo have no finished network in common")
    done, zoo, learns = (d.sel(number=numbers) for d in (done, zoo, learns))
    described = {n: c.values for n, c in zoo.coords.items() if c.dims == ("number",)}
    table = pd.DataFrame(described).set_index("number")
    for values, dim in ((done["signals"], "signal"), (done["rivals"], "rival")):
        table[list(values[dim].values)] = values.transpose("number", dim).values
    table["probe_seconds"] = done["probe_seconds"].values
    table["verdict_seconds"] = (done["probe_seconds"] + done["signal_seconds"]).values
    if "training" in zoo.dims:
        table = table.assign(**_of_training(table["verdict_seconds"], zoo))
    return table.assign(**{str(name): values.values for name, values in learns.data_vars.items()})


def _of_training(verdict_seconds: pd.Series, zoo: xr.Dataset) -> dict[str, Any]:
    """What training itself says early, and what it costs, by column of a `zoo_table`."""
    early = {
        f"accuracy_{steps}": zoo["accuracy"].sel(moment=f"{steps} steps").max("training").values
        for steps in LOOKS
    }
    step = (zoo["seconds"] / zoo["steps"]).sum("training").values  # one of each training
    paid = np.clip(verdict_seconds.values / step, 1, zoo.sizes["step"]).astype(int)
    losses = zoo["curve"].rolling(step=10, min_periods=1).mean().fillna(np.inf)
    at_paid = losses.min("training").sel(step=xr.DataArray(paid, dims="number"))
    return early | {
        "step_seconds": step,
        "budget_seconds": provenance(zoo)["config"]["budget"] * step,
        "steps_paid": paid,
        EQUAL_COST: -at_paid.values.astype(float),
    }


def predictors_of(forecasts: xr.Dataset, table: pd.DataFrame | None = None) -> list[str]:
    """Return the columns of a `zoo_table` or a `judged_grid` that foretell, the verdict first; of
    a table that is given, those that it has."""
    rivals = [str(name) for name in forecasts["rival"].values]
    if provenance(forecasts)["config"].get("architecture") in MEAN_FIELD:
        rivals.append("mean_field")
    looks = [f"accuracy_{steps}" for steps in LOOKS]
    names = ["verdict", "r_squared_smallest", *rivals, *looks, EQUAL_COST]
    return names if table is None else [name for name in names if name in table]


def predictor_seconds(table: pd.DataFrame, forecasts: xr.Dataset) -> dict[str, float]:
    """Return what each of `predictors_of` costs, in seconds of the processor for a network.

    Args:
        table: of `zoo_table`.
        forecasts: that it was made of.
    """
    taken = forecasts["rival_seconds"].sel(number=table.index.values).mean("number")
    means = table[["verdict_seconds", "probe_seconds", "step_seconds"]].mean()
    return {
        "verdict": float(means["verdict_seconds"]),
        "verdict_untried": float(means["verdict_seconds"]),  # its trial was not timed alone
        "r_squared_smallest": float(means["probe_seconds"]),
        **{str(name): float(taken.sel(rival=name)) for name in forecasts["rival"].values},
        **{f"accuracy_{steps}": steps * float(means["step_seconds"]) for steps in LOOKS},
        EQUAL_COST: float((table["steps_paid"] * table["step_seconds"]).mean()),
    }


def worst(table: pd.DataFrame, label: str, probability: pd.Series, count: int) -> pd.DataFrame:
    """Return the networks that the verdict was most wrong about, the worst first.

    Args:
        table: of `zoo_table`.
        label: column of what is foretold.
        probability: of `left_out`.
        count: networks.

    Returns:
        By number `family`, `probability`, the label and `best_accuracy`.
    """
    error = (probability - table[label].astype(float)).abs()
    numbers = error.sort_values(ascending=False, kind="stable").index[:count]
    found = table.loc[numbers, ["family", label, "best_accuracy"]]
    found.insert(1, "probability", probability[numbers])
    return found


def left_out(
    table: pd.DataFrame, label: str, *, groups: str = "family", parts: Sequence[str] = ()
) -> pd.Series:
    """Return the verdict's probability for each network, fitted to all families but its own.

    Args:
        table: of `zoo_table`.
        label: column of what is foretold.
        groups: column of what is left out together.
        parts: of the verdict, as for `fit_verdict`.
    """
    found: dict[Any, float] = {}
    for group in table[groups].unique():
        inside = table[groups] == group
        others = table[~inside]
        fitted = fit_verdict(others, others[label].tolist(), source=f"all but {group}", parts=parts)
        rows: list[Any] = table[inside].to_dict("records")
        probabilities = [fitted.probability(row) for row in rows]
        found |= dict(zip(table.index[inside], probabilities, strict=True))
    return pd.Series(found, name="verdict").reindex(table.index)


def verdicts_of(table: pd.DataFrame, *, source: str) -> dict[str, Coefficients]:
    """Return the verdict's coefficients, fitted to all networks: those that the probe ships with.

    Args:
        table: of `zoo_table`.
        source: what the networks are, in words.
    """
    labels = {"best": "learns_at_all", "default": "default_learns_at_all"}
    parts = {"": WITH_TRIAL, " without a trial": WITHOUT_TRIAL, " without labels": WITHOUT_LABELS}
    return {
        f"{kind}{suffix}": fit_verdict(table, table[label].tolist(), source=source, parts=some)
        for suffix, some in parts.items()
        for kind, label in labels.items()
    }


def zoo_scoreboard(
    table: pd.DataFrame,
    label: str,
    names: Sequence[str],
    *,
    against: str = "verdict",
    seed: int = 0,
) -> pd.DataFrame:
    """Return each predictor's AUC with its interval, and how far `against` is above it.

    Intervals are of 95%, by a bootstrap over networks, the same draws for all predictors.

    Args:
        table: of `zoo_table`, with what `left_out` returned.
        label: column of what is foretold.
        names: columns of the predictors; higher foretells that the network learns.
        against: the predictor that the others are compared with.
        seed: of the draws.

    Returns:
        By predictor, the best first: `auc`, `low`, `high`; `ahead`, the AUC of `against` less its
        own, `ahead_low`, `ahead_high`.
    """
    learns = table[label].to_numpy(bool)
    generator = np.random.default_rng(random_numbers("bootstrap", seed).initial_seed())
    draws = generator.integers(len(learns), size=(DRAWS, len(learns)))
    drawn = {name: _aucs(table[name].to_numpy(float), learns, draws) for name in {*names, against}}
    whole = {name: roc_auc(table[name], learns) for name in drawn}
    rows = {}
    for name in names:
        low, high = interval(drawn[name])
        ahead_low, ahead_high = interval(drawn[against] - drawn[name])
        rows[name] = {
            "auc": whole[name],
            "low": low,
            "high": high,
            "ahead": whole[against] - whole[name],
            "ahead_low": ahead_low,
            "ahead_high": ahead_high,
        }
    found = pd.DataFrame.from_dict(rows, orient="index").rename_axis("predictor")
    return found.sort_values("auc", ascending=False, kind="stable")


def judged_grid(
    forecasts: xr.Dataset,
    trained: xr.Dataset,
    learns: xr.Dataset,
    said: Sequence[pd.DataFrame] = (),
) -> pd.DataFrame:
    """Return what is known of each network of a grid, in one row, with the verdict's probability.

    The verdict is that which the probe ships with: it was fitted to the zoo, to no such grid.

    Args:
        forecasts: of `GridForecasts`.
        trained: of `GridTrainings`, of the same grid.
        learns: `labels` of it.
        said: of `instrument_scores.said_of`, by sigma_w2, seed and depth.

    Returns:
        as `zoo_table`, with sigma_w2, seed and depth; `verdict`; `mean_field`, 6 ξ_c over depth,
        where there is a ξ_c; and the columns of `said`.

    Raises:
        ValueError: as `zoo_table`.
    """
    table = zoo_table(forecasts, trained, learns)
    rows: list[Any] = table.to_dict("records")
    table["verdict"] = [FITTED["best"].probability(row) for row in rows]
    config = provenance(forecasts)["config"]
    if config["architecture"] in MEAN_FIELD:
        lengths = {
            sigma_w2: correlation_depth(
                sigma_w2, config["sigma_b2"], activation=config["activation"]
            )
            for sigma_w2 in config["sigma_w2"]
        }
        table["mean_field"] = 6 * table["sigma_w2"].map(lengths) / table["depth"]
    for columns in said:
        table = table.join(columns, on=[str(name) for name in columns.index.names], how="inner")
    return table


def grid_name(trained: xr.Dataset) -> str:
    """Return a grid of trained networks in words: "grid of CNNs"; it says where each network was
    trained in one way only."""
    config = provenance(trained)["config"]
    one_way = "" if "trained_by" in config else ", trained in one way"
    return f"grid of {IN_WORDS[config['architecture']]}s{one_way}"


def trained_longer(networks: pd.DataFrame, longer: xr.Dataset, learns: xr.Dataset) -> pd.DataFrame:
    """Return the networks of a grid that were also trained with another budget.

    Args:
        networks: of `judged_grid`.
        longer: of `GridTrainings`, of some of the same networks.
        learns: `labels` of it.

    Returns:
        Their rows of `networks`; `learns_longer` is the label of the other trainings, and
        `longer_accuracy` their best accuracy. `attrs["budget"]` is the other budget in steps,
        `attrs["trained_by"]` the names of the trainings.
    """
    place = ["sigma_w2", "seed", "depth"]
    known = learns.to_dataframe()[[*place, "learns_at_all", "best_accuracy"]]
    known.columns = pd.Index([*place, "learns_longer", "longer_accuracy"])
    found = networks.merge(known, on=place)
    config = provenance(longer)["config"]
    found.attrs |= {name: config[name] for name in ("budget", "trained_by")}
    return found


def interval(drawn: ArrayLike) -> tuple[float, float]:
    """Return where the middle 95% of a bootstrap's values lie; NaN ones are left out."""
    low, high = np.nanquantile(np.asarray(drawn, float), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def reliability(probability: ArrayLike, learns: ArrayLike, *, bins: int = BINS) -> pd.DataFrame:
    """Return how often networks learn, by their predicted probability.

    Args:
        probability: (networks,), 0 to 1.
        learns: (networks,), true or false.
        bins: of equal width.

    Returns:
        A row for each bin that is not empty: `predicted`, the mean probability, `share` that
        learns, and `networks`.
    """
    values, labels = np.asarray(probability, float), np.asarray(learns, bool)
    place = np.minimum((values * bins).astype(int), bins - 1)
    frame = pd.DataFrame({"bin": place, "predicted": values, "share": labels, "networks": 1})
    how = {"predicted": "mean", "share": "mean", "networks": "sum"}
    return frame.groupby("bin").agg(how)


def calibration_error(probability: ArrayLike, learns: ArrayLike, *, bins: int = BINS) -> float:
    """Return the expected calibration error: mean |predicted − share| over the networks.

    Source: Naeini et al. 2015, with bins of equal width.

    Example:
        >>> from paperlib.instruments.prediction.zoo_scores import calibration_error
        >>> round(calibration_error([0.2, 0.2, 0.2, 0.2, 0.9], [0, 0, 0, 1, 1]), 2)
        0.06
    """
    found = reliability(probability, learns, bins=bins)
    gaps = (found["predicted"] - found["share"]).abs()
    return float((gaps * found["networks"]).sum() / found["networks"].sum())


def changed_labels(learns: xr.Dataset, longer: xr.Dataset, label: str) -> tuple[int, int]:
    """Return how many labels a larger budget changes, and of how many networks.

    Args:
        learns, longer: `labels` of two zoos; networks of both are compared.
        label: which.
    """
    numbers = np.intersect1d(learns["number"].values, longer["number"].values)
    changed = learns[label].sel(number=numbers) != longer[label].sel(number=numbers)
    return int(changed.sum()), len(numbers)


def _aucs(scores: np.ndarray, learns: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The AUC on each draw (draws, networks) of networks; NaN where all learn, or none."""
    ranks = scipy.stats.rankdata(scores[draws], axis=1)  # of ties the mean, which count half
    labels = learns[draws]
    ones = labels.sum(1)
    zeros = labels.shape[1] - ones
    wins = (ranks * labels).sum(1) - ones * (ones + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((ones > 0) & (zeros > 0), wins / (ones * zeros), np.nan)


def _check_same_grid(forecasts: xr.Dataset, trained: xr.Dataset) -> None:
    first, second = (provenance(result)["config"] for result in (forecasts, trained))
    shared = (first.keys() & second.keys()) - {"fallback", "train_images", "test_images"}
    different = [n for n in sorted(shared) if first[n] != second[n]]
    if different:
        found = ", ".join(f"{name} ({first[name]} and {second[name]})" for name in different)
        raise ValueError(f"forecasts and trainings must be of one grid; they differ in {found}")
