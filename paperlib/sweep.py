"""Grids of points: measured in parallel, one file per finished point, collected into one Dataset.

A point file is named after everything that determines its numbers, so a sweep that was killed, or
one that shares points with another, computes only what is missing.
"""

import hashlib
import json
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
import xarray as xr

from paperlib import measures, paths, results
from paperlib.cascade import Cascade
from paperlib.config import CascadePoint, CascadeSweep, identifying
from paperlib.datasets import Dataset, load_dataset, load_with_fallback
from paperlib.networks import initialise, mlp
from paperlib.progress import Progress
from paperlib.results import Point

CODE_VERSION = 1  # raised when a change to the code changes a point's numbers
CURVES = ("relative_entropy", "differential_entropy", "gram_entropy", "r_squared")
LIBRARIES = ("reconstruction-entropy", "torch", "numpy", "scipy", "xarray")


def measure_point(point: CascadePoint, *, device: str = "cpu") -> dict[str, np.ndarray]:
    """The measures of one untrained network's cascade at every depth.

    Returns:
        The four curves (depth,) in float32, entropies in nats, means over the test images where a
        measure is per image; `cutoff` (), the published one; `example` (6, channels, height, width)
        in uint8, one test image as it comes back from `shown_depths`; `original`, that image;
        `seconds` (), of the fit and reconstructions.

    Raises:
        ValueError: a network whose activations overflow, or a damaged data set.
    """
    data = _dataset(point)
    train = data.floats("train", device=device)[: point.train_images]
    test = data.floats("test", device=device)[: point.test_images]
    network = mlp(
        tuple(train.shape[1:]),
        depth=point.depth,
        width=point.width or None,
        shape=point.shape,
        activation=point.activation,
        classes=len(data.classes),
    ).to(device)
    initialise(network, sigma_w2=point.sigma_w2, sigma_b2=point.sigma_b2, seed=point.seed)
    with _one_thread():
        begin = time.perf_counter()
        cascade = Cascade.for_network(network, train[:1]).fit(
            train,
            solver=point.solver,
            seed=point.seed,
            resolution=point.resolution,
            steps=point.steps or None,
            batch_size=point.batch_size,
        )
        pictures = cascade.reconstruct(test)
        seconds = time.perf_counter() - begin
        shown = pictures[[level - 1 for level in shown_depths(point.depth)], 0]
        return {
            **_curves(test, pictures, mean=train.mean(0), rtol=point.rtol),
            "example": _as_bytes(shown),
            "original": _as_bytes(test[0]),
            "seconds": np.float32(seconds),
        }


def _curves(
    test: torch.Tensor, pictures: torch.Tensor, *, mean: torch.Tensor, rtol: float
) -> dict[str, Any]:
    with warnings.catch_warnings():
        # a collapsed batch can sum to nothing; the NaN that says so goes into the curve
        warnings.simplefilter("ignore", RuntimeWarning)
        relative = measures.relative_entropy(test, pictures)
        curves = {
            "relative_entropy": relative.mean(1),
            "differential_entropy": measures.differential_entropy(pictures),
            "gram_entropy": measures.gram_entropy(pictures),
            "r_squared": measures.r_squared(test, pictures, mean=mean),
        }
        cutoff = measures.cutoff(relative, rtol=rtol)
    as_arrays = {name: curve.cpu().numpy().astype(np.float32) for name, curve in curves.items()}
    return {**as_arrays, "cutoff": np.int32(cutoff)}


def shown_depths(depth: int) -> list[int]:
    """The depths, 1-based and at most six, at which an example is kept for the figures."""
    return sorted({1, *(max(1, round(depth * part)) for part in (0.1, 0.25, 0.5, 0.75, 1.0))})


def _as_bytes(images: torch.Tensor) -> np.ndarray:
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def run_sweep(
    config: CascadeSweep,
    *,
    jobs: int | None = None,
    device: str = "auto",
    backend: str = "loky",
    start_from: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """The measures of every point of a grid; dims sigma_w2, seed, depth.

    Points that are finished, in point files or in `start_from`, are taken, not computed. The result
    is also written to `data/results/`, with every parameter, version and seed in its attributes.

    Args:
        config: the grid.
        jobs: points at a time; None or 0 is one per core. The numbers do not depend on it.
        device: "auto", "cpu" or "cuda"; on a GPU points run one after the other, undivided.
        backend: joblib's: "loky" on this machine, "dask" on a cluster.
        start_from: a .nc of an earlier sweep, perhaps an unfinished one; a bare name is looked up
            in data/reference/.

    Raises:
        ValueError, FileNotFoundError: data or `start_from` that cannot be read.
        RuntimeError: points failed; says which and why. The others are finished and kept.
    """
    if jobs is not None and jobs < 0:
        raise ValueError(f"jobs must be >= 0 (0: one per core), got {jobs}")
    device = _resolve_device(device)
    plan = _plan(config, start_from)
    reused = len(plan.finished)
    print(f"sweep: {reused + len(plan.missing)} points, {reused} finished before", flush=True)
    failures = _compute(plan, jobs=jobs or joblib.cpu_count(), device=device, backend=backend)
    if failures:
        point, reason = failures[0]
        raise RuntimeError(
            f"{len(failures)} of {reused + len(plan.missing)} points failed, the rest is kept; "
            f"first at sigma_w2={point.sigma_w2}, seed={point.seed}: {reason}"
        )
    result = collect_sweep(config, start_from=start_from)
    results.save_result(result, paths.results_folder() / f"{plan.digest}.nc")
    return result


def run_resolutions(
    configs: Sequence[CascadeSweep], *, jobs: int | None = None, device: str = "auto"
) -> xr.Dataset:
    """The measures of ridge sweeps that differ in their resolution, along a dim of that name.

    Raises:
        ValueError: no sweeps, or one whose solver is not ridge.
    """
    if not configs or any(config.solver != "ridge" for config in configs):
        raise ValueError(f"expected sweeps by ridge, got {[c.solver for c in configs]}")
    finished = [run_sweep(config, jobs=jobs, device=device) for config in configs]
    resolutions = xr.DataArray(
        [c.resolution for c in configs], dims="resolution", name="resolution"
    )
    varying = [*CURVES, "cutoff", "finished"]
    return xr.concat(
        [result[varying] for result in finished], dim=resolutions, combine_attrs="override"
    )


def collect_sweep(
    config: CascadeSweep, *, start_from: str | os.PathLike[str] | None = None
) -> xr.Dataset:
    """The finished points of a grid, NaN (cutoff: -1) where a point is missing.

    Saved with `results.save_result`, an unfinished collection is what a long sweep goes on from
    (`start_from`) on another machine.

    Raises:
        ValueError: no point is finished.
    """
    plan = _plan(config, start_from)
    if not plan.finished:
        raise ValueError("no point of this sweep is finished yet; nothing to collect")
    first = next(iter(plan.finished.values()))
    shape = (len(config.sigma_w2), len(config.seeds))
    fields = {name: _empty(array, shape) for name, array in first.items() if name in _DIMS}
    done = np.zeros(shape, np.int8)
    for place, point in zip(np.ndindex(shape), config.points(), strict=True):
        if point in plan.finished:
            done[place] = 1
            for name, field in fields.items():
                field[place] = plan.finished[point][name]
    variables: dict[str, Any] = {k: (("sigma_w2", "seed", *_DIMS[k]), v) for k, v in fields.items()}
    variables["finished"] = (("sigma_w2", "seed"), done)
    variables["original"] = (("channel", "row", "column"), first["original"])
    coordinates = {
        "sigma_w2": np.array(config.sigma_w2),
        "seed": np.array(config.seeds),
        "depth": np.arange(1, config.depth + 1),
        "shown_depth": shown_depths(config.depth),
    }
    about = json.dumps(plan.about, sort_keys=True)
    return xr.Dataset(variables, coordinates, attrs={"provenance": about})


_DIMS = {
    **dict.fromkeys(CURVES, ("depth",)),
    "cutoff": (),
    "example": ("shown_depth", "channel", "row", "column"),
}


def _empty(like: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    like = np.asarray(like)
    missing = {"f": np.nan, "i": -1, "u": 0}[like.dtype.kind]
    return np.full((*shape, *like.shape), missing, like.dtype)


@dataclass
class _Plan:
    """What a sweep has and what it lacks."""

    finished: dict[CascadePoint, Point]
    missing: dict[CascadePoint, Path]  # where each will be written
    about: dict[str, Any]
    digest: str


def _plan(config: CascadeSweep, start_from: str | os.PathLike[str] | None) -> _Plan:
    points = list(config.points())
    earlier = results.load_result(start_from) if start_from else None
    taken = _points_of(earlier, config) if earlier is not None else {}
    if earlier is not None and len(taken) == len(points):
        about = {**results.provenance(earlier), "config": config.as_dict()}
        return _Plan(taken, {}, about, _result_digest(config, about["data"]["checksum"]))
    data = _dataset(points[0])
    if earlier is not None and results.provenance(earlier)["data"]["checksum"] != data.checksum:
        warnings.warn(f"{start_from} was computed from other data; starting afresh", stacklevel=3)
        earlier, taken = None, {}
    finished, missing = dict(taken), {}
    for point in points:
        if point in taken:
            continue
        name = point.identity(code_version=CODE_VERSION, checksum=data.checksum)
        file = paths.points_folder() / f"{name}.npz"
        found = results.read_point(file)
        if found is None:
            missing[point] = file
        else:
            finished[point] = found
    about = _about(config, data, finished)
    if earlier is not None:
        about["started_from"] = results.provenance(earlier)
    return _Plan(finished, missing, about, _result_digest(config, data.checksum))


def _result_digest(config: CascadeSweep, checksum: str) -> str:
    about = {**identifying(config.as_dict()), "code": CODE_VERSION, "data": checksum}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _points_of(result: xr.Dataset, config: CascadeSweep) -> dict[CascadePoint, Point]:
    """The finished points of an earlier result that are points of this grid too."""
    about = results.provenance(result)

    # through the class, so that a setting that came later has its default
    before = CascadeSweep.from_dict(about["config"])

    def shared(sweep: CascadeSweep) -> dict[str, Any]:
        settings = identifying(sweep.as_dict())
        return {k: v for k, v in settings.items() if k not in ("sigma_w2", "seeds")}

    if about["code_version"] != CODE_VERSION or shared(before) != shared(config):
        return {}
    places = {
        (float(sigma_w2), int(seed)): (row, column)
        for row, sigma_w2 in enumerate(result.sigma_w2.values)
        for column, seed in enumerate(result.seed.values)
        if result.finished.values[row, column]
    }
    found: dict[CascadePoint, Point] = {}
    for point in config.points():
        place = places.get((point.sigma_w2, point.seed))
        if place is not None:
            found[point] = {name: result[name].values[place] for name in _DIMS}
            found[point] = {**found[point], "original": result["original"].values}
    return found


def _compute(
    plan: _Plan, *, jobs: int, device: str, backend: str
) -> list[tuple[CascadePoint, str]]:
    """The points that failed, with the reason; all others are finished afterwards."""
    if not plan.missing:
        return []
    jobs = 1 if device == "cuda" else min(jobs, len(plan.missing))
    tasks = (
        joblib.delayed(_finish_point)(point, file, device) for point, file in plan.missing.items()
    )
    failures: list[tuple[CascadePoint, str]] = []
    with (
        joblib.parallel_config(backend=backend if jobs > 1 else "sequential", n_jobs=jobs),
        Progress(len(plan.missing), "points") as progress,
    ):
        for point, reason in joblib.Parallel(return_as="generator_unordered")(tasks):
            progress.advance()
            if reason:
                failures.append((point, reason))
    return failures


def _finish_point(point: CascadePoint, file: Path, device: str) -> tuple[CascadePoint, str]:
    try:
        results.write_point(file, point.as_dict(), measure_point(point, device=device))
    except (ValueError, RuntimeError, MemoryError) as error:
        return point, f"{type(error).__name__}: {error}"
    return point, ""


@lru_cache(maxsize=1)
def _load(name: str, fallback: bool, limit: int, seed: int, root: str) -> Dataset:
    load = load_with_fallback if fallback else load_dataset
    return load(name, root=root, limit=limit, seed=seed)


def _dataset(point: CascadePoint) -> Dataset:
    limit = max(point.train_images, point.test_images)
    root = os.fspath(paths.data_root())
    return _load(point.dataset, point.fallback, limit, point.data_seed, root)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread, so that the numbers depend neither on the cores nor on `jobs`."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _resolve_device(device: str) -> str:
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda; got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda' was asked for, but torch finds no GPU; use 'auto' or 'cpu'")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def _about(
    config: CascadeSweep, data: Dataset, finished: Mapping[CascadePoint, Point]
) -> dict[str, Any]:
    seconds = [float(point["seconds"]) for point in finished.values() if "seconds" in point]
    return {
        "config": config.as_dict(),
        "data": {
            "name": data.name,
            "checksum": data.checksum,
            # fewer than were asked for, where the data set holds fewer
            "train_images": min(config.train_images, len(data.train_images)),
            "test_images": min(config.test_images, len(data.test_images)),
        },
        "code_version": CODE_VERSION,
        "versions": {"python": platform.python_version()} | {k: version(k) for k in LIBRARIES},
        "commit": _commit(),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds_per_point": round(float(np.mean(seconds)), 3) if seconds else None,
    }


def _commit() -> str:
    """The checkout's commit, with a mark where files differ from it; "unknown" outside git."""
    command = [
        "git",
        "-C",
        os.fspath(paths.home()),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
