"""What the machine can do, and how long a call takes on it."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")


def seconds(call: Callable[[], object], *, repeats: int = 3) -> float:
    """The median seconds of a call, after one that is not counted."""
    call()
    return statistics.median(once(call) for _ in range(repeats))


def once(call: Callable[[], object]) -> float:
    """The seconds of one call, until a GPU has done its part."""
    return timed(call)[1]


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """What one call returns, and its seconds, until a GPU has done its part."""
    begin = time.perf_counter()
    result = call()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return result, time.perf_counter() - begin


def gemm_rate(device: str = "cpu", *, size: int = 2048) -> float:
    """Floating-point operations per second of a large float32 matrix product."""
    left, right = torch.rand(2, size, size, device=device)
    return 2 * size**3 / seconds(lambda: left @ right, repeats=9)


def peak_gigabytes() -> float:
    """The largest resident memory of this process so far (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kilobytes) / 2**20


def describe(device: str = "cpu") -> str:
    """The machine and its GEMM rate, in one line."""
    threads = f"{torch.get_num_threads()} threads"
    what = torch.cuda.get_device_name() if device == "cuda" else threads
    return f"torch {torch.__version__}, {what}, GEMM {gemm_rate(device) / 1e9:.0f} GFLOP/s"
