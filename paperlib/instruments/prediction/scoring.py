"""How well predictors of trainability agree with networks that were really trained.

    table = scoreboard(predictions, trained)  # a row per predictor
    wrong = mistakes(predictions, trained)  # where each one errs

`predictions` holds `scores` (sigma_w2, seed, predictor, depth) of untrained networks, finite and
higher where a network is more likely to train, with depth = 1 … the deepest, and `seconds`
(sigma_w2, seed, predictor). `trained` holds `accuracy`, `seconds` and `finished` (sigma_w2, seed,
depth), as a sweep of trainings returns them. Points that are not finished are left out.

A network trains if its accuracy reaches `trained_threshold`. A predictor says that it does if its
score reaches a threshold. Scores of different predictors have no common unit, so each predictor has
a threshold of its own, the same for all variances and depths: the one that is wrong least often on
the other seeds (on the same seed if there is only one). Predictors with the score 1 - depth/end get
one, too: they are right if networks train down to a fixed multiple of their end. Only
`unfitted_error` uses such a score without a fitted threshold, including the 6 in 6 ξ_c.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score

from paperlib.cascade.fitting import SOLVERS
from paperlib.core.provenance import on_gpu, provenance
from paperlib.instruments.prediction.names import DEPTHS_REACHED
from paperlib.training.outcome import accuracy_of, threshold_of, trainable_depth

_Row = dict[str, float]
OF_DEPTH = (  # predictors whose scores are above 0 just down to a depth of their own
    *(f"{name}_{solver}" for name in DEPTHS_REACHED for solver in SOLVERS),
    "correlation_depth",
)
_LABELS = {
    "r_squared": "R²",
    "collapse_depth": "collapse depth of R²",
    "gram_entropy": "Gram entropy",
    "cutoff": "published cutoff",
    "correlation_depth": "6 ξ_c (mean field)",
    "naswot": "NASWOT",
    "snip": "SNIP",
    "synflow": "SynFlow",
    "ntk_condition": "NTK condition number",
}
_FITTED = {"ridge": "closed form", "adam": "Adam"}
_COLUMN = ("sigma_w2", "seed")  # one untrained network predicts all depths


def predictor_label(name: str) -> str:
    """Return a predictor's name in figures, e.g. "R², closed form" of r_squared_ridge."""
    measure, _, solver = name.rpartition("_")
    if solver in _FITTED:
        return f"{predictor_label(measure)}, {_FITTED[solver]}"
    return _LABELS.get(name, name.replace("_", " "))


def roc_auc(scores: ArrayLike, trains: ArrayLike) -> float:
    """Return the chance that, of two networks, the one that trains scores higher; ties count half.

    NaN where all networks train, or none: there is nothing to tell apart.

    Args:
        scores: (networks,), finite.
        trains: (networks,), true or false.
    """
    labels = np.asarray(trains, bool)
    if labels.all() or not labels.any():
        return np.nan
    ranks = scipy.stats.rankdata(np.asarray(scores, float))  # differences of scores may overflow
    return float(roc_auc_score(labels, ranks))


def best_threshold(scores: ArrayLike, trains: ArrayLike) -> float:
    """Return the threshold at which "it trains if its score reaches it" is wrong least often.

    It lies halfway between two neighbouring scores, or is infinite if all networks train or none
    does; of several that are as good it is the middle one, and the higher of two.

    Args:
        scores: (networks,), finite.
        trains: (networks,), true or false.
    """
    values, labels = np.asarray(scores, float), np.asarray(trains, bool)
    distinct = np.unique(values)
    between = distinct[:-1] / 2 + distinct[1:] / 2  # their sum may overflow
    candidates = np.concatenate([[-np.inf], between, [np.inf]])
    wrong = ((values >= candidates[:, np.newaxis]) != labels).sum(1)
    best = candidates[wrong == wrong.min()]
    return float(best[len(best) // 2])


def rank_correlation(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Spearman's correlation; 0 if all predictions are equal, since they order nothing.

    NaN if all measured values are equal: there is no order to predict.
    """
    first, second = np.asarray(predicted, float), np.asarray(measured, float)
    if np.ptp(second) == 0:
        return np.nan
    return float(scipy.stats.spearmanr(first, second).statistic) if np.ptp(first) else 0.0


def scoreboard(predictions: xr.Dataset, trained: xr.Dataset) -> pd.DataFrame:
    """Each predictor's agreement with the trainings and its cost, the highest AUC first.

    Args:
        predictions, trained: of the same variances and seeds; see the module.

    Returns:
        By predictor: `auc`, the ROC-AUC of "this network trains" over all variances and depths,
        the mean over seeds, and `auc_std`, its standard deviation (n - 1); `spearman`, the
        rank correlation over variances between predicted and measured `trainable_depth`, and
        `depth_error`, their mean absolute difference in depth, both on the depths of the grid and
        means over seeds; `unfitted_error`, the same without any fitted threshold, for predictors
        that state a depth themselves (`OF_DEPTH`); `seconds` for one untrained network at all its
        depths; `saving`, the seconds of training the grid over those of predicting it. NaN where a
        measure is not defined, see `roc_auc` and `rank_correlation`, or one side ran on a GPU.

    Raises:
        KeyError: a variable is missing, or the provenance of the trainings.
        ValueError: other dims, grids that differ, scores that are not finite, or no training that
            is finished and has learnt anything.
    """
    scores, trains = _compared(predictions, trained)
    rows = [
        {"predictor": name, **agreement}
        for name, theirs in zip(scores["predictor"].values, scores.values, strict=True)
        for agreement in _agreements(theirs, trains.values, trains["depth"].values)
    ]
    by_predictor = pd.DataFrame(rows).groupby("predictor", sort=False)
    table = by_predictor.mean()
    table.insert(1, "auc_std", by_predictor["auc"].std())
    table.loc[~table.index.isin(OF_DEPTH), "unfitted_error"] = np.nan
    seconds = predictions["seconds"].where(trains.notnull().any("depth"))
    table["seconds"] = seconds.mean(_COLUMN).to_series()
    training = float(trained["seconds"].where(trains.notnull()).sum())
    comparable = on_gpu(trained) == on_gpu(predictions)
    table["saving"] = training / seconds.sum(_COLUMN).to_series() if comparable else np.nan
    return table.sort_values("auc", ascending=False, kind="stable")


def names_of(trainings: Sequence[xr.Dataset]) -> list[str]:
    """Return a name for each grid: its data set, the kind of network where that is no MLP, and of
    MLPs how many rates they were trained at, where these are several."""
    names = []
    for about in map(provenance, trainings):
        kind, rates = about["config"].get("architecture", "mlp"), about["config"].get("trained_by")
        parts = [about["data"]["name"]]
        if kind != "mlp":
            parts.append(kind)
        elif rates:
            parts.append(f"{len(rates)}_rates")
        names.append("_".join(parts))
    return names


def mistakes(predictions: xr.Dataset, trained: xr.Dataset) -> xr.DataArray:
    """Return the signed share of seeds in which a predictor errs, (predictor, sigma_w2, depth).

    Above 0 where it says that networks train that do not, below 0 where it misses ones that do;
    one of each cancel. NaN where no training is finished; a variance without any is left out.
    Arguments and errors as in `scoreboard`.
    """
    scores, trains = _compared(predictions, trained)
    says = np.stack([_verdicts(theirs, trains.values) for theirs in scores.values])
    return (scores.copy(data=says) - trains).mean("seed").rename("mistakes")


def _agreements(scores: np.ndarray, trains: np.ndarray, depths: np.ndarray) -> Iterator[_Row]:
    """For each seed what one predictor's scores (sigma_w2, seed, depth) are worth."""
    says = _verdicts(scores, trains)
    for seed in range(trains.shape[1]):
        known = ~np.isnan(trains[:, seed])
        columns = known.any(-1)
        measured = trainable_depth(trains[columns, seed], depths, 1)
        predicted = trainable_depth(says[columns, seed], depths, 1)
        positive = np.where(known, scores[:, seed] > 0, np.nan)
        unfitted = trainable_depth(positive[columns], depths, 1)
        yield {
            "auc": roc_auc(scores[:, seed][known], trains[:, seed][known]),
            "spearman": rank_correlation(predicted, measured),
            "depth_error": float(np.abs(predicted - measured).mean()),
            "unfitted_error": float(np.abs(unfitted - measured).mean()),
        }


def _verdicts(scores: np.ndarray, trains: np.ndarray) -> np.ndarray:
    """What one predictor says of each network, as `trains` tells what is true.

    Args:
        scores: (sigma_w2, seed, depth).
        trains: the same; 1 or 0, NaN where a training is not finished.
    """
    known, says = ~np.isnan(trains), np.empty_like(trains)
    seeds = np.arange(trains.shape[1])
    for seed in seeds:
        others = seeds != seed if len(seeds) > 1 else seeds == seed
        fitted = known & others[:, np.newaxis]
        says[:, seed] = scores[:, seed] >= best_threshold(scores[fitted], trains[fitted])
    return np.where(known, says, np.nan)


def _compared(predictions: xr.Dataset, trained: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Scores (predictor, sigma_w2, seed, depth), and which networks train (sigma_w2, seed, depth).

    The latter is 1 or 0, NaN where a training is not finished; seeds and variances of which none is
    finished are left out, and depths that were not trained.
    """
    check_dims("predictions", predictions["scores"], (*_COLUMN, "predictor", "depth"))
    check_dims("predictions", predictions["seconds"], (*_COLUMN, "predictor"))
    accuracy = accuracy_of(trained)
    for array in (accuracy, trained["seconds"].sum({"training"} & {*trained.dims}),
                  trained["finished"]):  # fmt: skip
        check_dims("trained", array, (*_COLUMN, "depth"))
    _check_grids(predictions, trained)
    accuracy = accuracy.transpose(*_COLUMN, "depth")
    for axis in _COLUMN:
        accuracy = accuracy.dropna(axis, how="all")
    trains = (accuracy >= threshold_of(trained)).where(accuracy.notnull())
    grid = {axis: trains[axis] for axis in trains.dims}
    scores = predictions["scores"].sel(grid).transpose("predictor", *trains.dims).astype(float)
    broken = ~np.isfinite(scores.values).reshape(len(scores), -1).all(1)
    if broken.any():
        names = ", ".join(map(str, scores["predictor"].values[broken]))
        raise ValueError(f"scores must be finite; some of {names} are not")
    return scores, trains


def check_dims(owner: str, array: xr.DataArray, expected: Sequence[str]) -> None:
    if set(array.dims) != set(expected):
        raise ValueError(
            f"{array.name} of {owner} must have the dims {', '.join(expected)}; "
            f"got {', '.join(map(str, array.dims))}"
        )


def _check_grids(predictions: xr.Dataset, trained: xr.Dataset) -> None:
    for axis in _COLUMN:
        here, there = (set(d[axis].values.tolist()) for d in (predictions, trained))
        if here != there:
            raise ValueError(
                f"predictions and trainings must have the same {axis}; only predicted: "
                f"{sorted(here - there)}, only trained: {sorted(there - here)}; choose with .sel"
            )
    missing = set(trained["depth"].values.tolist()) - set(predictions["depth"].values.tolist())
    if missing:
        raise ValueError(f"every trained depth needs a prediction; {sorted(missing)} have none")
