"""How many threads torch, NumPy and SciPy compute with."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from threadpoolctl import threadpool_limits

LOOK = 0.05  # seconds in which this program waits and others may compute


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads of torch and of BLAS."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch and of BLAS, so that the numbers depend neither on the cores nor on
    `jobs`. On a busy machine threads that wait for each other would also take most of the time."""
    with _threads(1):
        yield


@contextmanager
def free_threads() -> Iterator[None]:
    """No more threads than there are cores that other programs leave free: threads that share a
    core wait for each other, of small layers some hundred times longer than these take."""
    most = torch.get_num_threads()
    if most == 1:
        yield
        return
    cores = psutil.cpu_count() or 1
    busy = cores * psutil.cpu_percent(interval=LOOK) / 100
    with _threads(max(1, min(most, round(cores - busy)))):
        yield
