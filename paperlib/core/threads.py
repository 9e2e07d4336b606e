"""How many threads torch, NumPy and SciPy compute with."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from threadpoolctl import threadpool_limits

LOOK = 0.05  # seconds in which this program waits and others may compute


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch and of BLAS, so that the numbers depend neither on the cores nor on
    `jobs`. On a busy machine threads that wait for each other would also take most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def free_threads() -> Iterator[None]:
    """No more threads than there are cores that other programs leave free: threads that share a
    core wait for each other, of small layers some hundred times longer than these take."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    cores = psutil.cpu_count() or 1
    busy = cores * psutil.cpu_percent(interval=LOOK) / 100
    free = max(1, min(before, round(cores - busy)))
    torch.set_num_threads(free)
    try:
        with threadpool_limits(free, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
