"""One thread, and the others given back."""

import psutil
import pytest
import scipy.linalg  # noqa: F401  its BLAS must be there to be limited
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from paperlib.core.threads import free_threads, one_thread


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


@pytest.mark.parametrize(
    ("busy", "taken"), [(0.0, 4), (30.0, 3), (50.0, 2), (100.0, 1)], ids=lambda value: f"{value:g}"
)
def test_cores_that_others_use_are_left_to_them(
    busy: float, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: busy)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with free_threads():
            assert torch.get_num_threads() == taken
            assert max(blas()) <= taken
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_whoever_asks_for_one_thread_has_one_without_a_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: pytest.fail("it looked"))
    with one_thread(), free_threads():
        assert torch.get_num_threads() == 1
