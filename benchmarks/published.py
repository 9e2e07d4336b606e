"""The published procedure, written plainly: what every speed claim is measured against.

A Python list of inverses with an optimiser each; every batch goes through the network and every
inverse takes one step; reconstructing from depth l applies l inverses, for every l anew.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn


def new_inverses(shapes: list[tuple[int, ...]]) -> list[nn.Module]:
    """One Linear and tanh per stage, from each level's width to the width before it."""
    widths = [torch.Size(shape).numel() for shape in shapes]
    return [
        nn.Sequential(nn.Linear(after, before), nn.Tanh()) for before, after in pairwise(widths)
    ]


def train(
    stages: nn.Sequential, inverses: list[nn.Module], images: Tensor, *, steps: int, batch: int = 64
) -> None:
    """Nothing; `steps` batches of Adam with its defaults, every inverse on its own loss."""
    optimisers = [torch.optim.Adam(inverse.parameters()) for inverse in inverses]
    for step in range(steps):
        start = step * batch % (len(images) - batch + 1)
        before = images[start : start + batch]
        for stage, inverse, optimiser in zip(stages, inverses, optimisers, strict=True):
            with torch.no_grad():
                after = stage(before)
            optimiser.zero_grad()
            nn.functional.mse_loss(inverse(after), before.flatten(1)).backward()
            optimiser.step()
            before = after


@torch.no_grad()
def reconstruct(stages: nn.Sequential, inverses: list[nn.Module], images: Tensor) -> list[Tensor]:
    """The images from every level, each level by its own chain of inverses."""
    pictures = []
    for level in range(1, len(inverses) + 1):
        activations = images
        for stage in stages[:level]:
            activations = stage(activations)
        for inverse in reversed(inverses[:level]):
            activations = inverse(activations)
        pictures.append(activations)
    return pictures
