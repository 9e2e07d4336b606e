"""One thread, and the others given back."""

import scipy.linalg  # noqa: F401  its BLAS must be there to be limited
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from paperlib.core.threads import one_thread


def blas() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_torch_numpy_and_scipy_compute_with_one_thread_and_get_the_others_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2, user_api="blas"):
            with one_thread():
                assert torch.get_num_threads() == 1
                assert set(blas()) == {1}
            assert torch.get_num_threads() == 2
            assert set(blas()) == {2}
    finally:
        torch.set_num_threads(before)
