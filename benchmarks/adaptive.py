"""What an adaptive sweep and an early end save: simulated on the shipped diagram, then measured.

    python benchmarks/adaptive.py simulate      from mnist_mlp.nc: seconds, measures nothing
    python benchmarks/adaptive.py measure [WIDTH [DEPTH [STEP]]]

Without arguments both. The simulation gives the adaptive sweep the columns of the shipped result,
whole or as `until` would have left them, and counts fitted stages. A measurement, of MNIST at
σ_w² = 0.4 … 4 in such steps, runs whole and shortened sweeps one after the other, point by point,
in folders of their own: its ratios are of one run.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np
import xarray as xr
from machine import describe
from sweep import empty_home

from paperlib import CascadeSweep, load_result, run_sweep
from paperlib.cascade.cascade import COLLAPSED, FADED_LOOKS, LOOK_EVERY, LOOK_EVERY_PART
from paperlib.measures import LOST
from paperlib.plots import collapse_depths
from paperlib.sweep.adaptive import agree, refinement, with_followers
from paperlib.training.outcome import wall

SHIPPED = "mnist_mlp.nc"
TOLERANCES = (0.01, 0.02, 0.05, 0.1)
ENDS = ("deepest", "lost", "r_squared")
WAYS = {  # of measuring: where a column ends, and whether the sweep is adaptive
    "whole": ("deepest", False),
    "until lost": ("lost", False),
    "until R² is lost": ("r_squared", False),
    "adaptive": ("deepest", True),
    "adaptive, until R² is lost": ("r_squared", True),
}
DEFAULTS = (200, 100, 0.15)  # width, depth, step of σ_w²
WALLS = (10, 20, 30, 50, 80, 100, 150, 200)  # depths


def ends_at(curve: np.ndarray, entropy: np.ndarray, until: str) -> int:
    """The depth at which a fit would have ended, by the rule of `Cascade.fit`."""
    below, depth = 0, LOOK_EVERY
    while depth < len(curve):
        below = below + 1 if curve[depth - 1] < LOST else 0
        collapsed = entropy[depth - 1] < COLLAPSED
        if collapsed or (until == "r_squared" and below == FADED_LOOKS):
            return depth
        depth += max(LOOK_EVERY, depth // LOOK_EVERY_PART)
    return len(curve)


def shortened(whole: xr.Dataset, until: str) -> tuple[xr.Dataset, np.ndarray]:
    """The result as this end would have left it, and the stages of each of its points."""
    result = whole[["r_squared", "finished"]].copy(deep=True).assign_attrs(whole.attrs)
    stages = np.full(result["finished"].shape, whole.sizes["depth"])
    if until != "deepest":
        for place in np.ndindex(stages.shape):
            curve, entropy = (whole[n].values[place] for n in ("r_squared", "differential_entropy"))
            stages[place] = ends_at(curve, entropy, until)
            result["r_squared"].values[place][stages[place] :] = curve[stages[place] - 1]
    return result, stages


def adapted(result: xr.Dataset, tolerance: float) -> xr.Dataset:
    """The result as an adaptive sweep would have given it."""
    curves = result["r_squared"].values

    def alike(left: int, right: int) -> bool:
        return agree(curves[left], curves[right], tolerance=tolerance)

    visited = [place for new in refinement(len(curves), alike) for place in new]
    part = result.copy(deep=True)
    others = np.setdiff1d(np.arange(len(curves)), visited)
    part["finished"][others], part["r_squared"][others] = 0, np.nan
    return with_followers(part)


def errors(found: xr.Dataset, whole: xr.Dataset) -> str:
    """How far a result is from the whole one: collapse depths, walls, mean curves."""
    ours, theirs = collapse_depths(found), collapse_depths(whole)
    allowed = allowance(theirs)
    within = (abs(ours - theirs) <= allowed).mean()
    off = abs(ours.mean("seed") - theirs.mean("seed"))
    spread = np.maximum(allowed.mean("seed"), theirs.std("seed", ddof=1))
    walls = [wall_of(found, depth) - wall_of(whole, depth) for depth in depths_of(whole)]
    curves = abs(found["r_squared"].mean("seed") - whole["r_squared"].mean("seed")).max()
    return (
        f"collapse depths within 2% or one stage: {float(within):.1%}, their means within that or "
        f"one standard deviation of seeds: {float((off <= spread).mean()):.1%}; "
        f"walls within {np.nanmax(np.abs(walls)):.4f}; mean R² within {float(curves):.3f}"
    )


def allowance(depths: xr.DataArray) -> xr.DataArray:
    """By how much two collapse depths may differ that say the same: 2% or one stage."""
    return np.maximum(1, 0.02 * depths)


def wall_of(result: xr.Dataset, depth: int) -> float:
    height = result["r_squared"].sel(depth=depth).mean("seed")
    return wall(height.values, result.sigma_w2.values, LOST)


def depths_of(result: xr.Dataset) -> Iterator[int]:
    return (depth for depth in WALLS if depth <= result.sizes["depth"])


def simulate() -> None:
    whole = load_result(SHIPPED)
    points = whole["finished"].size
    for until in ENDS:
        result, stages = shortened(whole, until)
        total = points * whole.sizes["depth"]
        print(f"until={until!r}, all {points} columns: {stages.sum() / total:.1%} of the stages")
        print(f"  {errors(result, whole)}")
        for tolerance in TOLERANCES:
            found = adapted(result, tolerance)
            measured = found["finished"].values == 1
            print(
                f"  adaptive, tolerance {tolerance:g}: {measured.sum()} columns "
                f"({measured.mean():.1%}), {stages[measured].sum() / total:.1%} of the stages\n"
                f"    {errors(found, whole)}"
            )


def measure(width: int, depth: int, step: float) -> None:
    grid = tuple(np.round(np.arange(0.4, 4.0 + step / 2, step), 10).tolist())
    network = {"dataset": "mnist", "width": width, "depth": depth, "train_images": 2000}
    results, spent = {}, {}
    for name, (until, adaptive) in WAYS.items():
        config = CascadeSweep(sigma_w2=grid, seeds=(0, 1), until=until, **network)
        with empty_home():
            begin, busy = time.perf_counter(), time.process_time()
            results[name] = run_sweep(config, jobs=1, adaptive=adaptive)
            spent[name] = np.array([time.perf_counter() - begin, time.process_time() - busy])
    for name, result in results.items():
        columns, (clock, busy) = int(result["finished"].sum()), spent[name] / spent["whole"]
        print(f"{name}: {columns} columns, {spent[name][0]:.0f} s, {clock:.0%} of the whole one's, "
              f"{busy:.0%} of its CPU time\n  {errors(result, results['whole'])}")  # fmt: skip


def main() -> None:
    what, *sizes = sys.argv[1:] or ["both"]
    if what in ("both", "simulate"):
        simulate()
    if what in ("both", "measure"):
        print(describe())
        width, depth, step = [*map(float, sizes), *DEFAULTS[len(sizes) :]]
        measure(int(width), int(depth), step)


if __name__ == "__main__":
    main()
