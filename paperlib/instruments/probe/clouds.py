"""Where the activations of several images lie: how parallel, and how far apart neighbours are.

Both are looked at from the activations' own middle, so that an offset changes neither.
"""

import math

import torch
from torch import Tensor

from paperlib.core.seeds import random_numbers

ROUNDING = 4  # units in the last place of an activation's length, by which rounding moves it
UNITS = 2**14  # whose directions are compared, at most


class Cloud:
    """The activations of images, and of the same images moved a little, added part by part."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._sum: Tensor | float = 0.0
        self._square = self._moved = self._rounding = 0.0
        self._count = 0

    def add(self, here: Tensor, near: Tensor) -> None:
        """Take in activations (n, numbers), and those of neighbours."""
        numbers = here.shape[1]
        if numbers > UNITS:
            some = torch.randperm(numbers, generator=random_numbers("units", numbers))[:UNITS]
            self._rows.append(here[:, some].float())
        else:
            self._rows.append(here)
        self._rounding = ROUNDING * torch.finfo(here.dtype).eps
        here, near = here.double(), near.double()
        self._sum = self._sum + here.sum(0)
        self._square += float(here.square().sum())
        self._moved += float((near - here).norm(dim=1).sum())
        self._count += len(here)

    @property
    def cosine(self) -> float:
        """The mean cosine of two images' activations, less the mean of all numbers.

        That is 1 where all numbers are equal.
        """
        rows = torch.cat(self._rows).double()
        return mean_cosine(rows - rows.mean())

    @property
    def parallel(self) -> float:
        """The mean cosine of two images' activations as they are."""
        return mean_cosine(torch.cat(self._rows).double())

    @property
    def spread(self) -> float:
        """The root of the mean squared distance from the images' mean."""
        mean = torch.as_tensor(self._sum) / max(1, self._count)
        square = self._square / max(1, self._count) - float(mean.square().sum())
        return math.sqrt(square) if square > 0 else square * 0.0  # NaN stays NaN

    @property
    def separation(self) -> float:
        """The mean distance of neighbours, relative to the spread of all.

        That is 0 where all are as near to each other as rounding brings them.
        """
        spread, count = self.spread, max(1, self._count)
        rounding = self._rounding * math.sqrt(self._square / count)
        if spread <= rounding:
            return 0.0
        square = (self._moved / count) ** 2 - rounding**2
        return math.sqrt(square) / spread if square > 0 else square * 0.0


def mean_cosine(rows: Tensor) -> float:
    """Return the mean cosine of two rows (n, numbers); rows without length count as parallel."""
    norms = rows.norm(dim=1)
    if not norms.all():
        return 1.0
    total, count = float((rows / norms[:, None]).sum(0).square().sum()), len(rows)
    return (total - count) / (count * (count - 1))
