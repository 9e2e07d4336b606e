"""What runs a sweep's tasks: this process, others beside it, or a Dask cluster.

A task may run twice: if its worker is killed, it starts again in another one. So a task has to
check first whether its work is done already.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from typing import Any, Self

import joblib

from paperlib.sweep import cluster
from paperlib.sweep.cluster import PERHAPS_MEMORY, Outcome, TaskT, Work

BACKEND_VARIABLE = "PAPERLIB_BACKEND"
ADDRESS_VARIABLE = "PAPERLIB_ADDRESS"
WATCHED = 0.2  # seconds between a worker's looks at its parent
LIVES = 3  # workers that may be killed at one task, when it has been begun again


class Engine:
    """Runs tasks side by side; its cluster starts with the first of them and stops at the exit.

    Args:
        backend: "loky", processes of this machine; "dask", a cluster; or one registered with joblib
            that has processes and returns generators. None: $PAPERLIB_BACKEND, else "dask" where
            there is an address, else "loky".
        address: of a running Dask scheduler. None: $PAPERLIB_ADDRESS, else the `Client` that this
            process has, else a cluster is started on this machine, which listens on loopback.
        jobs: tasks at a time; a running cluster does as many as it has workers.

    Raises:
        ValueError: an unknown backend, an address without "dask", or Dask is not installed.
    """

    def __init__(
        self, backend: str | None = None, *, address: str | None = None, jobs: int = 1
    ) -> None:
        named = backend or os.environ.get(BACKEND_VARIABLE)
        if named in (None, "dask"):
            address = address or os.environ.get(ADDRESS_VARIABLE)
        self.backend = named or ("dask" if address else "loky")
        self.address = address
        self._jobs = jobs
        self._open = ExitStack()
        self._client: Any = None
        _check(self.backend, address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def run(self, work: Work, tasks: Sequence[TaskT]) -> Iterator[Outcome]:
        """Each task as it ends, with why it failed; empty: it did not.

        Raises:
            ConnectionError: no scheduler answers, or it is gone.
        """
        if self.backend == "dask":
            if self._client is None:
                opened = cluster.client(self.address, self._jobs)
                self._client = self._open.enter_context(opened)
            return cluster.run(self._client, work, tasks)
        jobs = min(self._jobs, len(tasks))
        if jobs == 1:
            return ((task, work(task)) for task in tasks)
        return _beside(work, tasks, jobs, self.backend)


def choose(backend: str | None, address: str | None) -> None:
    """Set the default engine for sweeps of this process and of the processes it starts.

    Raises:
        ValueError: as `Engine`.
    """
    if backend or address:
        engine = Engine(backend, address=address)
        os.environ[BACKEND_VARIABLE] = engine.backend
    if address:
        os.environ[ADDRESS_VARIABLE] = address


def _check(backend: str, address: str | None) -> None:
    if backend not in ("dask", "loky") and not _serves(backend):
        raise ValueError(
            "backend must be one of dask, loky, or a name registered with joblib whose backend has "
            f"processes and returns generators; got {backend!r}"
        )
    if address and backend != "dask":
        raise ValueError(f"address is for the backend 'dask'; got {address!r} with {backend!r}")
    if backend == "dask" and not find_spec("distributed"):
        raise ValueError(
            "the backend 'dask' needs packages that are not installed: pip install dask distributed"
        )


def _serves(name: str) -> bool:
    """Whether joblib knows a backend that gives each outcome as it comes, from a process, for
    points are not thread-safe."""
    from joblib.parallel import BACKENDS

    made = BACKENDS[name]() if name in BACKENDS else None
    returns = getattr(made, "supports_return_generator", False)
    return returns and not getattr(made, "supports_sharedmem", False)


def _beside(work: Work, tasks: Sequence[TaskT], jobs: int, backend: str) -> Iterator[Outcome]:
    """`Engine.run` with joblib; what may have killed a worker comes last, and alone."""
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    parent = os.getpid() if backend == "loky" else 0
    waiting, suspects = dict(enumerate(tasks)), dict[int, Any]()
    while waiting:
        calls = [joblib.delayed(_numbered)(work, *item, parent) for item in waiting.items()]
        together = joblib.Parallel(jobs, backend=backend, return_as="generator_unordered")
        try:
            for number, reason in together(calls):
                yield waiting.pop(number), reason
        except TerminatedWorkerError:
            print("sweep: a worker was killed; what it was at is begun again", flush=True)
            suspects |= {number: waiting.pop(number) for number in list(waiting)[:jobs]}
    for task in suspects.values():
        yield task, _alone(joblib.delayed(_numbered)(work, 0, task, parent), backend)


def _alone(call: Any, backend: str) -> str:
    """Why one task failed that has a worker, and so the machine, to itself."""
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    for _ in range(LIVES):
        try:
            ((_, reason),) = joblib.Parallel(2, backend=backend)([call])
            return str(reason)
        except TerminatedWorkerError:
            continue
    return f"its worker was killed, {PERHAPS_MEMORY}"


def _numbered(work: Work, number: int, task: Any, parent: int) -> tuple[int, str]:
    """The task's number and why it failed."""
    if parent:
        _go_with(parent)
    return number, work(task)


@cache
def _go_with(parent: int) -> None:
    """End this process soon after its parent, also where the parent died by kill -9."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCHED)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
