"""Grids of points: measured in parallel, one file per finished point, collected into one Dataset.

A point file is named after everything that determines its numbers, so a sweep that was killed, or
one that shares points with another, computes only what is missing.
"""

import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
import xarray as xr

from paperlib import results
from paperlib.core import paths
from paperlib.core.checks import checked, instance_of, path_of
from paperlib.core.progress import Progress
from paperlib.core.provenance import provenance, ways_together
from paperlib.engines import Engine
from paperlib.grid import Sweep
from paperlib.plan import Plan, make_plan
from paperlib.worker import Terms, finish

TOGETHER_ON_GPU = 64  # trainings of one shape in one program; on a CPU each alone is as fast


def run_sweep(
    config: Sweep,
    *,
    jobs: int | None = None,
    device: str = "auto",
    backend: str | None = None,
    address: str | None = None,
    start_from: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """The numbers of every point of a grid, along its axes (sigma_w2, seed, …) and depth.

    Points that are finished, in point files or in `start_from`, are taken, not computed. The result
    is also written to `data/results/`, with every parameter, version and seed in its attributes.

    Args:
        config: the grid.
        jobs: points at a time; None or 0 is one per core. The numbers do not depend on it.
        device: "auto", "cpu" or "cuda"; on a GPU trainings of one shape run as one program, other
            points one after the other, undivided.
        backend: "loky" on this machine, "dask" on a cluster or another of joblib's; and
        address: of a Dask scheduler. Their defaults: see `engines.Engine`. The folder of points
            must be the same for all workers.
        start_from: a .nc of an earlier sweep, perhaps an unfinished one; a bare name is looked up
            in data/reference/.

    Raises:
        ValueError, FileNotFoundError: data or `start_from` that cannot be read.
        OSError: results cannot be written, or no scheduler answers. What is finished is kept.
        RuntimeError: points failed; says which and why. The others are finished and kept.
    """
    device = _resolve_device(device)
    instance_of("config", config, Sweep)
    if start_from is not None and not (isinstance(start_from, str) and not start_from):
        start_from = path_of("start_from", start_from)
    with Engine(backend, address=address, jobs=_resolve_jobs(jobs, device)) as engine:
        plan = make_plan(config, start_from)
        total = len(plan.finished) + len(plan.missing)
        print(f"sweep: {total} points, {len(plan.finished)} finished before", flush=True)
        _compute(plan, plan.missing, engine, device)
    result = _collect(plan)
    results.save_result(result, paths.results_folder() / f"{plan.name}.nc")
    return result


def run_search(
    config: Sweep,
    *,
    threshold: float,
    start: float,
    jobs: int | None = None,
    device: str = "auto",
) -> xr.Dataset:
    """The published search for the trainable depth: only as much of a grid as it walks over.

    At the variance nearest `start` it trains the deepest network and then ever shallower ones,
    until one reaches the threshold; from there it goes on, at the next variance, to both sides. So
    it finds the deepest network that trains as long as that depth falls away from `start`.

    Args:
        config: the grid.
        threshold: accuracy from which a network counts as trained, above 0 and at most 1.
        start: σ_w² that the search begins at.
        jobs, device: as in `run_sweep`; seeds and sides run side by side.

    Returns:
        As `run_sweep`, `finished` 0 where the search did not go.

    Raises:
        ValueError: a threshold out of range; and as `run_sweep`.

    Source: arXiv:2406.12916 (start 1.7, depths 150, 145, …, threshold 0.4).
    """
    instance_of("config", config, Sweep)
    if "depth" not in config.axes or "accuracy" not in config.point.fields:
        raise ValueError(f"config must be a grid of trainings, got a {type(config).__name__}")
    threshold = checked("threshold", threshold, float, above=0, high=1)
    start = checked("start", start, float)
    device = _resolve_device(device)
    plan = make_plan(config, None)
    nearest = min(config.sigma_w2, key=lambda sigma_w2: abs(sigma_w2 - start))
    below = sorted((s for s in config.sigma_w2 if s <= nearest), reverse=True)
    above = sorted(s for s in config.sigma_w2 if s >= nearest)
    walks = [_walk(plan, side, seed, threshold) for side in (below, above) for seed in config.seeds]
    visited: set[Any] = set()
    with Engine(jobs=_resolve_jobs(jobs, device)) as engine:
        while wanted := {point for walk in walks if (point := next(walk, None))}:
            _compute(plan, wanted, engine, device)
            visited |= wanted
    return _collect(plan, visited)


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
    """The measures of ridge sweeps that differ in their resolution, along a dim of that name.

    Raises:
        ValueError: no sweeps, or one whose solver is not ridge.
    """
    solvers = [getattr(config, "solver", None) for config in configs]
    if set(solvers) != {"ridge"}:
        raise ValueError(f"expected sweeps by ridge, got {solvers}")
    finished = [run_sweep(config, jobs=jobs, device=device) for config in configs]
    values = [config.resolution for config in configs]
    measured = [name for name in (*configs[0].point.fields, "finished") if name != "example"]
    varying = [name for name in measured if all(name in result for result in finished)]
    together = xr.concat(
        [result[varying] for result in finished],
        dim=xr.DataArray(values, dims="resolution", name="resolution"),
        combine_attrs="override",
    )
    told = [provenance(result) for result in finished]
    about = dict(told[0])
    about["config"] = {**about["config"], "resolution": values}
    about["computed"] = ways_together(way for one in told for way in one["computed"])
    about["finished_at"] = max(one["finished_at"] for one in told)
    return together.assign_attrs(provenance=json.dumps(about, sort_keys=True))


def collect_sweep(config: Sweep, *, start_from: str | os.PathLike[str] | None = None) -> xr.Dataset:
    """The finished points of a grid, NaN (cutoffs: -1) where a point is missing.

    So is a measure that was added later, where a point was computed before; one that no point has
    is left out.

    Saved with `results.save_result`, an unfinished collection is what a long sweep goes on from
    (`start_from`) on another machine.

    Raises:
        ValueError: no point is finished.
    """
    plan = make_plan(config, start_from)
    if not plan.finished:
        raise ValueError("no point of this sweep is finished yet; nothing to collect")
    return _collect(plan)


def _collect(plan: Plan, points: Iterable[Any] | None = None) -> xr.Dataset:
    """The finished points as one Dataset; of these points only, where they are named."""
    config, kind = plan.config, plan.config.point
    finished = plan.finished if points is None else {p: plan.finished[p] for p in points}
    first = next(iter(finished.values()))
    along = tuple(config.axes)
    shape = tuple(len(getattr(config, name)) for name in config.axes.values())
    fields: dict[str, np.ndarray] = {}
    done = np.zeros(shape, np.int8)
    for place, point in zip(np.ndindex(shape), config.points(), strict=True):
        if point in finished:
            done[place] = 1
            for name in kind.fields_in(finished[point]):
                value = finished[point][name]
                fields.setdefault(name, _empty(value, shape))[place] = value
    variables: dict[str, Any] = {
        name: ((*along, *kind.fields[name]), fields[name])
        for name in kind.fields_in(fields)
        if name not in kind.added or not _is_empty(fields[name])
    }
    variables["finished"] = (along, done)
    variables |= {name: (dims, np.array(first[name])) for name, dims in kind.shared.items()}
    about = json.dumps(plan.about(finished), sort_keys=True)
    return xr.Dataset(variables, config.coordinates(), attrs={"provenance": about})


def _empty(like: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    like = np.asarray(like)
    missing = {"f": np.nan, "i": -1, "u": 0}[like.dtype.kind]
    return np.full((*shape, *like.shape), missing, like.dtype)


def _is_empty(field: np.ndarray) -> bool:
    """Whether no point has a value."""
    return np.array_equal(field, _empty(field, ()), equal_nan=True)


def _compute(plan: Plan, wanted: Iterable[Any], engine: Engine, device: str) -> None:
    """Nothing; the plan has the numbers of the wanted points that it lacked.

    Raises:
        OSError: the folder of points cannot be written.
        RuntimeError: points failed; says which and why. The others are finished and kept.
    """
    files = {point: plan.missing.pop(point) for point in list(wanted) if point in plan.missing}
    if not files:
        return
    paths.check_writable(paths.points_folder())
    terms = Terms(
        device, os.fspath(paths.data_root()), plan.checksum, plan.config.point.code_version
    )
    groups = _groups(files, device)
    # In no order, so that sweeps over one grid at the same time share it instead of racing.
    random.SystemRandom().shuffle(groups)
    failures: dict[Any, str] = {}
    with Progress(len(files), "points") as progress:
        for group, reason in engine.run(partial(finish, terms=terms), groups):
            for point, file in group.items():
                progress.advance()
                plan.look_up(point, file)
                if point not in plan.own:
                    failures[point] = reason or f"its worker wrote no {file} that can be seen here"
    if failures:
        point = next(point for point in files if point in failures)
        where = ", ".join(f"{name}={getattr(point, name)}" for name in plan.config.axes)
        raise RuntimeError(
            f"{len(failures)} of {len(files)} points failed, the rest is kept; "
            f"first at {where}: {failures[point]}"
        )


def _groups(files: Mapping[Any, Path], device: str) -> list[dict[Any, Path]]:
    """The points with their files, in the groups that are computed as one."""
    groups: dict[Any, list[dict[Any, Path]]] = {}
    for point, file in files.items():
        of_a_kind = groups.setdefault(point.alike(device), [{}])
        if len(of_a_kind[-1]) == TOGETHER_ON_GPU:
            of_a_kind.append({})
        of_a_kind[-1][point] = file
    return [group for of_a_kind in groups.values() for group in of_a_kind]


def _resolve_jobs(jobs: int | None, device: str) -> int:
    found = checked("jobs", 0 if jobs is None else jobs, int, low=0) or joblib.cpu_count()
    return 1 if device == "cuda" else found


def _resolve_device(device: str) -> str:
    checked("device", device, str, choices=("auto", "cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda' was asked for, but torch finds no GPU; use 'auto' or 'cpu'")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
