"""What a sweep costs beside its points: overhead, memory, collecting; and what two workers gain.

    python benchmarks/sweep.py workers             what two workers gain: needs two idle cores
    python benchmarks/sweep.py overhead [POINTS]   10,000 by default

Without arguments both. It works in folders of its own, which are gone afterwards.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from joblib.externals.loky import get_reusable_executor
from machine import describe, once, peak_gigabytes

from paperlib import TrainingSweep, run_sweep
from paperlib.core.provenance import provenance
from paperlib.instruments.reconstruction.points import CascadeSweep
from paperlib.sweep import collect_sweep
from paperlib.sweep.grid import Sweep
from paperlib.sweep.plan import forget_data, load_data
from paperlib.sweep.points import measure_point

POINTS = 10_000
WORKED = 60  # points, of a second or so, that workers are compared on


def tiny(count: int) -> TrainingSweep:
    """A grid of the smallest trainings: a few milliseconds each."""
    return TrainingSweep(
        dataset="digits", width=4, depths=(1, 2), steps=1, train_images=64, test_images=10,
        sigma_w2=tuple((1 + np.arange(count // 20) / 1000).tolist()), seeds=tuple(range(10)),
    )  # fmt: skip


def worthwhile(count: int) -> CascadeSweep:
    """A grid of cascades that keep a core busy."""
    return CascadeSweep(
        dataset="digits", width=300, depth=40, train_images=1000,
        sigma_w2=tuple((1 + np.arange(count // 10) / 10).tolist()), seeds=tuple(range(10)),
    )  # fmt: skip


@contextmanager
def empty_home() -> Iterator[Path]:
    """A project without any finished point."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "notebooks").mkdir()
        os.environ["PAPERLIB_HOME"] = folder
        yield Path(folder)


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a process of its own, whose peak memory is its own."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawned) as pool:  # Pool's may start no workers
        return pool.submit(function, *arguments).result()


def swept(config: Sweep, jobs: int) -> tuple[float, float, float]:
    """Wall and CPU seconds of a sweep beside its points, per point, and peak gigabytes."""
    run_sweep(tiny(20), jobs=1)  # warm
    point, data = next(config.points()), load_data(next(config.points()))
    begin, busy = time.perf_counter(), time.process_time()
    result = run_sweep(config, jobs=jobs)
    wall, cpu = time.perf_counter() - begin, time.process_time() - busy
    get_reusable_executor().shutdown()  # this process would wait for idle workers at its end
    count = int(result["finished"].size)
    points = float(provenance(result)["seconds_per_point"])
    if jobs == 1:  # the note of a point's seconds is rounded to milliseconds
        points = once(lambda: [measure_point(point, data=data) for _ in range(500)]) / 500
        cpu -= count * points
    return wall / count - points / jobs, cpu / count, peak_gigabytes()


def collected(config: Sweep) -> tuple[float, float]:
    """Seconds and peak gigabytes of collecting a finished sweep."""
    load_data(next(config.points()))
    forget_data()
    return once(lambda: collect_sweep(config)), peak_gigabytes()


def overhead(count: int) -> None:
    for jobs in (1, 2):
        for some in (count // 10, count):
            with empty_home():
                wall, cpu, memory = alone(swept, tiny(some), jobs)
                print(f"{some} points, jobs={jobs}: {1000 * wall:.2f} ms per point beside its own "
                      f"time; main process {1000 * cpu:.2f} ms CPU, peak {memory:.2f} GB",
                      flush=True)  # fmt: skip
                if some == count and jobs == 1:
                    seconds, memory = alone(collected, tiny(some))
                    print(f"collect: {seconds:.1f} s, peak {memory:.2f} GB", flush=True)
                    print(f"status: {once(status):.1f} s with these points", flush=True)


def status() -> None:
    home = Path(__file__).parent.parent
    folder = Path(os.environ["PAPERLIB_HOME"])
    if not (folder / "notebooks" / "profiles").exists():
        (folder / "notebooks").rmdir()
        (folder / "notebooks").symlink_to(home / "notebooks")
    command = [sys.executable, "-m", "paperlib", "status"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def rate(backend: str, workers: int) -> tuple[xr.Dataset, float]:
    """A sweep on so many workers, and the points that they finished in a second."""
    from paperlib import sweep
    from paperlib.sweep import cluster

    config = worthwhile(WORKED)
    if backend == "loky":
        run_sweep(tiny(20), jobs=workers)  # the workers stay
        seconds = once(lambda: run_sweep(config, jobs=workers))
        return run_sweep(config, jobs=1), WORKED / seconds
    with cluster.client(None, workers) as client, client.as_current():
        run_sweep(tiny(60), backend="dask")  # warm: every worker has imported everything
        seconds = once(lambda: sweep.run_sweep(config, backend="dask"))
    return run_sweep(config, jobs=1), WORKED / seconds


def workers() -> None:
    results, rates = {}, {}
    for backend, count in (("dask", 1), ("dask", 2), ("loky", 2)):
        with empty_home():
            results[backend, count], rates[backend, count] = rate(backend, count)
            print(f"{backend}, {count} workers: {rates[backend, count]:.2f} points/s", flush=True)
    first, *others = (result.drop_attrs() for result in results.values())
    for other in others:
        xr.testing.assert_identical(first, other)
    gain = rates["dask", 2] / rates["dask", 1]
    print(f"the same numbers; 2 Dask workers are {gain:.2f} times as fast as one")


def main() -> None:
    print(f"{describe()}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    what, *count = sys.argv[1:] or ["both"]
    if what in ("both", "workers"):
        workers()
    if what in ("both", "overhead"):
        overhead(int(count[0]) if count else POINTS)


if __name__ == "__main__":
    main()
