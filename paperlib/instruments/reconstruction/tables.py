"""Tables from results: a Dataset goes in, a pandas DataFrame comes out, as notebooks show it."""

import numpy as np
import pandas as pd
import xarray as xr

from paperlib.core.provenance import provenance
from paperlib.measures import LOST, collapse_depth
from paperlib.plots import (
    ENTROPY_PUBLISHED,
    PUBLISHED_WALLS,
    check_comparable,
    published_depths,
    published_entropy,
    signal_path,
    solver_name,
)
from paperlib.training.outcome import accuracy_of, threshold_of, wall


def against_published(result: xr.Dataset) -> pd.DataFrame:
    """Return a table: by σ_w² of the grid, the published depth and where this result's curves fall.

    Of the mean over seeds, the first depth from which R² stays below 0.02, and from which the
    differential entropy stays below -13, the published one where the result has it; without the
    variances of which no point is finished, and empty where the network is not the published one.
    """
    rows = {}
    entropy = published_entropy(result)
    known = result.sigma_w2[(result["finished"] == 1).any("seed")]
    for sigma_w2, depth in published_depths(result).items():
        if sigma_w2 in known:
            at = result.sel(sigma_w2=sigma_w2).mean("seed")
            measured = [
                collapse_depth(at[name].values, threshold=threshold)
                for name, threshold in (("r_squared", LOST), (entropy, -13))
            ]
            last = result.sizes["depth"]
            rows[sigma_w2] = (depth, *(d if d <= last else f"> {last}" for d in measured))
    columns = ["published (−13 nats)", f"here: R² < {LOST:g}", _at_level(13, entropy)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("σ_w²")


def best_variances(result: xr.Dataset) -> pd.DataFrame:
    """Return a table of the σ_w² that keeps most at the last depth, and of how much is kept."""
    measures = result[["r_squared", "gram_entropy"]].isel(depth=-1, drop=True).mean("seed")
    last = measures.to_dataframe().astype(float)
    return pd.DataFrame(
        {
            "best σ_w²": last.idxmax(),
            f"there, at depth {result.sizes['depth']}": last.max(),
            f"at σ_w² = {last.index[0]:g}": last.iloc[0],
            f"at σ_w² = {last.index[-1]:g}": last.iloc[-1],
        }
    ).round(3)


def walls(result: xr.Dataset) -> pd.DataFrame:
    """Return a table: by depth, the published σ_w² below which nothing returns, and this result's.

    Of the mean over seeds, where R² rises to 0.02 and the differential entropy to -13 and to -10,
    the published one where the result has it; by mean field, where the signal rises to the
    resolution (see the lines of the figures). `none` where they are above that at the smallest
    σ_w² of the grid. The published walls were read by eye off the figures of arXiv:2406.12916 (of
    the ResNet, where its ragged wall ends).

    Args:
        result: of convolutional networks; mean field's λ is that of the closed form.
    """
    config, grid = provenance(result)["config"], result.sigma_w2.values
    entropy = published_entropy(result)
    signals = np.array([signal_path(float(s), result)[1] for s in grid])
    rows = {}
    for depth, published in PUBLISHED_WALLS[config["architecture"]].items():
        if depth <= result.sizes["depth"]:
            at = result.sel(depth=depth).mean("seed")
            rows[depth] = [
                published,
                wall(at["r_squared"].values, grid, LOST),
                wall(at[entropy].values, grid, -13),
                wall(at[entropy].values, grid, -10),
                wall(np.log(signals[:, depth]), grid, np.log(config["resolution"])),
            ]
    by_entropy = [_at_level(level, entropy) for level in (13, 10)]
    columns = ["published", f"here: R² = {LOST:g}", *by_entropy, "mean field: signal = λ"]
    return _by_depth(rows, columns)


def _at_level(level: int, entropy: str) -> str:
    """The name of the column of where the entropy is at minus this level, and which of the two."""
    return (
        f"here: −{level} nats, {'as published' if entropy == ENTROPY_PUBLISHED else 'not shifted'}"
    )


def trained_walls(trained: xr.Dataset) -> pd.DataFrame:
    """Return a table: by trained depth, between which σ_w² networks train, and how well at best.

    Trained is what comes halfway from chance to the best accuracy of the grid, mean over seeds;
    `none` where the grid's first or last variance trains still, or no network of that depth does.
    """
    threshold, grid = threshold_of(trained), trained.sigma_w2.values
    accuracy = accuracy_of(trained).mean("seed")
    rows = {}
    for depth in trained.depth.values:
        values = accuracy.sel(depth=depth).values
        ends = (wall(values, grid, threshold), -wall(values[::-1], -grid[::-1], threshold))
        rows[depth] = [*ends, np.nanmax(values)]
    columns = ["trains from σ_w²", "to σ_w²", "best accuracy"]
    return _by_depth(rows, columns)


def _by_depth(rows: dict[int, list[float]], columns: list[str]) -> pd.DataFrame:
    """A row for each depth, rounded; `none` where there is no number."""
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)
    return table.rename_axis("depth").round(3).astype(object).where(table.notna(), "none")


def same_points(result: xr.Dataset, other: xr.Dataset) -> pd.DataFrame:
    """Return a table: R² of two solvers for the networks that both have, at a few depths of both.

    Raises:
        ValueError: different data or networks.
    """
    check_comparable(result, other)
    both = xr.align(result, other, join="inner", exclude=("shown_depth",))
    deepest = both[0].sizes["depth"]
    depths = sorted({1, *(max(1, round(deepest * part)) for part in (0.25, 0.5, 1.0))})
    values = xr.concat([r["r_squared"].sel(depth=depths).mean("seed") for r in both], "solver")
    named = values.assign_coords(solver=[solver_name(r) for r in both])
    table = named.to_series().unstack(["depth", "solver"]).round(3)
    return table.rename_axis("σ_w²").sort_index(axis=1)


def against_shipped(fresh: xr.Dataset, shipped: xr.Dataset, variable: str) -> pd.DataFrame:
    """Return a table of the points of a fresh result beside a shipped one, where that has them.

    The columns name the data; with other data they cannot agree, and `difference` stays empty.
    """
    names = [provenance(result)["data"]["name"] for result in (fresh, shipped)]
    checksums = [provenance(result)["data"]["checksum"] for result in (fresh, shipped)]
    here = fresh[variable].to_series()
    there = shipped[variable].to_series().reindex(here.index)
    same = checksums[0] == checksums[1]
    return pd.DataFrame(
        {
            f"here ({names[0]})": here,
            f"shipped ({names[1]})": there,
            "difference": here - there if same else np.nan,
        }
    )
