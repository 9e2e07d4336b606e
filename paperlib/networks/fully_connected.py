"""Multilayer perceptrons, plain and residual."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from paperlib.core.checks import checked
from paperlib.networks.kinds import SHAPES
from paperlib.networks.network import (
    DEEPEST,
    WIDEST,
    Network,
    ResidualBlock,
    Scale,
    activation_module,
    check_memory,
    checked_shape,
)

HEAD_WIDTH = 400  # of the wide MLP's classifier, as published
LOGIT_SCALE = 4.0  # of the shrinking MLP, whose ten tanh outputs are bounded by 1


def mlp(
    image_shape: Sequence[int],
    *,
    depth: int,
    width: int | None = None,
    shape: str = "wide",
    activation: str = "tanh",
    classes: int = 10,
) -> Network:
    """Build a multilayer perceptron of `depth` stages (Linear, activation), and its head.

    Example:
        >>> import torch
        >>> from paperlib import mlp
        >>> network = mlp((1, 28, 28), depth=3, width=50)
        >>> len(network.stages), tuple(network(torch.zeros(2, 1, 28, 28)).shape)
        (3, (2, 10))

    Args:
        image_shape: (channels, height, width); the first stage flattens.
        depth: number of stages, at least 1.
        width: neurons per stage of the "wide" shape; None is one per pixel.
        shape: "wide" keeps its width and has the head Linear 400, activation, Linear;
            "shrinking" falls linearly from the pixels to the classes, and its head only scales.
        activation: tanh, erf, relu, gelu or linear.
        classes: number of logits.

    Raises:
        ValueError: an argument out of range; the message names it.

    Source: arXiv:2406.12916; the logits' scale is ours (the published code trains softmax twice).
    """
    image_shape = checked_shape(image_shape)
    pixels = math.prod(image_shape)
    depth = checked("depth", depth, int, low=1, high=DEEPEST)
    classes = checked("classes", classes, int, low=1, high=WIDEST)
    shape = checked("shape", shape, str, choices=SHAPES)
    if width is not None:
        width = checked("width", width, int, low=1, high=WIDEST)
    if shape == "wide":
        widths = [pixels] + [width or pixels] * depth
        check_memory(
            "image_shape, width and depth", [pixels * widths[1], (depth - 1) * widths[1] ** 2]
        )
        head: nn.Module = _two_layers(widths[-1], HEAD_WIDTH, classes, activation)
    else:
        if width is not None:
            raise ValueError(f"width is given by the shape 'shrinking', got {width}; leave it out")
        widths = [round(pixels + (classes - pixels) * i / depth) for i in range(depth + 1)]
        check_memory("image_shape and depth", [a * b for a, b in pairwise(widths)])
        head = Scale(LOGIT_SCALE)
    stages = [
        _linear_stage(fan_in, fan_out, activation, flatten=i == 0)
        for i, (fan_in, fan_out) in enumerate(pairwise(widths))
    ]
    return Network(nn.Sequential(*stages), head, image_shape=image_shape)


def residual_mlp(
    image_shape: Sequence[int],
    *,
    depth: int,
    width: int | None = None,
    activation: str = "tanh",
    classes: int = 10,
) -> Network:
    """Build a fully connected residual network of `depth` stages φ(x + [Linear, φ, Linear](x)).

    Before them a stem of one stage, Linear and φ, from the pixels to the width. The head is that of
    the wide `mlp`: Linear to 400, φ, Linear.

    Example:
        >>> from paperlib import residual_mlp
        >>> network = residual_mlp((1, 28, 28), depth=3, width=50)
        >>> len(network.stages), network.stem  # the stem is the first stage
        (4, 1)

    Args:
        image_shape: (channels, height, width); the stem flattens.
        depth: number of residual blocks, two Linear layers each, at least 1.
        width: neurons of every layer; None is one per pixel.
        activation: φ; tanh, erf, relu, gelu or linear.
        classes: number of logits.

    Raises:
        ValueError: an argument out of range; the message names it.

    Source: the residual block of arXiv:2406.12916, which ends in its activation, with Linear layers
    for convolutions.
    """
    image_shape = checked_shape(image_shape)
    pixels = math.prod(image_shape)
    depth = checked("depth", depth, int, low=1, high=DEEPEST)
    classes = checked("classes", classes, int, low=1, high=WIDEST)
    width = pixels if width is None else checked("width", width, int, low=1, high=WIDEST)
    weights = [pixels * width, 2 * depth * width**2, HEAD_WIDTH * (width + classes)]
    check_memory("image_shape, width and depth", weights)
    stages = [_linear_stage(pixels, width, activation, flatten=True)]
    stages += [_residual_linear_stage(width, activation) for _ in range(depth)]
    head = _two_layers(width, HEAD_WIDTH, classes, activation)
    return Network(nn.Sequential(*stages), head, image_shape=image_shape, stem=1)


def _two_layers(fan_in: int, width: int, fan_out: int, activation: str) -> nn.Sequential:
    layers = (nn.Linear(fan_in, width), activation_module(activation), nn.Linear(width, fan_out))
    return nn.Sequential(*layers)


def _linear_stage(fan_in: int, fan_out: int, activation: str, *, flatten: bool) -> nn.Sequential:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    if flatten:
        modules["flatten"] = nn.Flatten()
    modules["linear"] = nn.Linear(fan_in, fan_out)
    modules["activation"] = activation_module(activation)
    return nn.Sequential(modules)


def _residual_linear_stage(width: int, activation: str) -> nn.Sequential:
    block = ResidualBlock(_two_layers(width, width, width, activation))
    end = activation_module(activation)
    return nn.Sequential(OrderedDict([("block", block), ("activation", end)]))
