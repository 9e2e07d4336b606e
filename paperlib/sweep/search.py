"""Sweeps that go on from what was found, and several of them beside each other."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from paperlib.core.checks import checked, instance_of
from paperlib.core.provenance import merge_computed, provenance
from paperlib.sweep.engines import Engine
from paperlib.sweep.grid import Sweep
from paperlib.sweep.plan import Plan, make_plan
from paperlib.sweep.run import collect, compute, resolve_device, resolve_jobs, run_sweep


def run_search(
    config: Sweep,
    *,
    threshold: float,
    start: float,
    jobs: int | None = None,
    device: str = "auto",
) -> xr.Dataset:
    """Run the published search for the trainable depth: only as much of a grid as it walks over.

    At the variance nearest `start` it trains the deepest network and then ever shallower ones,
    until one reaches the threshold; from there it goes on, at the next variance, to both sides. So
    it finds the deepest network that trains as long as that depth falls away from `start`.

    Example:
        >>> from paperlib import TrainingSweep, run_search
        >>> config = TrainingSweep(
        ...     dataset="digits", sigma_w2=(1.7, 3.0), seeds=(0,), depths=(1, 2), width=20, steps=2
        ... )
        >>> found = run_search(config, threshold=0.01, start=1.7, jobs=1)  # doctest: +ELLIPSIS
        [...
        >>> found["finished"].sel(seed=0).values.tolist()  # (sigma_w2, depth): the deepest trained
        [[0, 1], [0, 1]]

    Args:
        config: a grid with an axis of depths, whose points have an accuracy.
        threshold: accuracy from which a network counts as trained, above 0 and at most 1.
        start: σ_w² that the search begins at.
        jobs, device: as in `run_sweep`; seeds and sides run side by side.

    Returns:
        As `run_sweep`, `finished` 0 where the search did not go.

    Raises:
        ValueError: another grid, a threshold out of range; and as `run_sweep`.

    Source: arXiv:2406.12916 (start 1.7, depths 150, 145, …, threshold 0.4).
    """
    instance_of("config", config, Sweep)
    if "depth" not in config.axes or "accuracy" not in config.point.fields:
        raise ValueError(f"config must be a grid of trainings, got a {type(config).__name__}")
    threshold = checked("threshold", threshold, float, above=0, high=1)
    start = checked("start", start, float)
    device = resolve_device(device)
    plan = make_plan(config, None)
    nearest = min(config.sigma_w2, key=lambda sigma_w2: abs(sigma_w2 - start))
    below = sorted((s for s in config.sigma_w2 if s <= nearest), reverse=True)
    above = sorted(s for s in config.sigma_w2 if s >= nearest)
    walks = [_walk(plan, side, seed, threshold) for side in (below, above) for seed in config.seeds]
    visited: set[Any] = set()
    with Engine(jobs=resolve_jobs(jobs, device)) as engine:
        while wanted := {point for walk in walks if (point := next(walk, None))}:
            compute(plan, wanted, engine, device)
            visited |= wanted
    return collect(plan, visited)


def _walk(plan: Plan, variances: Sequence[float], seed: int, threshold: float) -> Iterator[Any]:
    """The points of one side of a search; each is finished before the next is asked for."""
    points = {(p.sigma_w2, p.depth): p for p in plan.config.points() if p.seed == seed}
    depths = sorted({depth for _, depth in points}, reverse=True)
    for sigma_w2 in variances:
        for depth in list(depths):
            point = points[sigma_w2, depth]
            yield point
            if plan.finished[point]["accuracy"] >= threshold or len(depths) == 1:
                break
            depths.remove(depth)  # nor does it train further away


def run_resolutions(
    configs: Sequence[Any], *, jobs: int | None = None, device: str = "auto"
) -> xr.Dataset:
    """Run ridge sweeps that differ in their resolution, and return them along a dim of that name.

    Example:
        >>> from paperlib import CascadeSweep
        >>> from paperlib.sweep import run_resolutions
        >>> network = {"dataset": "digits", "depth": 2, "width": 20, "train_images": 100}
        >>> grid = {"sigma_w2": (1.7,), "seeds": (0,)}
        >>> configs = [CascadeSweep(resolution=value, **grid, **network) for value in (1e-3, 0.1)]
        >>> results = run_resolutions(configs, jobs=1)  # doctest: +ELLIPSIS
        sweep: 1 points...
        >>> results.resolution.values.tolist()
        [0.001, 0.1]

    Raises:
        ValueError: no sweeps, or one whose solver is not ridge.
    """
    solvers = [getattr(config, "solver", None) for config in configs]
    if set(solvers) != {"ridge"}:
        raise ValueError(f"expected sweeps by ridge, got {solvers}")
    return run_along(configs, "resolution", jobs=jobs, device=device)


def run_along(
    configs: Sequence[Sweep], setting: str, *, jobs: int | None = None, device: str = "auto"
) -> xr.Dataset:
    """Run sweeps that differ in one setting, and return them along a dim of its name.

    Example:
        >>> from paperlib import CascadeSweep
        >>> from paperlib.sweep import run_along
        >>> network = {"dataset": "digits", "depth": 2, "width": 20, "train_images": 100}
        >>> grid = {"sigma_w2": (1.7,), "seeds": (0,), "solver": "adam"}
        >>> configs = [CascadeSweep(steps=steps, **grid, **network) for steps in (1, 2)]
        >>> run_along(configs, "steps", jobs=1).steps.values.tolist()  # doctest: +ELLIPSIS
        sweep: 1 points...
        [1, 2]

    Args:
        configs: the sweeps; where their grids differ, points are unfinished in some.
        setting: its name.
        jobs, device: as in `run_sweep`.

    Raises:
        ValueError: no sweeps, or one without the setting; and as `run_sweep`.
    """
    if not configs or not all(hasattr(config, setting) for config in configs):
        raise ValueError(f"expected sweeps with a setting {setting!r}, got {list(configs)}")
    return along(
        [run_sweep(config, jobs=jobs, device=device) for config in configs],
        setting,
        [getattr(config, setting) for config in configs],
    )


def along(results: Sequence[xr.Dataset], setting: str, values: Sequence[Any]) -> xr.Dataset:
    """Return results of sweeps along a dim of the setting in which they differ.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.sweep import along
        >>> names = ("mnist_mlp_300.nc", "cifar10_mlp_300.nc")
        >>> both = along([load_result(name) for name in names], "dataset", ["mnist", "cifar10"])
        >>> both.sizes["dataset"]
        2

    Args:
        results: from `run_sweep`; of their fields the pictures are left out, and what is not in
            all.
        setting: its name.
        values: of each result.
    """
    varying = [name for name in results[0] if name not in ("example", "original")]
    varying = [name for name in varying if all(name in result for result in results)]
    together = xr.concat(
        [result[varying] for result in results],
        dim=xr.DataArray(list(values), dims=setting, name=setting),
        join="outer",
        fill_value={"finished": np.int8(0)},
        combine_attrs="override",
    )
    sources = [provenance(result) for result in results]
    about = dict(sources[0])
    about["config"] = {**about["config"], setting: list(values)}
    about["computed"] = merge_computed(way for one in sources for way in one["computed"])
    about["finished_at"] = max(one["finished_at"] for one in sources)
    return together.assign_attrs(provenance=json.dumps(about, sort_keys=True))
