"""The closed form of a convolutional network against one published epoch of Adam.

    python benchmarks/cnn.py [--depth 30] [--channels 128] [--images 400] [--steps 5]

MNIST, 28×28 → 7×7. The published epoch (600 batches of 100) is scaled from `--steps` steps of the
plain loop; data loading counts on neither side.
"""

import argparse

from machine import describe, gemm_rate, once, peak_gigabytes, seconds
from published import new_inverses, train

from paperlib import Cascade, Network, initialise, load_dataset
from paperlib.cascade.convolutions import SAMPLES
from paperlib.networks import cnn

BATCH, EPOCH = 100, 600


def network(depth: int, channels: int) -> Network:
    made = cnn((1, 28, 28), depth=depth, channels=channels)
    initialise(made, sigma_w2=1.0, sigma_b2=2e-5, seed=0)
    return made


def floor_seconds(depth: int, channels: int, images: int) -> float:
    """Every product of the forward pass, of the second moments and of the equations that they
    make, at the GEMM rate of single precision."""
    forward = 2 * 9 * images * (784 * channels + (196 + 49 * (1 + depth)) * channels**2)
    frequencies, complex_product = 7 * (7 // 2 + 1), 8
    moments = 2 * complex_product * frequencies * images * channels**2
    equations = complex_product * frequencies * (1 / 6 + 1) * channels**3
    stem = SAMPLES * ((9 * channels) ** 2 + 2 * 2 * (4 * channels) ** 2)
    return (forward + stem + depth * (moments + equations)) / gemm_rate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=30)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    print(describe())
    data = load_dataset("mnist", limit=max(options.images, (options.steps + 1) * BATCH))
    images, test = data.floats("train"), data.floats("test")[:100]
    made = network(options.depth, options.channels)
    stages = len(made.stages)
    cascade = Cascade.for_network(made, images[:1])
    chosen = images[: options.images]
    fit = seconds(lambda: cascade.fit(chosen), repeats=2)
    pictures = once(lambda: cascade.reconstruct(test))
    memory = peak_gigabytes()
    inverses = new_inverses(list(made.stages), cascade.shapes)
    train(made.stages, inverses, images, steps=1, batch=BATCH)
    steps = once(lambda: train(made.stages, inverses, images, steps=options.steps, batch=BATCH))
    published = steps / options.steps * EPOCH
    floor = floor_seconds(options.depth, options.channels, options.images)
    print(f"{stages} stages, {options.channels} channels, {options.images} images")
    print(
        f"plain loop:            {1e3 * steps / options.steps / stages:.0f} ms per step and stage"
    )
    print(f"one published epoch:   {published:.0f} s")
    print(f"closed form, fit:      {fit:.1f} s; ratio {published / fit:.0f}")
    print(f"its products at the GEMM rate of single precision: {floor:.1f} s")
    print(f"100 images back from every level: {pictures:.1f} s")
    print(f"peak memory of both:   {memory:.2f} GB")


if __name__ == "__main__":
    main()
