"""Draw the weights of a network, and build the network that settings describe."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.core.checks import LARGEST_SEED, checked, instance_of
from paperlib.networks.convolutional import cnn, resnet
from paperlib.networks.fully_connected import mlp
from paperlib.networks.network import Network

LARGEST_VARIANCE = 1e30  # of which float32 can hold the root times a normal number


def untrained(
    point: Any, image_shape: Sequence[int], classes: int, *, grey: bool = True
) -> Network:
    """Return the network that a point of an experiment describes, initialised.

    Example:
        >>> from paperlib import CascadePoint
        >>> from paperlib.networks import untrained
        >>> network = untrained(CascadePoint(depth=3, width=50), (1, 28, 28), 10)
        >>> len(network.stages)
        3

    Args:
        point: its settings; see paperlib.networks.experiment.
        image_shape: of the data set.
        classes: number of logits.
        grey: the network takes grey images; else it takes all channels.
    """
    shared = {"depth": point.depth, "activation": point.activation, "classes": classes}
    seen = (1, *image_shape[1:]) if grey else tuple(image_shape)
    with torch.random.fork_rng(devices=[]):  # which layers draw from before they are initialised
        if point.architecture == "mlp":
            network = mlp(seen, width=point.width or None, shape=point.shape, **shared)
        else:
            shared |= {"channels": point.channels}
            if point.architecture == "cnn":
                network = cnn(seen, padding=point.padding, **shared)
            else:
                network = resnet(seen, block=point.block, **shared)
    initialise(network, sigma_w2=point.sigma_w2, sigma_b2=point.sigma_b2, seed=point.seed)
    return network


@torch.no_grad()
def initialise(network: nn.Module, *, sigma_w2: float, sigma_b2: float, seed: int) -> None:
    """Draw every weight and bias anew, in place: N(0, sigma_w2/fan_in), N(0, sigma_b2).

    The numbers are drawn on the CPU in float32, so that a network is the same on every device.

    Example:
        >>> from paperlib import initialise, mlp
        >>> network = mlp((1, 10, 10), depth=1, width=400)
        >>> initialise(network, sigma_w2=2.0, sigma_b2=0.0, seed=0)
        >>> weight = network.stages[0].linear.weight.detach()
        >>> round(float(weight.var() * weight.shape[1]), 1)  # times fan-in
        2.0

    Args:
        network: any module; its Linear and convolutional layers are drawn, stages and head.
        sigma_w2: weight variance times fan_in; fan_in of a convolution is in_channels times
            kernel area.
        sigma_b2: bias variance.
        seed: of this network's own random numbers; the global generator is not touched.

    Raises:
        ValueError: a variance or seed that is negative or no float32 can hold.

    Source: arXiv:1611.01232.
    """
    network = instance_of("network", network, nn.Module)
    sigma_w2 = checked("sigma_w2", sigma_w2, float, low=0, high=LARGEST_VARIANCE)
    sigma_b2 = checked("sigma_b2", sigma_b2, float, low=0, high=LARGEST_VARIANCE)
    seed = checked("seed", seed, int, low=0, high=LARGEST_SEED)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            fan_in = module.weight[0].numel()
            _draw(module.weight, (sigma_w2 / fan_in) ** 0.5, generator)
            if module.bias is not None:
                _draw(module.bias, sigma_b2**0.5, generator)


def _draw(parameter: Tensor, deviation: float, generator: torch.Generator) -> None:
    parameter.copy_(deviation * torch.randn(parameter.shape, generator=generator))
