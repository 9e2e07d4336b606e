"""What networks that were really trained say beside cascades of untrained ones."""

import math

import numpy as np
import xarray as xr

from paperlib.core.provenance import on_gpu, provenance
from paperlib.instruments.prediction.scoring import rank_correlation
from paperlib.instruments.prediction.zoo_scores import zoo_scoreboard
from paperlib.instruments.reconstruction.tables import trained_walls
from paperlib.measures import LOST
from paperlib.notebooks.findings.cascades import depth_in_words, trainable_by_mean_field
from paperlib.notebooks.findings.published import form_of
from paperlib.notebooks.findings.wording import (
    counted,
    listed,
    number,
    paragraphs,
    percent,
    short,
    spread,
    table,
)
from paperlib.plots import collapse_depths, seeds_of
from paperlib.plots.labels import describe_training
from paperlib.training.outcome import accuracy_of, threshold_of, trainable_depth


def of_other_data(trained: xr.Dataset, result: xr.Dataset) -> str:
    """Return a sentence that trainings are of other data than a run; empty where they are not."""
    first, second = (provenance(r)["data"] for r in (trained, result))
    if first["checksum"] == second["checksum"]:
        return ""
    return (
        f"**Which networks train: nothing is said of this run.** The trainings shown above are a "
        f"result of their own, on {first['name']}; this run is on {second['name']}."
    )


def unlike(trained: xr.Dataset, result: xr.Dataset) -> str:
    """Return in what networks that were trained differ from a run's own; empty if in nothing."""
    theirs, own = (_network(r) for r in (trained, result))
    different = [
        f"{name} {theirs[name]} (here {own[name]})" for name in own if theirs[name] != own[name]
    ]
    if not different:
        return ""
    return f"They are not the networks of the maps above, but have {listed(different)}."


def _network(result: xr.Dataset) -> dict[str, str]:
    about = provenance(result)
    config = about["config"]
    size = {"width": f"{config['width'] or about['data']['pixels']}"}
    if config["architecture"] != "mlp":
        size = {"channels": f"{config['channels']}", "form": form_of(config)}
    shared = {"activation": config["activation"], "σ_b²": f"{config['sigma_b2']:g}"}
    return {"shape": config["shape"], **size, **shared}


def budget(trained: xr.Dataset) -> str:
    """Return how networks were trained, how many, and what counts as trained.

    Raises:
        ValueError: no network has learnt anything.
    """
    accuracy, form = accuracy_of(trained), form_of(provenance(trained)["config"])
    best = percent(float(accuracy.max()), 0)
    seconds = trained["seconds"].where(accuracy.notnull()) if "seconds" in trained else None
    unit = "GPU" if on_gpu(trained) else "CPU"
    spent = "" if seconds is None else f"; {number(float(seconds.sum()), 0)} {unit} seconds in all"
    diverged = (
        int(trained["diverged"].where(accuracy.notnull(), 0).sum()) if "diverged" in trained else 0
    )
    failed = f" {counted(diverged, 'training')} diverged." if diverged else ""
    return (
        f"Of {counted(int(accuracy.notnull().sum()), 'network')} that were trained "
        f"({describe_training(trained)}{f'  ·  form: {form}' if form else ''}{spent}) the best "
        f"reaches {best} accuracy. Those that reach {percent(threshold_of(trained), 0)}, halfway "
        f"from chance to the best, count as trained.{failed}"
    )


def measured_depths(trained: xr.Dataset) -> xr.DataArray:
    """Return the deepest depth that trains, dims sigma_w2 and seed; 0 where none does.

    Raises:
        ValueError: no network has learnt anything.
    """
    return xr.apply_ufunc(
        trainable_depth,
        accuracy_of(trained),
        trained.depth,
        threshold_of(trained),
        input_core_dims=[["depth"], ["depth"], []],
    ).transpose("sigma_w2", "seed")


def trained_depths(trained: xr.Dataset, predicted: xr.Dataset, result: xr.Dataset) -> str:
    """Return which depths train, beside where untrained networks of the same kind lose the image.

    Args:
        trained: trainings of fully connected networks.
        predicted: cascades of such networks.
        result: the run's own cascades; of other data, nothing is said.
    """
    other = of_other_data(trained, result)
    if other:
        return other
    try:
        said, measured = budget(trained), measured_depths(trained)
    except ValueError as error:
        return f"**Which networks train.** Nothing can be said: {error}."
    rows, pairs = [], []
    for at in measured:
        sigma_w2 = float(at.sigma_w2)
        if at.isnull().all():
            continue
        expected, words = _interpolated(predicted, sigma_w2)
        theory = depth_in_words(trainable_by_mean_field(predicted, sigma_w2))
        rows.append([short(sigma_w2), _deepest(at.values.tolist(), trained), words, theory])
        pairs.append((expected, float(at.mean())))
    last = f"measured to depth {predicted.sizes['depth']}"
    return paragraphs(
        f"**Which networks train.** {said} {unlike(trained, result)}".rstrip(),
        f"Beside the deepest networks that train (mean over {seeds_of(trained)}) stands the depth "
        f"from which untrained ones have lost the image (R² < {LOST:g}, {seeds_of(predicted)}, "
        f"{last}, interpolated between the variances of its grid).",
        table(["σ_w²", "deepest that trains", "image lost from", "6 ξ_c"], rows),
        _verdict(pairs),
    )


def _deepest(depths: list[float], trained: xr.Dataset) -> str:
    """A measured depth; "≥" where the deepest network of the grid trains."""
    known = [depth for depth in depths if not math.isnan(depth)]
    if not any(known):
        return "none"
    censored = any(depth == int(trained.depth[-1]) for depth in known)
    return f"{'≥ ' if censored else ''}{spread(known, 0)}"


def _interpolated(predicted: xr.Dataset, sigma_w2: float) -> tuple[float, str]:
    """Where the image is lost at a variance between those of the grid, and the same in words."""
    depths, grid = collapse_depths(predicted).mean("seed"), predicted.sigma_w2.values
    known = depths.notnull().values
    if not known.any() or not grid[known][0] <= sigma_w2 <= grid[known][-1]:
        return math.nan, "outside of its grid"
    found = float(np.interp(sigma_w2, grid[known], depths.values[known]))
    right = min(int(np.searchsorted(grid[known], sigma_w2)), known.sum() - 1)
    left = right if grid[known][right] == sigma_w2 else max(0, right - 1)
    last = predicted.sizes["depth"]
    censored = (depths.values[known][[left, right]] > last).any()
    return found, f"≥ {min(found, last):.0f}" if censored else number(found, 0)


def _verdict(pairs: list[tuple[float, float]]) -> str:
    """How the predicted depths stand to the measured ones."""
    known = np.array([pair for pair in pairs if not math.isnan(pair[0])]).reshape(-1, 2)
    if len(known) < 3:
        return ""
    order = rank_correlation(known[:, 0], known[:, 1])
    deeper = int((known[:, 0] > known[:, 1]).sum())
    ranked = (
        ""
        if math.isnan(order)
        else f" The order of the variances correlates {number(order)} (Spearman)."
    )
    return (
        f"The image is lost deeper than networks train at {deeper} of {len(known)} variances; the "
        f"two differ by {number(float(np.abs(known[:, 0] - known[:, 1]).mean()), 0)} stages on "
        f"average.{ranked}"
    )


def trained_at_depths(trained: xr.Dataset, result: xr.Dataset) -> str:
    """Return between which variances convolutional networks train, and what arrives there.

    Args:
        trained: trainings of convolutional networks.
        result: the run's own cascades; of other data, nothing is said.
    """
    other = of_other_data(trained, result)
    if other:
        return other
    try:
        said, found = budget(trained), trained_walls(trained)
    except ValueError as error:
        return f"**Which networks train.** Nothing can be said: {error}."
    rows = []
    for depth, (first, last, best) in found.iterrows():
        arriving = [_kept_at(result, int(str(depth)), edge) for edge in (first, last)]
        ends = [edge if isinstance(edge, str) else short(edge) for edge in (first, last)]
        rows.append([depth, ends[0], arriving[0], ends[1], arriving[1], percent(best)])
    columns = ["depth", "trains from σ_w²", "R² there", "to σ_w²", "R² there", "best accuracy"]
    return paragraphs(
        f"**Which networks train.** {said} {unlike(trained, result)}".rstrip(),
        "“R² there” is what arrives in the untrained networks of this run at that variance and "
        f"depth, {seeds_of(result)}; `none`: networks train to the end of the grid, or none does.",
        table(columns, rows),
        _foretold(trained, result),
    )


def _foretold(trained: xr.Dataset, result: xr.Dataset) -> str:
    """How well R² at the same variance and depth tells which networks train."""
    grid, depths = result.sigma_w2.values, result.depth.values
    accuracy = accuracy_of(trained).to_series().dropna().reset_index()
    within = accuracy["sigma_w2"].between(grid[0], grid[-1]) & accuracy["depth"].isin(depths)
    networks = accuracy[within]
    trains = networks["accuracy"] >= threshold_of(trained)
    if trains.all() or not trains.any():
        alike = "all train" if len(trains) and trains.all() else "none trains"
        return f"Of {counted(len(trains), 'network')} within this run's grid {alike}."
    curve = result["r_squared"].mean("seed")
    kept = [
        float(np.interp(sigma_w2, grid, curve.sel(depth=depth)))
        for sigma_w2, depth in zip(networks["sigma_w2"], networks["depth"], strict=True)
    ]
    board = zoo_scoreboard(
        networks.assign(r_squared=kept, trains=trains), "trains", ["r_squared"], against="r_squared"
    ).iloc[0]
    return (
        f"R² at the same variance and depth tells apart the {int(trains.sum())} that train and the "
        f"{int((~trains).sum())} that do not with an AUC of {number(board['auc'], 3)} "
        f"({number(board['low'], 3)} to {number(board['high'], 3)}); notebook 09 has the same for "
        "other predictors, of the very networks that were trained."
    )


def _kept_at(result: xr.Dataset, depth: int, sigma_w2: float | str) -> str:
    """R² at a depth and a variance between those of the grid."""
    grid = result.sigma_w2.values
    if (
        isinstance(sigma_w2, str)
        or depth not in result.depth
        or not grid[0] <= sigma_w2 <= grid[-1]
    ):
        return "–"
    return number(
        float(np.interp(sigma_w2, grid, result["r_squared"].sel(depth=depth).mean("seed")))
    )
