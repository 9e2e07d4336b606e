"""The closed form against one published epoch of Adam: fit, and fit with reconstruction.

    python benchmarks/ridge.py [--depth 50] [--steps 50]

MNIST, as many neurons as pixels. The published epoch (938 batches of 64) is scaled from `--steps`
steps of the plain loop; data loading counts on neither side.
"""

import argparse

from adam import untrained
from machine import describe, once, seconds
from published import new_inverses, reconstruct, train

from paperlib import Cascade, load_dataset

BATCH, EPOCH = 64, 938


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    print(describe())
    data = load_dataset("mnist", limit=max(2000, options.steps * BATCH))
    images, test = data.floats("train"), data.floats("test")[:100]
    made = untrained("mlp", options.depth)
    cascade = Cascade.for_network(made, images[:1])
    inverses = new_inverses(list(made.stages), cascade.shapes)
    train(made.stages, inverses, images, steps=3)
    steps = once(lambda: train(made.stages, inverses, images, steps=options.steps))
    published_fit = steps * EPOCH / options.steps
    published_pictures = seconds(lambda: reconstruct(made.stages, inverses, test))
    for arithmetic in ("float32", "float64"):
        fit = seconds(lambda: cascade.fit(images[:2000], arithmetic=arithmetic))  # noqa: B023
        pictures = seconds(lambda: cascade.reconstruct(test))
        print(f"arithmetic={arithmetic}, 2,000 images, depth {options.depth}")
        print(f"  fit: {fit:.2f} s; one published epoch: {published_fit:.1f} s", end="; ")
        print(f"ratio {published_fit / fit:.0f}")
        pair, published = fit + pictures, published_fit + published_pictures
        print(f"  fit and reconstruction of 100 images from every depth: {pair:.2f} s", end="; ")
        print(f"published: {published:.1f} s; ratio {published / pair:.0f}")


if __name__ == "__main__":
    main()
