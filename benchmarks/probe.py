"""Seconds of `probe`, of its verdict and of `suggest()`, and what `watch` adds to a training.

    python benchmarks/probe.py [--only mlp resnet18 vgg16 vit_b_16 watch]

MLPs of 80 tanh layers on 300 images of MNIST; torchvision's networks on 100 random pictures of
224×224. `suggest()` is given as a multiple of the probe of the same run, with labels and without.
Watched is an MLP of 10 layers of 784, as of notebook 01, and one of 3 layers of 100, which learns
MNIST by Adam in batches of 100, every 100 steps.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from machine import describe, once, timed
from torch import Tensor, nn

from paperlib import load_dataset, probe, watch
from paperlib.core.vision import torchvision
from paperlib.training import train

DEPTH, WIDTHS = 80, (100, 300, 784)
STEPS, EVERY, WATCHED = 300, 100, 128


def tanh_layers(width: int, depth: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(784, width), nn.Tanh()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def pictures() -> tuple[Tensor, Tensor]:
    return torch.rand(100, 3, 224, 224), torch.arange(100) % 10


def of_probe(name: str, build: Callable[[], nn.Module], x: Tensor, y: Tensor) -> None:
    """Print the seconds of a probe, of the verdict and of suggestions."""
    torch.manual_seed(0)
    model = build()
    probe(model, x, y)
    report, plain = timed(lambda: probe(model, x, y))
    judged = once(lambda: report.verdict)
    labelled = once(report.suggest)
    without = once(probe(model, x).suggest)
    print(
        f"{name:14} probe {plain:5.1f} s, verdict {judged:5.1f} s, suggest with labels "
        f"{labelled / plain:4.1f} times a probe, without {without / plain:4.1f}",
        flush=True,
    )


def of_watch(depth: int, width: int) -> None:
    """Print how much longer a training takes that is watched; the median of three, in turn."""
    data = load_dataset("mnist")
    lessons = data.examples("train", 20_000)
    x, y = data.examples("test", WATCHED)
    model = tanh_layers(width, depth)

    def learn(*observers: Any) -> None:
        optimiser = torch.optim.Adam(model.parameters(), 1e-3)
        options: dict[str, Any] = {"steps": STEPS, "batch_size": 100, "observers": observers}
        train(model, lessons, optimiser=optimiser, **options)

    learn()
    times = []
    for _ in range(3):
        alone = once(learn)
        seen = watch(model, x, y, every=EVERY)
        times.append((once(lambda seen=seen: learn(seen)), alone))
    watched, alone = sorted(times, key=lambda pair: pair[0] / pair[1])[1]
    print(
        f"watch, {depth} layers of {width}: {STEPS} steps {alone:5.1f} s, watched every {EVERY} "
        f"{100 * (watched / alone - 1):+.0f}%",
        flush=True,
    )


def main() -> None:
    names = ("mlp", "resnet18", "vgg16", "vit_b_16", "watch")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    chosen = parser.parse_args().only
    warnings.simplefilter("ignore")
    print(describe())
    if "mlp" in chosen:
        x, y = load_dataset("mnist").examples("train", 300)
        for width in WIDTHS:
            of_probe(f"MLP {DEPTH}×{width}", lambda width=width: tanh_layers(width, DEPTH), x, y)
    for name in ("resnet18", "vgg16", "vit_b_16"):
        if name in chosen:
            of_probe(name, getattr(torchvision.models, name), *pictures())
    if "watch" in chosen:
        of_watch(10, 784)
        of_watch(3, 100)


if __name__ == "__main__":
    sys.exit(main())
