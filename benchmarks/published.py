"""The published procedure, written plainly: what every speed claim is measured against.

A Python list of inverses with an optimiser each; every batch goes through the network and every
inverse takes one step; reconstructing from depth l applies l inverses, for every l anew.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def new_inverses(stages: Sequence[nn.Module], shapes: list[tuple[int, ...]]) -> list[nn.Module]:
    """Build the published inverse of every stage.

    Of a Linear layer it is a Linear and tanh; of a convolution a transposed one, tanh, and what it
    is too large cut off; of a residual block those of its convolutions, one after the other.

    Args:
        stages: L of them.
        shapes: of one sample at every level, the images first, L + 1 of them.
    """
    inverses: list[nn.Module] = []
    for stage, (before, after) in zip(stages, pairwise(shapes), strict=True):
        convolutions = [layer for layer in stage.modules() if isinstance(layer, nn.Conv2d)]
        parts = [part for layer in convolutions[::-1] for part in _transposed(layer)]
        if not convolutions:
            parts = [nn.Linear(math.prod(after), math.prod(before)), nn.Tanh()]
        inverses.append(nn.Sequential(*parts))
    return inverses


def _transposed(layer: nn.Conv2d) -> list[nn.Module]:
    stride = layer.stride[0]
    cut = (-1, -1, -1, -1) if stride == 1 else (0, -1, 0, -1)
    convolution = nn.ConvTranspose2d(layer.out_channels, layer.in_channels, 3, stride=stride)
    return [convolution, nn.Tanh(), nn.ZeroPad2d(cut)]


def train(
    stages: Sequence[nn.Module],
    inverses: list[nn.Module],
    images: Tensor,
    *,
    steps: int,
    batch: int = 64,
) -> None:
    """Train for `steps` batches of Adam with its defaults, every inverse on its own loss."""
    optimisers = [torch.optim.Adam(inverse.parameters()) for inverse in inverses]
    for step in range(steps):
        start = step * batch % (len(images) - batch + 1)
        before = images[start : start + batch]
        for stage, inverse, optimiser in zip(stages, inverses, optimisers, strict=True):
            with torch.no_grad():
                after = stage(before)
            optimiser.zero_grad()
            nn.functional.mse_loss(inverse(after).flatten(1), before.flatten(1)).backward()
            optimiser.step()
            before = after


@torch.no_grad()
def reconstruct(
    stages: Sequence[nn.Module], inverses: list[nn.Module], images: Tensor
) -> list[Tensor]:
    """Return the images from every level, each level by its own chain of inverses."""
    pictures = []
    for level in range(1, len(inverses) + 1):
        activations = images
        for stage in stages[:level]:
            activations = stage(activations)
        for inverse in reversed(inverses[:level]):
            activations = inverse(activations)
        pictures.append(activations)
    return pictures
