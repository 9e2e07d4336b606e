"""What a sweep of cascades says, in paragraphs that the findings of several notebooks share."""

import math

import numpy as np
import xarray as xr

from paperlib.core.provenance import provenance
from paperlib.instruments.prediction.scoring import rank_correlation
from paperlib.meanfield import correlation_depth, critical_sigma_w2
from paperlib.measures import LOST
from paperlib.notebooks.findings.published import form_of
from paperlib.notebooks.findings.wording import (
    UNDEFINED,
    counted,
    listed,
    number,
    paragraphs,
    percent,
    short,
    span,
    spread,
    table,
)
from paperlib.plots import (
    ENTROPY_PUBLISHED,
    check_comparable,
    collapse_depths,
    describe,
    published_entropy,
    seeds_of,
    solver_name,
    solver_of,
)
from paperlib.plots.comparison import depths_by_entropy
from paperlib.plots.labels import known_points
from paperlib.plots.published import EDGE

SHOWN = 6  # variances of a table
ALIVE = 0.05  # R² from which two solvers are compared point by point


def setting(result: xr.Dataset) -> str:
    """Return what a result was computed with: data set, network, solver, grid and seeds."""
    about, grid = provenance(result), result.sigma_w2.values
    form = form_of(about["config"])
    finished, points = int(known_points(result).sum()), result["finished"].size
    missing = "" if finished == points else f" Only {finished:,} of {points:,} points are finished."
    return (
        f"**This run.** {describe(result)}"
        f"{f'  ·  form: {form}' if form else ''}; {counted(len(grid), 'variance')} σ_w² from "
        f"{short(grid[0])} to {short(grid[-1])}, measured to depth {result.sizes['depth']} on "
        f"{counted(about['data']['test_images'], 'held-out image')}.{missing}"
    )


def critical_of(result: xr.Dataset) -> float:
    """Return the critical σ_w² of mean field, NaN where there is none or it is out of reach."""
    config = provenance(result)["config"]
    if config["architecture"] == "resnet":
        return math.nan
    try:
        return critical_sigma_w2(config["sigma_b2"], activation=config["activation"])
    except ValueError:
        return math.nan


def trainable_by_mean_field(result: xr.Dataset, sigma_w2: float) -> float:
    """Return 6 ξ_c, NaN where it is not defined; infinite at the critical variance."""
    config = provenance(result)["config"]
    try:
        length = correlation_depth(sigma_w2, config["sigma_b2"], activation=config["activation"])
    except ValueError:
        return math.nan
    return 6 * length


def depth_in_words(depth: float) -> str:
    """Return a depth without decimals; one that is beyond a million stages has no end."""
    return number(depth, 0) if not depth > 1e6 else "no end"


def kept(result: xr.Dataset) -> str:
    """Return at which variance most of the image is left, at three depths."""
    r_squared, last = result["r_squared"], result.sizes["depth"]
    grid, mean = result.sigma_w2.values, r_squared.mean("seed")
    rows = []
    for depth in sorted({max(1, round(last * part)) for part in (0.25, 0.5, 1.0)}):
        at = mean.sel(depth=depth)
        if at.isnull().all():
            rows.append([depth, UNDEFINED, UNDEFINED, *(number(float(at[end])) for end in (0, -1))])
            continue
        best = float(grid[int(np.nanargmax(at.values))])
        there = spread(r_squared.sel(sigma_w2=best, depth=depth).values.tolist())
        rows.append([depth, short(best), there, *(number(float(at[end])) for end in (0, -1))])
    ends = [f"R² at σ_w² = {short(s)}" for s in (grid[0], grid[-1])]
    return paragraphs(
        f"**Where most is left.** {_best_in_words(result)} R² is the mean over "
        f"{seeds_of(result)}{', ± its standard deviation' if result.sizes['seed'] > 1 else ''}.",
        table(["depth", "best σ_w²", "R² there", *ends], rows),
    )


def _best_in_words(result: xr.Dataset) -> str:
    """One sentence on the best variance of the last depth, and mean field's critical one."""
    at = result["r_squared"].isel(depth=-1).mean("seed")
    grid, depth, critical = result.sigma_w2.values, result.sizes["depth"], critical_of(result)
    if at.isnull().all():
        return f"At depth {depth} R² is {UNDEFINED} for every variance."
    best, most = float(grid[int(np.nanargmax(at.values))]), float(at.max())
    if most < LOST:
        return f"At depth {depth} the image is lost at every variance: R² is below {LOST:g}."
    words = f"At depth {depth} most is left at σ_w² = {short(best)} (R² = {number(most)})"
    if len(grid) > 1 and best in (grid[0], grid[-1]):
        return f"{words}, an end of the grid: the best variance may lie outside."
    if math.isnan(critical):
        return f"{words}."
    step = float(np.diff(grid).max()) if len(grid) > 1 else 0.0
    beside = "above" if best > critical else "below"
    close = "within the grid's step of it" if abs(best - critical) <= step else f"{beside} it"
    return f"{words}; mean field's critical variance is {short(critical)}, the best is {close}."


def lost(result: xr.Dataset) -> str:
    """Return the depth at which the image is lost, at a few variances of the grid."""
    depths, last = collapse_depths(result), result.sizes["depth"]
    known = depths.dropna("sigma_w2", how="all")
    if not known.sizes["sigma_w2"]:
        return ""
    places = np.unique(np.linspace(0, known.sizes["sigma_w2"] - 1, SHOWN).round().astype(int))
    residual = provenance(result)["config"]["architecture"] == "resnet"
    rows = []
    for at in known.isel(sigma_w2=places):
        sigma_w2 = float(at.sigma_w2)
        row = [short(sigma_w2), lost_in_words(at.values.tolist(), last)]
        theory = [] if residual else [depth_in_words(trainable_by_mean_field(result, sigma_w2))]
        rows.append([*row, *theory])
    columns = ["σ_w²", f"lost from depth (R² < {LOST:g})", *([] if residual else ["6 ξ_c"])]
    beside = "" if residual else " Mean field's trainable depth 6 ξ_c stands beside it."
    return paragraphs(
        f"**Where the image is lost.** The first depth from which R² stays below {LOST:g}, mean "
        f"over {seeds_of(result)}.{beside}",
        table(columns, rows),
    )


def lost_in_words(depths: list[float], last: int) -> str:
    """Return a collapse depth over seeds; "> last" where every seed has the image to the end."""
    known = [depth for depth in depths if not math.isnan(depth)]
    censored = sum(depth > last for depth in known)
    if known and censored == len(known):
        return f"> {last}"
    if censored:
        return f"{min(known):g} to > {last}"
    return spread(known, 0)


def solvers(result: xr.Dataset, comparison: xr.Dataset) -> str:
    """Return how the two solvers differ on the networks that both have.

    Raises:
        ValueError: the two are of different data or networks.
    """
    check_comparable(result, comparison)
    both = xr.align(result, comparison, join="inner", exclude=("shown_depth",))
    by = {solver_name(r): r for r in both}
    if len(by) < 2 or not both[0]["r_squared"].size:
        return "**Two solvers.** The two results share no network; nothing is compared."
    closed, adam = by["ridge"]["r_squared"], by["adam"]["r_squared"]
    originals = {solver_name(r): r for r in (result, comparison)}
    deepest = int(closed.depth[-1])
    ends = [r.isel(depth=-1).mean("seed").values for r in (closed, adam)]
    variances = counted(closed.sizes["sigma_w2"], "variance")
    return paragraphs(
        f"**The published solver and the closed form.** Compared are {variances}, "
        f"{seeds_of(by['adam'])}, to depth {deepest}: {solver_of(originals['adam'])}, against "
        f"{solver_of(originals['ridge'])}. At depth {deepest} R² is {span(ends[0])} in closed "
        f"form and {span(ends[1])} by Adam. {_point_by_point(closed, adam)}{_order(closed, adam)}",
        _adams_entropy(by["adam"]),
    )


def _point_by_point(closed: xr.DataArray, adam: xr.DataArray) -> str:
    alive = (adam >= ALIVE) & closed.notnull()
    count, more = int(alive.sum()), int((alive & (closed > adam)).sum())
    if not count:
        return f"Adam returns {percent(ALIVE, 0)} of the image at none of the points."
    return (
        f"Of {counted(count, 'point')} at which Adam returns {percent(ALIVE, 0)} of the image or "
        f"more, the closed form returns more at {more:,}."
    )


def _order(closed: xr.DataArray, adam: xr.DataArray) -> str:
    """How alike the variances are ordered, where there are enough of them."""
    totals = [r.clip(min=0).sum("depth", min_count=1).mean("seed").values for r in (closed, adam)]
    if len(totals[0]) < 4 or np.isnan(totals).any():
        return ""
    order = rank_correlation(*totals)
    return (
        f" Ordered by the information kept (R² summed over depth), the variances correlate "
        f"{number(order)} (Spearman)."
        if not math.isnan(order)
        else ""
    )


def _adams_entropy(adam: xr.Dataset) -> str:
    entropy = adam[published_entropy(adam)].isel(depth=-1).mean("seed")
    undefined = [short(float(s)) for s in adam.sigma_w2[entropy.isnull()]]
    if len(undefined) == entropy.size:
        return ""
    hole = f"; it is {UNDEFINED} at σ_w² = {listed(undefined)}" if undefined else ""
    kept_there = adam["r_squared"].isel(depth=-1).mean("seed")
    warning = (
        " Entropy sees that the pictures differ from one another, not that they are wrong."
        if float(kept_there.max()) < 0
        else ""
    )
    measured = "" if published_entropy(adam) == ENTROPY_PUBLISHED else ", of pictures as they are"
    return (
        f"At depth {int(adam.depth[-1])} Adam's differential entropy{measured} is "
        f"{span(entropy.values, 1)} nats{hole}.{warning}"
    )


def resolutions(by_resolution: xr.Dataset) -> str:
    """Return where the image is lost as the resolution of the closed form is varied."""
    depths, last = collapse_depths(by_resolution), by_resolution.sizes["depth"]
    variances = by_resolution.sigma_w2.values
    rows = [
        [short(float(at.resolution)), *(lost_in_words(s.values.tolist(), last) for s in at)]
        for at in depths.transpose("resolution", "sigma_w2", "seed")
    ]
    return paragraphs(
        f"**The resolution.** The depth from which R² stays below {LOST:g}, by λ "
        f"({seeds_of(by_resolution)}, measured to depth {last}).",
        table(["λ", *(f"σ_w² = {short(s)}" for s in variances)], rows),
    )


def steps_of_training(by_steps: xr.Dataset, decayed: xr.Dataset | None = None) -> str:
    """Return how deep images are found, by the entropy and by R², as the inverses train longer, and
    with weight decay."""
    depths = depths_by_entropy(by_steps).mean("seed")
    left = by_steps["r_squared"].isel(depth=-1).mean("seed")
    last = by_steps.sizes["depth"]
    often, grid = depths.notnull().sum("steps").values, depths.sigma_w2.values
    most, others = grid[often == often.max()], grid[(often > 1) & (often < often.max())]
    room = max(0, SHOWN - len(most))
    spread_out = np.linspace(0, len(others) - 1, min(room, len(others))).round().astype(int)
    at = np.sort([*most[:SHOWN], *others[spread_out]])
    rows = [
        [f"{int(row.steps):,}", *(_found(row, left.sel(steps=row.steps), s, last) for s in at)]
        for row in depths.transpose("steps", "sigma_w2")
    ]
    if decayed is not None:
        found = depths_by_entropy(decayed).mean("seed").reindex(sigma_w2=at)
        there = decayed["r_squared"].isel(depth=-1).mean("seed").reindex(sigma_w2=at)
        name = solver_of(decayed).partition(", ")[2]
        rows.append([name, *(_found(found, there, s, last) for s in at)])
    kind = "published" if published_entropy(by_steps) == ENTROPY_PUBLISHED else "own"
    return paragraphs(
        f"**The steps of Adam.** The depth from which the {kind} differential entropy stays below "
        f"{number(EDGE, 0)} nats, where published colours end ({seeds_of(by_steps)}, measured to "
        f"depth {last}); in brackets R² at depth {last}. A dash: not measured.",
        table(["steps", *(f"σ_w² = {short(s)}" for s in at)], rows),
    )


def _found(depths: xr.DataArray, left: xr.DataArray, sigma_w2: float, last: int) -> str:
    depth = float(depths.sel(sigma_w2=sigma_w2))
    if math.isnan(depth):
        return "–"
    return f"{lost_in_words([depth], last)} ({number(float(left.sel(sigma_w2=sigma_w2)))})"
