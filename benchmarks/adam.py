"""Our Adam fit and its read-out against the published loop, for the paper's three networks.

    python benchmarks/adam.py [mlp cnn resnet] [--depth 20] [--steps 60] [--precision bfloat16]
    python benchmarks/adam.py --device cuda --depth 64 --steps 300 --memory-depth 0

Both train the same inverses of the same stages, those behind the stem, on the same MNIST images;
each ratio is of two timings in one run. The floor counts the products of a step: the stage forward,
its inverse forward, and the gradients of its weights, at the run's float32 GEMM rate. On a GPU both
convolve in float32.
"""

import argparse
import multiprocessing
from collections.abc import Callable

import torch
from machine import describe, gemm_rate, once, peak_gigabytes
from published import new_inverses, reconstruct, train
from torch import Tensor, nn

from paperlib import Cascade, Network, cnn, initialise, load_dataset, mlp, resnet
from paperlib.cascade.fitting import PRECISIONS
from paperlib.core.replay import exact_products

SHAPE = (1, 28, 28)
NETWORKS: dict[str, Callable[[int], Network]] = {
    "mlp": lambda depth: mlp(SHAPE, depth=depth),
    "cnn": lambda depth: cnn(SHAPE, depth=depth, channels=128, padding="published"),
    "resnet": lambda depth: resnet(SHAPE, depth=depth, channels=32, block="published"),
}
BATCH = {"mlp": 64, "cnn": 100, "resnet": 100}
BIAS = {"mlp": 0.05, "cnn": 2e-5, "resnet": 2e-5}
# Multiply-adds of one stage, step and sample: the stage's, its inverse's, and the gradients'.
PRODUCTS = {
    "mlp": 3 * 784**2,
    "cnn": (25 + 2 * 49) * 9 * 128**2,
    "resnet": (2 * 25 + 5 * 49) * 9 * 32**2,
}


def untrained(name: str, depth: int) -> Network:
    """Build a network at a variance at which nothing dies."""
    made = NETWORKS[name](depth)
    initialise(made, sigma_w2=1.7 if name == "mlp" else 1.0, sigma_b2=BIAS[name], seed=0)
    return made


def measure(name: str, depth: int, steps: int, precision: str, device: str) -> None:
    """Print milliseconds per step and stage, and seconds of the read-out, of both."""
    batch, network = BATCH[name], untrained(name, depth).to(device)
    images = load_dataset("mnist", limit=steps * batch).floats("train").to(device)
    stages = list(network.stages[network.stem :])
    with torch.no_grad():
        codes = nn.Sequential(*network.stages[: network.stem])(images)
        shapes = [tuple(codes.shape[1:])]
        for stage in stages:
            shapes.append(tuple(stage(codes[:1].new_zeros(1, *shapes[-1])).shape[1:]))
    times: dict[str, list[float]] = {}
    for _ in range(3):  # in turn, so that a drift of the machine meets both
        for what, seconds in _round(stages, codes, shapes, steps, batch, precision).items():
            times.setdefault(what, []).append(seconds)
    best = {what: min(found) for what, found in times.items()}
    floor = 2 * batch * PRODUCTS[name] / gemm_rate(device) * 1e3
    plain, ours = (best[who] * 1e3 / (steps * depth) for who in ("plain", "ours"))
    print(f"{name}, per step and stage: plain {plain:.3f} ms, paperlib {ours:.3f} ms", end="; ")
    print(f"ratio {plain / ours:.2f}; floor {floor:.3f} ms, {floor / ours:.0%} of ours")
    plain, ours = best["plain read"], best["our read"]
    print(f"{name}, 100 images from {depth} levels: plain {plain:.3f} s", end=", ")
    print(f"paperlib {ours:.3f} s; ratio {plain / ours:.2f}", flush=True)


def _round(
    stages: list[nn.Module],
    codes: Tensor,
    shapes: list[tuple[int, ...]],
    steps: int,
    batch: int,
    precision: str,
) -> dict[str, float]:
    """The seconds of one training and one read-out of each side."""
    inverses = [inverse.to(codes.device) for inverse in new_inverses(stages, shapes)]
    cascade = Cascade.for_network(stages, codes[:1])
    options = {"steps": steps, "batch_size": batch, "precision": precision}
    return {
        "plain": once(lambda: train(stages, inverses, codes, steps=steps, batch=batch)),
        "ours": once(lambda: cascade.fit(codes, solver="adam", **options)),
        "plain read": once(lambda: reconstruct(stages, inverses, codes[:100])),
        "our read": once(lambda: cascade.reconstruct(codes[:100])),
    }


def memory(depth: int) -> None:
    """Print the peak of an epoch's 60,000 images, held at two levels whatever the depth, and of a
    whole network with its inverses and reconstructions."""
    images = load_dataset("mnist").floats("train")
    network = untrained("mlp", depth)
    Cascade.for_network(network.stages[:2], images[:1]).fit(images, solver="adam")
    print(f"peak memory, one epoch at depth 2: {peak_gigabytes():.2f} GB", end="; ")
    cascade = Cascade.for_network(network, images[:1]).fit(images, solver="adam", steps=5)
    cascade.reconstruct(images[:100])
    print(
        f"and then five steps and 100 reconstructions at depth {depth}: {peak_gigabytes():.2f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=[], help=", ".join(NETWORKS))
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--precision", default="float32", choices=PRECISIONS, help="of ours")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="1, as in a sweep's workers")
    parser.add_argument("--memory-depth", type=int, default=200, help="0: not measured")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(describe(options.device))
    with exact_products():
        for name in options.networks or NETWORKS:
            measure(name, options.depth, options.steps, options.precision, options.device)
    if not options.memory_depth:
        return
    process = multiprocessing.get_context("spawn").Process(
        target=memory, args=(options.memory_depth,)
    )
    process.start()
    process.join()


if __name__ == "__main__":
    main()
