"""Grids of points: measured in parallel, one file per finished point, collected into one Dataset.

A point file is named after everything that determines its numbers, so a sweep that was killed, or
one that shares points with another, computes only what is missing.
"""

import json
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
import xarray as xr

from paperlib import measures, paths, results
from paperlib.cascade import Cascade
from paperlib.config import CascadePoint, CascadeSweep, PredictorPoint, Sweep, TrainingPoint
from paperlib.datasets import Dataset
from paperlib.fitting import arithmetic_of
from paperlib.networks import untrained
from paperlib.plan import CURVES, Plan, forget_data, load_data, make_plan
from paperlib.predictors import predict_point
from paperlib.progress import Progress
from paperlib.training import train_point


def measure_point(
    point: CascadePoint | TrainingPoint | PredictorPoint,
    *,
    device: str = "cpu",
    data: Dataset | None = None,
) -> dict[str, np.ndarray]:
    """The numbers of one point: an untrained network's cascade, its training, or a prediction.

    Args:
        point: its settings.
        device: "cpu" or "cuda".
        data: the point's data set, where it is loaded already.

    Returns:
        Of a `TrainingPoint`, see `training.train_points`; of a `PredictorPoint`, see
        `predictors.predict_point`. Of a `CascadePoint`, the four curves (depth,) in float32,
        entropies in nats, means over the test images where a measure is per image; `cutoff` (), the
        published one; `example` (6, channels, height, width) in uint8, one test image as it comes
        back from `shown_depths`; `original`, that image.

    Raises:
        ValueError: a cascade whose activations overflow, or data that it cannot take.
    """
    data = data or load_data(point)
    with _one_thread():
        if isinstance(point, TrainingPoint):
            return train_point(point, data=data, device=device)
        if isinstance(point, PredictorPoint):
            return predict_point(point, data=data, device=device)
        return _measure_cascade(point, data, device)


def _measure_cascade(point: CascadePoint, data: Dataset, device: str) -> dict[str, np.ndarray]:
    train = data.floats("train", device=device)[: point.train_images]
    test = data.floats("test", device=device)[: point.test_images]
    network = untrained(point, data.image_shape, len(data.classes)).to(device)
    cascade = Cascade.for_network(network, train[:1]).fit(
        train,
        solver=point.solver,
        seed=point.seed,
        resolution=point.resolution,
        steps=point.steps or None,
        batch_size=point.batch_size,
    )
    pictures = cascade.reconstruct(test)
    shown = pictures[[level - 1 for level in shown_depths(point.depth)], 0]
    return {
        **_curves(test, pictures, mean=train.mean(0), rtol=point.rtol),
        "example": _as_bytes(shown),
        "original": _as_bytes(test[0]),
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
    config: Sweep,
    *,
    jobs: int | None = None,
    device: str = "auto",
    backend: str = "loky",
    start_from: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """The numbers of every point of a grid; dims sigma_w2, seed, depth.

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
    plan = make_plan(config, start_from)
    total = len(plan.finished) + len(plan.missing)
    print(f"sweep: {total} points, {len(plan.finished)} finished before", flush=True)
    failures = _compute(plan, jobs=jobs or joblib.cpu_count(), device=device, backend=backend)
    if failures:
        point, reason = failures[0]
        where = ", ".join(f"{name}={getattr(point, name)}" for name in config.axes)
        raise RuntimeError(
            f"{len(failures)} of {total} points failed, the rest is kept; "
            f"first at {where}: {reason}"
        )
    result = _collect(plan)
    results.save_result(result, paths.results_folder() / f"{plan.name}.nc")
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
    values = [config.resolution for config in configs]
    varying = [*CURVES, "cutoff", "finished"]
    together = xr.concat(
        [result[varying] for result in finished],
        dim=xr.DataArray(values, dims="resolution", name="resolution"),
        combine_attrs="override",
    )
    about = results.provenance(finished[0])
    about["config"] = {**about["config"], "resolution": values}
    return together.assign_attrs(provenance=json.dumps(about, sort_keys=True))


def collect_sweep(config: Sweep, *, start_from: str | os.PathLike[str] | None = None) -> xr.Dataset:
    """The finished points of a grid, NaN (cutoff: -1) where a point is missing.

    Saved with `results.save_result`, an unfinished collection is what a long sweep goes on from
    (`start_from`) on another machine.

    Raises:
        ValueError: no point is finished.
    """
    plan = make_plan(config, start_from)
    if not plan.finished:
        raise ValueError("no point of this sweep is finished yet; nothing to collect")
    return _collect(plan)


def _collect(plan: "Plan") -> xr.Dataset:
    config, finished, kind = plan.config, plan.finished, plan.kind
    first = next(iter(finished.values()))
    along = {axis: np.array(getattr(config, name)) for axis, name in config.axes.items()}
    shape = tuple(len(values) for values in along.values())
    fields = {name: _empty(first[name], shape) for name in kind.fields}
    done = np.zeros(shape, np.int8)
    for place, point in zip(np.ndindex(shape), config.points(), strict=True):
        if point in finished:
            done[place] = 1
            for name, field in fields.items():
                field[place] = finished[point][name]
    variables: dict[str, Any] = {
        name: ((*along, *kind.fields[name]), field) for name, field in fields.items()
    }
    variables["finished"] = (tuple(along), done)
    variables |= {name: (dims, first[name]) for name, dims in kind.shared.items()}
    if "depth" not in along:
        along["depth"] = np.arange(1, config.as_dict()["depth"] + 1)
    if isinstance(config, CascadeSweep):
        along["shown_depth"] = np.array(shown_depths(config.depth))
    about = json.dumps(plan.about(), sort_keys=True)
    return xr.Dataset(variables, along, attrs={"provenance": about})


def _empty(like: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    like = np.asarray(like)
    missing = {"f": np.nan, "i": -1, "u": 0}[like.dtype.kind]
    return np.full((*shape, *like.shape), missing, like.dtype)


def _compute(plan: Plan, *, jobs: int, device: str, backend: str) -> list[tuple[Any, str]]:
    """The points that failed, with the reason; the plan has all others afterwards."""
    if not plan.missing:
        return []
    jobs = 1 if device == "cuda" else min(jobs, len(plan.missing))
    root = os.fspath(paths.data_root())
    files, plan.missing = plan.missing, {}
    tasks = (
        joblib.delayed(_finish_point)(point, file, device, root, plan.checksum)
        for point, file in files.items()
    )
    failures: list[tuple[Any, str]] = []
    with (
        joblib.parallel_config(backend=backend if jobs > 1 else "sequential", n_jobs=jobs),
        Progress(len(files), "points") as progress,
    ):
        for point, reason in joblib.Parallel(return_as="generator_unordered")(tasks):
            progress.advance()
            if reason:
                failures.append((point, reason))
            else:
                plan.look_up(point, files[point])
    return failures


def _finish_point(point: Any, file: Path, device: str, root: str, checksum: str) -> tuple[Any, str]:
    """The point, and why it failed; empty: its file is written."""
    try:
        data = load_data(point, root)
        if data.checksum != checksum:  # this worker read the files before they changed
            forget_data()
            data = load_data(point, root)
        if data.checksum != checksum:
            return point, f"this worker finds other data in {root} than the sweep began with"
        begin = time.process_time()  # the machine may be shared
        arrays = measure_point(point, device=device, data=data)
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        return point, f"{type(error).__name__}: {error}"
    about = {
        "point": point.as_dict(),
        "computed": {**results.stamp(), "device": device, **_arithmetic(point, device)},
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.process_time() - begin, 3),
    }
    results.write_point(file, about, arrays)
    return point, ""


def _arithmetic(point: Any, device: str) -> dict[str, str]:
    if not isinstance(point, CascadePoint) or point.solver != "ridge":
        return {}
    return {"arithmetic": arithmetic_of(torch.zeros(0, device=device), point.resolution)}


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
