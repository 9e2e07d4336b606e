"""How many threads torch, NumPy and SciPy compute with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


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
