"""The Network class, a classifier made of stages and a head, and the package's own layers."""

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.core.checks import checked, instance_of, quoted
from paperlib.networks.kinds import ACTIVATIONS

DEEPEST, WIDEST = 10_000, 100_000  # stages; neurons, channels, classes or pixels a side


class Erf(nn.Module):
    """erf(x), the activation with closed-form mean-field kernels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


class Scale(nn.Module):
    """A head without weights: the last stage's outputs times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Normalise(nn.Module):
    """Each channel minus its mean, by its deviation: constants, not statistics of a batch."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class ResidualBlock(nn.Module):
    """x + body(x). What follows the sum, as the published block's tanh, is no part of it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Network(nn.Module):
    """A classifier as stages and a head: `head(stages(images))` are its logits.

    Example:
        >>> import torch
        >>> from paperlib import Network
        >>> from torch import nn
        >>> stages = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh()))
        >>> network = Network(stages, nn.Linear(8, 3), image_shape=(1, 4, 4))
        >>> tuple(network(torch.zeros(5, 1, 4, 4)).shape)
        (5, 3)

    Attributes:
        stages: what a cascade inverts; level l is the output of the first l stages.
        stem: stages that come before depth 1 (0 for MLPs); depth = level - stem.
        head: from the last stage's output to logits.
        image_shape: (channels, height, width) of the images it takes.
    """

    def __init__(
        self, stages: nn.Sequential, head: nn.Module, *, image_shape: Sequence[int], stem: int = 0
    ) -> None:
        super().__init__()
        self.stages = instance_of("stages", stages, nn.Sequential)
        self.head = instance_of("head", head, nn.Module)
        self.stem = checked("stem", stem, int, low=0, high=len(stages))
        self.image_shape = checked_shape(image_shape)

    @property
    def stage_names(self) -> list[str]:
        """The dotted names of the stages, where `paperlib.activations` looks at a network."""
        return [f"stages.{number}" for number in range(len(self.stages))]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stages(images))


def activation_module(name: str) -> nn.Module:
    """Return the activation called `name`: tanh, erf, relu, gelu or linear.

    Example:
        >>> import torch
        >>> from paperlib.networks import activation_module
        >>> activation_module("relu")(torch.tensor([-1.0, 2.0])).tolist()
        [0.0, 2.0]

    Raises:
        ValueError: another name.
    """
    modules = {
        "tanh": nn.Tanh,
        "erf": Erf,
        "relu": nn.ReLU,
        "gelu": nn.GELU,
        "linear": nn.Identity,
    }
    return modules[checked("activation", name, str, choices=ACTIVATIONS)]()


def checked_shape(image_shape: Any) -> tuple[int, int, int]:
    try:
        sizes = [checked("image_shape", n, int, low=1, high=WIDEST) for n in islice(image_shape, 4)]
        channels, height, width = sizes
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"image_shape must be (channels, height, width), each 1 to {WIDEST:,}; "
            f"got {quoted(image_shape)}"
        ) from error
    return channels, height, width


def check_memory(names: str, weights: Iterable[int]) -> None:
    """Raise a ValueError where so many weights, in float32, exceed this machine's memory."""
    needed = 4 * sum(weights)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise ValueError(
            f"a network of this {names} needs {needed / 2**30:,.0f} GiB for its weights, this "
            f"machine has {memory / 2**30:,.0f} GiB; make it smaller, or scale the images down"
        )
