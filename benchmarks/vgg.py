"""The closed form of VGG16's convolutions and poolings against one published epoch of Adam.

    python benchmarks/vgg.py FOLDER [--images 200] [--side 224] [--layers 16] [--batch 100]

Colour photographs from a folder, random weights. The published epoch (600 batches of 100) is scaled
from `--steps` steps of the plain loop on batches of `--batch`, which change nothing but its memory;
reading the photographs counts on neither side. At last the plain loop, begun anew, gets as many
steps
as take the time of the closed form, and both say what R² they reach.
"""

import argparse

import torch
from machine import describe, gemm_rate, once, peak_gigabytes
from published import train
from torch import Tensor, nn

from paperlib import Cascade, r_squared
from paperlib.cascade.convolutions import SAMPLES
from paperlib.datasets.photographs import load_photographs
from paperlib.networks import Network, vgg16

EPOCH = 60_000  # images


def new_inverses(stages: nn.Sequential) -> list[nn.Module]:
    """As published: a transposed convolution, ReLU, and what it is too large cut off."""
    inverses: list[nn.Module] = []
    channels = 3
    for stage in stages:
        if isinstance(stage, nn.MaxPool2d):
            inverses.append(nn.Sequential(nn.ConvTranspose2d(channels, channels, 2, stride=2)))
        else:
            transposed = nn.ConvTranspose2d(stage.convolution.out_channels, channels, 3, padding=1)
            inverses.append(nn.Sequential(transposed))
            channels = stage.convolution.out_channels
        inverses[-1].extend([nn.ReLU(), nn.Flatten()])
    return inverses


@torch.no_grad()
def curve_of(stages: nn.Sequential, inverses: list[nn.Module], images: Tensor, mean: Tensor) -> str:
    """R² by level of the plain loop's inverses, which flatten what they give."""
    shapes, pictures, activations = [images.shape], [], images
    for stage in stages:
        activations = stage(activations)
        shapes.append(activations.shape)
        estimate = activations
        for level in range(len(shapes) - 1, 0, -1):
            estimate = inverses[level - 1](estimate).view(shapes[level - 1])
        pictures.append(estimate)
    return spelt(r_squared(images, torch.stack(pictures), mean=mean))


def spelt(curve: Tensor) -> str:
    return " ".join(f"{float(value):.3f}" for value in curve)


def floor_seconds(stages: nn.Sequential, images: int, side: int) -> float:
    """Every product of one forward pass, of the second moments and of the equations that they
    make, at the GEMM rate of single precision."""
    operations = 0.0
    for stage in stages:
        if isinstance(stage, nn.MaxPool2d):
            side //= 2
            continue
        before, after = stage.convolution.in_channels, stage.convolution.out_channels
        features = 9 * after
        samples = min(SAMPLES, images * side**2)
        operations += 2 * 9 * before * after * images * side**2
        operations += samples * features * (features + 2 * before)
        operations += features**3 / 3 + 2 * before * features**2
    return operations / gemm_rate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--test", type=int, default=10)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    print(describe())
    side = options.side
    images = load_photographs(options.folder, side=side, limit=options.images)
    test = load_photographs(options.folder, "test", side=side, limit=options.test)
    network: Network = vgg16("random", layers=options.layers, image_shape=(3, side, side))
    stages = network.stages[:-4].eval()  # up to the last pooling
    del network
    cascade = Cascade.for_network(stages, images[:1])
    fit = once(lambda: cascade.fit(images))
    memory = peak_gigabytes()
    curve = r_squared(test, cascade.reconstruct(test), mean=images.mean(0))
    inverses = new_inverses(stages)
    batch = min(options.batch, len(images))
    steps = once(lambda: train(stages, inverses, images, steps=options.steps, batch=batch))
    published = steps / (options.steps * batch) * EPOCH
    floor = floor_seconds(stages, len(images), side)
    print(f"{len(stages)} stages, {len(images)} photographs of {side}×{side}")
    print(f"plain loop:          {steps / options.steps:.0f} s per step of {batch} images")
    print(f"one published epoch: {published / 3600:.1f} h")
    print(f"closed form, fit:    {fit:.0f} s; ratio {published / fit:.0f}")
    print(f"its products at the GEMM rate of single precision: {floor:.0f} s")
    print(f"peak memory of the fit: {memory:.2f} GB")
    print(f"R² by level, closed form: {spelt(curve)}")
    count = max(1, round(fit / (steps / options.steps)))
    inverses = new_inverses(stages)
    spent = once(lambda: train(stages, inverses, images, steps=count, batch=batch))
    reached = curve_of(stages, inverses, test, images.mean(0))
    print(f"R² by level, Adam, {count} steps in {spent:.0f} s: {reached}")


if __name__ == "__main__":
    main()
