"""Seconds and peak memory of the closed form against depth and width, drawn.

    python benchmarks/cost.py [OUTPUT.png]

Every size runs in a process of its own, so that its peak memory is its own.
"""

import multiprocessing
import sys

import matplotlib.pyplot as plt
import torch
from machine import once, peak_gigabytes

from paperlib import Cascade, initialise, mlp
from paperlib.plots import STYLE

DEPTHS, WIDTHS = (50, 100, 200, 400), (128, 256, 512, 784, 1024)
DEPTH, WIDTH = 50, 784  # of the other axis' measurements


def cost(depth: int, width: int) -> tuple[float, float, float]:
    """Seconds of the fit, seconds of the reconstruction of 100 images, peak gigabytes."""
    images = torch.rand(2100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    made = mlp((1, 28, 28), depth=depth, width=width)
    initialise(made, sigma_w2=1.7, sigma_b2=0.05, seed=0)
    cascade = Cascade.for_network(made, images[:1])
    Cascade.for_network(made.stages[:3], images[:1]).fit(images[:2000])  # warm
    fit = once(lambda: cascade.fit(images[:2000]))
    pictures = once(lambda: cascade.reconstruct(images[2000:]))
    return fit, pictures, peak_gigabytes()


def measured(sizes: list[tuple[int, int]]) -> list[tuple[float, float, float]]:
    rows = []
    for depth, width in sizes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(cost, (depth, width)))
        fit, pictures, gigabytes = rows[-1]
        print(
            f"depth {depth:4d}, width {width:4d}: fit {fit:6.2f} s, "
            f"reconstruction {pictures:5.2f} s, peak {gigabytes:.2f} GB",
            flush=True,
        )
    return rows


def main() -> None:
    by_depth = measured([(depth, WIDTH) for depth in DEPTHS])
    by_width = measured([(DEPTH, width) for width in WIDTHS])
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.8))
        for axis, sizes, rows, name in (
            (axes[0], DEPTHS, by_depth, f"depth (width {WIDTH})"),
            (axes[1], WIDTHS, by_width, f"width (depth {DEPTH})"),
        ):
            fit, pictures, gigabytes = zip(*rows, strict=True)
            axis.plot(sizes, fit, "o-", label="fit")
            axis.plot(sizes, pictures, "s-", label="reconstruction of 100 images, all depths")
            axis.set(xlabel=name, ylabel="seconds", ylim=0)
            memory = axis.twinx()
            memory.plot(sizes, gigabytes, "^:", color="C2", label="peak memory")
            memory.set(ylabel="GB", ylim=0)
            axis.legend(handles=[*axis.lines, *memory.lines], loc="upper left")
        figure.suptitle("The closed form on 2,000 images: cost against depth and width", fontsize=9)
        figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "figures/cost.png")


if __name__ == "__main__":
    main()
