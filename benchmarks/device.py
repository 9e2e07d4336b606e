"""What a GPU makes of the closed form: a processor's numbers, and seconds per point.

    python benchmarks/device.py [--jobs 1 4]

The same points on both, beside the floor of one, its products at the GPU's float32 GEMM rate; then
a tenth of the published grid of 591 variances by `run_sweep` with so many processes at a time, and
what the whole would take.
"""

import argparse
from functools import partial

import numpy as np
from adaptive import allowance
from floors import Floor
from machine import describe, gemm_rate, timed
from sweep import empty_home

from paperlib import CascadePoint, CascadeSweep, load_dataset, load_result, run_sweep
from paperlib.measures import collapse_depth
from paperlib.plots import collapse_depths

PUBLISHED = 591  # variances
NETWORKS = {
    "MLP of 784, 200 deep": {"depth": 200, "sigma_b2": 0.05, "train_images": 2000},
    "CNN of 64 channels, 30 deep": {
        "architecture": "cnn", "channels": 64, "depth": 30, "sigma_b2": 2e-5, "train_images": 400
    },
    "ResNet of 32 channels, 20 blocks": {
        "architecture": "resnet", "channels": 32, "depth": 20, "sigma_b2": 2e-5, "train_images": 400
    },
}  # fmt: skip
VARIANCES = (0.7, 1.7, 3.0)


def equality(name: str) -> None:
    """Print how far a GPU's curves are from a processor's, and the seconds of both."""
    data = load_dataset("mnist")
    apart, depths, spent = [], [], []
    for sigma_w2 in VARIANCES:
        point = CascadePoint(dataset="mnist", sigma_w2=sigma_w2, **NETWORKS[name])
        calls = [partial(point.measure, data, device=device) for device in ("cpu", "cuda")]
        found, seconds = zip(*map(timed, calls), strict=True)
        here, there = (each["r_squared"] for each in found)
        apart.append(np.abs(there - here).max())
        depths.append([int(collapse_depth(curve)) for curve in (here, there)])
        spent.append(seconds)
    cpu, gpu = np.mean(spent, axis=0)
    print(f"{name}: R² within {max(apart):.1e}, collapse depths {depths} at σ_w² {VARIANCES}, "
          f"{cpu:.2f} s a point on the processor, {gpu:.2f} on the GPU",
          flush=True)  # fmt: skip


def floor(name: str) -> None:
    """Print the least seconds of a point: its products at the GPU's rate."""
    point = CascadePoint(dataset="mnist", sigma_w2=VARIANCES[0], **NETWORKS[name])
    with Floor() as least:
        point.measure(load_dataset("mnist"), device="cuda")
    print(f"{name}: products take {least.operations / gemm_rate('cuda'):.3f} s", flush=True)


def published_grid(jobs: int) -> None:
    """Print the seconds of a tenth of the published grid, and how far it is from what ships."""
    whole = load_result("mnist_mlp.nc")
    grid = tuple(np.round(np.arange(0.1, 6.05, 0.1), 10).tolist())
    config = CascadeSweep(
        dataset="mnist", sigma_w2=grid, seeds=(0,), **NETWORKS["MLP of 784, 200 deep"]
    )
    with empty_home():
        result, seconds = timed(lambda: run_sweep(config, device="cuda", jobs=jobs))
    ours = collapse_depths(result).isel(seed=0)
    theirs = collapse_depths(whole).sel(seed=0).sel(sigma_w2=list(grid), method="nearest")
    apart = np.abs(ours.values - theirs.values)
    within = (apart <= allowance(theirs).values).mean()
    print(f"{jobs} at a time, {len(grid)} of {PUBLISHED} variances: {seconds:.0f} s, the whole "
          f"{seconds * PUBLISHED / len(grid):.0f} s; collapse depths within 2% or one stage of "
          f"those that a processor measured: {within:.0%}, at most {apart.max():.0f} apart",
          flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 4])
    jobs = parser.parse_args().jobs
    print(describe("cuda"))
    for name in NETWORKS:
        equality(name)
        floor(name)
    for count in jobs:
        published_grid(count)


if __name__ == "__main__":
    main()
