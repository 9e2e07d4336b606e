"""The paper's convolutional and residual networks."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from paperlib.core.checks import checked
from paperlib.networks.kinds import BLOCKS, PADDINGS
from paperlib.networks.network import (
    DEEPEST,
    WIDEST,
    Network,
    ResidualBlock,
    activation_module,
    check_memory,
    checked_shape,
)


def cnn(
    image_shape: Sequence[int],
    *,
    depth: int,
    channels: int = 128,
    activation: str = "tanh",
    padding: str = "circular",
    classes: int = 10,
) -> Network:
    """Build a convolutional network of `depth` stages (3×3 convolution, activation), and its head.

    Before them a stem of three stages: a convolution from the image's channels, and two of stride 2
    that halve its sides (28 → 14 → 7), rounded up. The stem pads with zeros, the `depth` stages
    circularly. The head is a convolution, the average over the image, and a Linear layer.

    Example:
        >>> import torch
        >>> from paperlib import cnn
        >>> network = cnn((1, 28, 28), depth=2, channels=4)
        >>> network.stem, tuple(network.stages(torch.zeros(1, 1, 28, 28)).shape)
        (3, (1, 4, 7, 7))

    Args:
        image_shape: (channels, height, width), any size from one pixel on.
        depth: number of stages after the stem, at least 1.
        channels: of every convolution, at least 1.
        activation: tanh, erf, relu, gelu or linear.
        padding: "circular" pads before each convolution, so that a stage commutes with shifts of
            the image; "published" convolves first (7×7 → 5×5) and pads the result circularly, so
            that the first stage loses the border and every later one works on a 5×5 torus.
        classes: number of logits.

    Raises:
        ValueError: an argument out of range, or "published" where the stem leaves fewer than 3×3
            positions; the message names it.

    Source: arXiv:2406.12916; "published" is the padding of its authors' code.
    """
    channels = checked("channels", channels, int, low=1, high=WIDEST)
    padding = checked("padding", padding, str, choices=PADDINGS)
    if padding == "published":
        _check_published(image_shape)
    stage = partial(_hidden_stage, channels, activation, padding)
    return _convolutional(stage, image_shape, depth, channels, activation, classes)


def resnet(
    image_shape: Sequence[int],
    *,
    depth: int,
    channels: int = 32,
    activation: str = "tanh",
    block: str = "plain",
    classes: int = 10,
) -> Network:
    """Build a residual network of `depth` blocks of two 3×3 convolutions each, and its head.

    The stem and the head are those of `cnn`.

    Example:
        >>> import torch
        >>> from paperlib import resnet
        >>> network = resnet((1, 28, 28), depth=2, channels=4)
        >>> len(network.stages), tuple(network(torch.zeros(1, 1, 28, 28)).shape)
        (5, (1, 10))

    Args:
        image_shape: (channels, height, width), any size from one pixel on.
        depth: number of residual blocks, two convolutions each, at least 1.
        channels: of every convolution, at least 1.
        activation: tanh, erf, relu, gelu or linear.
        block: "published" is φ(x + f(x)), f = convolution, circular padding, φ, convolution,
            circular padding, so that its values stay bounded; "plain" is x + f(x) with the padding
            before each convolution, so that it commutes with shifts of the image.
        classes: number of logits.

    Raises:
        ValueError: an argument out of range, or "published" where the stem leaves fewer than 3×3
            positions; the message names it.

    Source: arXiv:2406.12916; "published" is the block of its authors' code.
    """
    channels = checked("channels", channels, int, low=1, high=WIDEST)
    block = checked("block", block, str, choices=BLOCKS)
    if block == "published":
        _check_published(image_shape)
    stage = partial(_residual_block, channels, activation, block)
    return _convolutional(stage, image_shape, depth, channels, activation, classes)


def _convolutional(
    stage: Callable[[], nn.Module],
    image_shape: Sequence[int],
    depth: int,
    channels: int,
    activation: str,
    classes: int,
) -> Network:
    """The network with `depth` such stages between the published stem and head."""
    image_shape = checked_shape(image_shape)
    depth = checked("depth", depth, int, low=1, high=DEEPEST)
    classes = checked("classes", classes, int, low=1, high=WIDEST)
    check_memory("channels and depth", [9 * channels**2 * (depth + 3)])
    stem = [
        _convolution_stage(image_shape[0], channels, activation),
        _convolution_stage(channels, channels, activation, stride=2),
        _convolution_stage(channels, channels, activation, stride=2),
    ]
    head = nn.Sequential(
        _convolution_stage(channels, channels, activation, padding_mode="circular"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes),
    )
    stages = nn.Sequential(*stem, *(stage() for _ in range(depth)))
    return Network(stages, head, image_shape=image_shape, stem=len(stem))


def _convolution_stage(
    channels_in: int, channels_out: int, activation: str, **options: Any
) -> nn.Sequential:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    modules["convolution"] = nn.Conv2d(channels_in, channels_out, 3, padding=1, **options)
    modules["activation"] = activation_module(activation)
    return nn.Sequential(modules)


def _hidden_stage(channels: int, activation: str, padding: str) -> nn.Sequential:
    """A convolution that keeps the image's size, and its activation."""
    if padding == "circular":
        return _convolution_stage(channels, channels, activation, padding_mode="circular")
    return nn.Sequential(
        OrderedDict(
            [
                ("convolution", nn.Conv2d(channels, channels, 3)),
                ("padding", nn.CircularPad2d(1)),
                ("activation", activation_module(activation)),
            ]
        )
    )


def _check_published(image_shape: Sequence[int]) -> None:
    """Raise a ValueError where the stem leaves too few positions for an unpadded convolution."""
    size = [-(-side // 4) for side in checked_shape(image_shape)[1:]]
    if min(size) < 3:
        raise ValueError(
            f"the published padding needs images of at least 9×9, of which the stem leaves 3×3; "
            f"got {tuple(image_shape)}; take the other padding or block, or larger images"
        )


def _residual_block(channels: int, activation: str, block: str) -> nn.Module:
    if block == "plain":
        first, second = (
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular") for _ in range(2)
        )
        return ResidualBlock(nn.Sequential(first, activation_module(activation), second))
    first, second = (nn.Conv2d(channels, channels, 3) for _ in range(2))
    body = (first, nn.CircularPad2d(1), activation_module(activation), second, nn.CircularPad2d(1))
    parts = [("block", ResidualBlock(nn.Sequential(*body)))]
    return nn.Sequential(OrderedDict([*parts, ("activation", activation_module(activation))]))
