"""Our Adam fit against the published loop: milliseconds per step and stage, and peak memory.

    python benchmarks/adam.py [--depth 50] [--steps 150] [--memory-depth 200]

Both train the same inverses on the same MNIST images; the ratio is of two timings in one run.
"""

import argparse
import multiprocessing

from machine import describe, gemm_rate, once, peak_gigabytes
from published import new_inverses, train

from paperlib import Cascade, Network, initialise, load_dataset, mlp

BATCH = 64


def network(depth: int, pixels_shape: tuple[int, ...]) -> Network:
    made = mlp(pixels_shape, depth=depth)
    initialise(made, sigma_w2=1.7, sigma_b2=0.05, seed=0)
    return made


def floor_milliseconds(width: int) -> float:
    """One forward of the stage, one of the inverse and its weight gradient, at the GEMM rate."""
    return 3 * 2 * BATCH * width**2 / gemm_rate() * 1e3


def memory(depth: int) -> None:
    """Nothing; prints the peak of an epoch's 60,000 images, held at two levels whatever the depth,
    and of a whole network with its inverses and reconstructions."""
    images = load_dataset("mnist").floats("train")
    made = network(depth, tuple(images.shape[1:]))
    Cascade.for_network(made.stages[:2], images[:1]).fit(images, solver="adam")
    print(f"peak memory, one epoch at depth 2: {peak_gigabytes():.2f} GB", end="; ")
    cascade = Cascade.for_network(made, images[:1]).fit(images, solver="adam", steps=5)
    cascade.reconstruct(images[:100])
    print(
        f"and then five steps and 100 reconstructions at depth {depth}: {peak_gigabytes():.2f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--memory-depth", type=int, default=200)
    options = parser.parse_args()
    print(describe())
    images = load_dataset("mnist", limit=options.steps * BATCH).floats("train")
    made = network(options.depth, tuple(images.shape[1:]))
    shapes = [tuple(images.shape[1:]), *[(images[0].numel(),)] * options.depth]
    plain, ours = [], []
    for _ in range(2):  # in turn, so that a drift of the machine meets both
        inverses = new_inverses(shapes)
        plain.append(once(lambda: train(made.stages, inverses, images, steps=options.steps)))  # noqa: B023
        cascade = Cascade.for_network(made, images[:1])
        ours.append(once(lambda: cascade.fit(images, solver="adam", steps=options.steps)))  # noqa: B023
    each = 1e3 / (options.steps * options.depth)
    best_plain, best_ours = (min(times) * each for times in (plain, ours))
    floor = floor_milliseconds(images[0].numel())
    print(f"plain per-stage loop: {best_plain:.3f} ms per step and stage")
    print(f"paperlib:             {best_ours:.3f} ms per step and stage")
    print(f"ratio:                {best_plain / best_ours:.2f}")
    print(f"floor at GEMM rate:   {floor:.3f} ms; paperlib reaches {floor / best_ours:.0%} of it")
    if not options.memory_depth:
        return
    process = multiprocessing.get_context("spawn").Process(
        target=memory, args=(options.memory_depth,)
    )
    process.start()
    process.join()


if __name__ == "__main__":
    main()
