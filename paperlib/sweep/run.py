"""Grids of points: measured in parallel, one file per finished point, collected into one Dataset.

A point file is named after everything that determines its numbers, so a sweep that was killed, or
one that shares points with another, computes only what is missing.
"""

import json
import os
import random
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
import xarray as xr

from paperlib.core import paths
from paperlib.core.checks import checked, instance_of, path_of
from paperlib.core.progress import Progress
from paperlib.sweep import store
from paperlib.sweep.adaptive import check_adaptive, rounds, with_followers
from paperlib.sweep.engines import Engine
from paperlib.sweep.grid import Grid
from paperlib.sweep.plan import Plan, make_plan
from paperlib.sweep.worker import Terms, finish

TOGETHER_ON_GPU = 64  # trainings of one shape in one program; on a CPU each alone is as fast


def run_sweep(
    config: Grid,
    *,
    jobs: int | None = None,
    device: str = "auto",
    backend: str | None = None,
    address: str | None = None,
    start_from: str | os.PathLike[str] | None = None,
    adaptive: bool = False,
    tolerance: float = 0.02,
) -> xr.Dataset:
    """Measure every point of a grid, along its axes (sigma_w2, seed, …) and depth.

    Points that are finished, in point files or in `start_from`, are taken, not computed. The result
    is also written to `data/results/`, with every parameter, version and seed in its attributes.

    An adaptive sweep measures only the variances at which something changes; see `sweep.adaptive`.

    Example:
        >>> from paperlib import CascadeSweep, run_sweep
        >>> network = {"dataset": "digits", "depth": 2, "width": 20, "train_images": 100}
        >>> config = CascadeSweep(sigma_w2=(1.0, 1.7), seeds=(0,), **network)
        >>> result = run_sweep(config, jobs=1, device="cpu")  # doctest: +ELLIPSIS
        sweep: 2 points...
        >>> result["r_squared"].dims
        ('sigma_w2', 'seed', 'depth')
        >>> result = run_sweep(config, jobs=1, device="cpu", adaptive=True)
        sweep: 2 points, 2 finished before
        sweep: 0 of 2 points follow from measured neighbours

    Args:
        config: the grid.
        jobs: points at a time; None or 0 is one per core, on a GPU one. The numbers do not depend
            on it. Several processes share a GPU that waits for Python, if its memory is enough.
        device: "auto", "cpu" or "cuda"; on a GPU trainings of one shape run as one program.
        backend: "loky" on this machine, "dask" on a cluster or another of joblib's; and
        address: of a Dask scheduler. Their defaults: see `engines.Engine`. The folder of points
            must be the same for all workers.
        start_from: a .nc of an earlier sweep, perhaps an unfinished one; a bare name is looked up
            in data/reference/.
        adaptive: measure every eighth variance, then halve each gap between two that differ; what
            lies between neighbours that agree is interpolated: `follows` is 1 there, `finished` 0.
            What is measured has the numbers and the file that it has in the whole sweep.
        tolerance: adaptive only; neighbours may differ by so much R² (or accuracy), by this share
            of the depth at which the image is lost, by one stage, and by as much as seeds do.

    Raises:
        ValueError: an adaptive sweep of a grid without variances or curves.
        ValueError, FileNotFoundError: data or `start_from` that cannot be read.
        OSError: results cannot be written, or no scheduler answers. What is finished is kept.
        RuntimeError: points failed; says which and why. The others are finished and kept.
    """
    device = resolve_device(device)
    instance_of("config", config, Grid)
    tolerance = checked("tolerance", tolerance, float, above=0)
    if checked("adaptive", adaptive, bool):
        check_adaptive(config)
    if start_from is not None and not (isinstance(start_from, str) and not start_from):
        start_from = path_of("start_from", start_from)
    with Engine(backend, address=address, jobs=resolve_jobs(jobs, device)) as engine:
        plan = make_plan(config, start_from)
        total = len(plan.finished) + len(plan.missing)
        print(f"sweep: {total} points, {len(plan.finished)} finished before", flush=True)
        for wanted in rounds(plan, tolerance) if adaptive else [list(plan.missing)]:
            compute(plan, wanted, engine, device)
    result = collect(plan)
    if adaptive:
        result = with_followers(result)
        count = int(result["follows"].sum())
        print(f"sweep: {count} of {total} points follow from measured neighbours", flush=True)
    store.save_result(result, paths.results_folder() / f"{plan.name}.nc")
    return result


def collect_sweep(config: Grid, *, start_from: str | os.PathLike[str] | None = None) -> xr.Dataset:
    """Collect the finished points of a grid, NaN (cutoffs: -1) where a point is missing.

    So is a measure that was added later, where a point was computed before; one that no point has
    is left out.

    Saved with `results.save_result`, an unfinished collection is what a long sweep goes on from
    (`start_from`) on another machine.

    Example:
        >>> from paperlib import CascadeSweep, run_sweep
        >>> from paperlib.sweep import collect_sweep
        >>> network = {"dataset": "digits", "depth": 2, "width": 20, "train_images": 100}
        >>> config = CascadeSweep(sigma_w2=(1.0,), seeds=(0,), **network)
        >>> result = run_sweep(config, jobs=1, device="cpu")  # doctest: +ELLIPSIS
        sweep: 1 points...
        >>> collect_sweep(config).equals(result)
        True

    Raises:
        ValueError: no point is finished.
    """
    plan = make_plan(config, start_from)
    if not plan.finished:
        raise ValueError("no point of this sweep is finished yet; nothing to collect")
    return collect(plan)


def collect(plan: Plan, points: Iterable[Any] | None = None) -> xr.Dataset:
    """Return the finished points as one Dataset; of these points only, where they are named."""
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


def compute(plan: Plan, wanted: Iterable[Any], engine: Engine, device: str) -> None:
    """Measure the wanted points that the plan lacks, and add their numbers to it.

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


def resolve_jobs(jobs: int | None, device: str) -> int:
    given = checked("jobs", 0 if jobs is None else jobs, int, low=0)
    return given or (1 if device == "cuda" else joblib.cpu_count())


def resolve_device(device: str) -> str:
    checked("device", device, str, choices=("auto", "cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda' was asked for, but torch finds no GPU; use 'auto' or 'cpu'")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
