"""Seconds and peak memory of the closed form against depth and width, drawn.

    python benchmarks/cost.py [OUTPUT]      # OUTPUT.png and OUTPUT.pdf; figures/cost

Every size runs in processes of its own, so that its peak memory is its own; the fastest of them
counts, for the machine may be shared.
"""

import hashlib
import json
import multiprocessing
import sys
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import xarray as xr
from machine import once, peak_gigabytes
from matplotlib.figure import Figure

from paperlib import Cascade, initialise, mlp
from paperlib.core.provenance import stamp
from paperlib.plots import paper_style, save

DEPTHS, WIDTHS = (50, 100, 200, 400), (128, 256, 512, 784, 1024)
DEPTH, WIDTH = 50, 784  # of the other axis' measurements
FITTED, RECONSTRUCTED = 2000, 100  # images
REPEATS = 3
NETWORK = {"sigma_w2": 1.7, "sigma_b2": 0.05, "seed": 0}
MEASURED = ("fit_seconds", "reconstruction_seconds", "peak_gigabytes")


def images() -> torch.Tensor:
    """What is fitted and reconstructed: the cost does not depend on what the images show."""
    count = FITTED + RECONSTRUCTED
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def cost(depth: int, width: int) -> tuple[float, float, float]:
    """The values of MEASURED for one network."""
    pictures = images()
    train, test = pictures[:FITTED], pictures[FITTED:]
    made = mlp((1, 28, 28), depth=depth, width=width)
    initialise(made, **NETWORK)
    cascade = Cascade.for_network(made, train[:1])
    Cascade.for_network(made.stages[:3], train[:1]).fit(train)  # warm
    fit = once(lambda: cascade.fit(train))
    reconstruction = once(lambda: cascade.reconstruct(test))
    return fit, reconstruction, peak_gigabytes()


def measured() -> xr.Dataset:
    """The costs of all sizes along the dim `size`, with what they were measured with."""
    sizes = [(depth, WIDTH) for depth in DEPTHS]
    sizes += [(DEPTH, width) for width in WIDTHS if (DEPTH, width) not in sizes]
    rows = []
    for depth, width in sizes:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            runs = [pool.apply(cost, (depth, width)) for _ in range(REPEATS)]
        rows.append(tuple(map(min, zip(*runs, strict=True))))
        fit, reconstruction, gigabytes = rows[-1]
        print(
            f"depth {depth:4d}, width {width:4d}: fit {fit:6.2f} s, "
            f"reconstruction {reconstruction:5.2f} s, peak {gigabytes:.2f} GB",
            flush=True,
        )
    columns = dict(zip(MEASURED, zip(*rows, strict=True), strict=True))
    depths, widths = zip(*sizes, strict=True)
    return xr.Dataset(
        {name: ("size", list(values)) for name, values in columns.items()},
        {"depth": ("size", list(depths)), "width": ("size", list(widths))},
        {"provenance": json.dumps(about(sizes), sort_keys=True)},
    )


def about(sizes: list[tuple[int, int]]) -> dict[str, object]:
    """The measurements' provenance, in the form of a sweep's."""
    checksum = hashlib.sha256(images().numpy().tobytes()).hexdigest()
    way = {**stamp(), "device": "cpu", "threads": torch.get_num_threads(), "points": len(sizes)}
    way["repeats"] = REPEATS
    return {
        "config": {**NETWORK, "solver": "ridge", "depths": DEPTHS, "widths": WIDTHS},
        "data": {
            "name": "uniform noise",
            "source": "torch.rand, seed 0",
            "checksum": checksum,
            "train_images": FITTED,
            "test_images": RECONSTRUCTED,
        },
        "computed": [way],
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def drawn(costs: xr.Dataset) -> Figure:
    """The figure: against depth on the left, against width on the right."""
    with paper_style():
        figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.8))
        for axis, along, fixed, value in (
            (axes[0], "depth", "width", WIDTH),
            (axes[1], "width", "depth", DEPTH),
        ):
            line = costs.isel(size=costs[fixed].values == value).sortby(along)
            label = f"reconstruction of {RECONSTRUCTED} images, all depths"
            axis.plot(line[along], line["fit_seconds"], "o-", label="fit")
            axis.plot(line[along], line["reconstruction_seconds"], "s-", label=label)
            axis.set(xlabel=f"{along} ({fixed} {value})", ylabel="seconds", ylim=0)
            memory = axis.twinx()
            memory.plot(line[along], line["peak_gigabytes"], "^:", color="C2", label="peak memory")
            memory.set(ylabel="GB", ylim=0)
            axis.legend(handles=[*axis.lines, *memory.lines], loc="upper left")
        title = f"The closed form on {FITTED:,} images: cost against depth and width"
        figure.suptitle(title, fontsize=9)
    return figure


def main() -> None:
    costs = measured()
    stem = Path(sys.argv[1] if len(sys.argv) > 1 else "figures/cost")
    print(*save(drawn(costs), stem, costs))


if __name__ == "__main__":
    main()
