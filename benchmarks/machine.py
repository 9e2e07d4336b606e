"""What the machine can do, and how long a call takes on it."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch


def seconds(call: Callable[[], object], *, repeats: int = 3) -> float:
    """The median seconds of a call, after one that is not counted."""
    call()
    return statistics.median(once(call) for _ in range(repeats))


def once(call: Callable[[], object]) -> float:
    """The seconds of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def gemm_rate(size: int = 2048) -> float:
    """Floating-point operations per second of a large float32 matrix product."""
    left, right = torch.rand(2, size, size)
    return 2 * size**3 / seconds(lambda: left @ right, repeats=9)


def peak_gigabytes() -> float:
    """The largest resident memory of this process so far (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kilobytes) / 2**20


def describe() -> str:
    """Threads and GEMM rate, in one line."""
    rate = gemm_rate() / 1e9
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, GEMM {rate:.0f} GFLOP/s"
