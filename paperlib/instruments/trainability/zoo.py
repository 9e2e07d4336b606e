"""The zoo of networks, really trained: which learn at all, and which learn fast."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import nn

from paperlib.core.checks import LARGEST_SEED
from paperlib.core.settings import option
from paperlib.datasets import Dataset
from paperlib.instruments.trainability.trainings import TrainedExperiment, TrainedPoint
from paperlib.networks.zoo import ZooDescription, describe, zoo_network
from paperlib.sweep.grid import Grid


@dataclass(frozen=True, kw_only=True)
class _ZooExperiment(TrainedExperiment):
    """What all trainings of a zoo share."""

    def identifying(self) -> dict[str, Any]:
        return {**super().identifying(), "instrument": "zoo"}


@dataclass(frozen=True, kw_only=True)
class ZooPoint(_ZooExperiment, TrainedPoint):
    """One network of the zoo, trained by each of `TRAININGS`.

    Example:
        >>> from paperlib import measure_point
        >>> from paperlib.instruments.trainability.zoo import ZooPoint
        >>> point = ZooPoint(dataset="digits", number=0, budget=4, train_images=100)
        >>> measure_point(point)["accuracy"].shape  # (training, moment)
        (5, 5)
    """

    number: int = option(0, low=0, high=LARGEST_SEED)

    def network(self, data: Dataset) -> nn.Module:
        return zoo_network(self.number, (1, *data.image_shape[1:]), len(data.classes))

    def order(self) -> int:
        return self.number


@dataclass(frozen=True, kw_only=True)
class ZooSweep(_ZooExperiment, Grid):
    """Many networks of the zoo, by number; the result holds their descriptions, too.

    Example:
        >>> from paperlib.instruments.trainability.zoo import ZooSweep
        >>> sweep = ZooSweep(numbers=range(300))
        >>> quadruple = ZooSweep(numbers=range(0, 300, 10), budget=2400)
        >>> len(list(sweep.points())), len(list(quadruple.points()))
        (300, 30)
    """

    axes: ClassVar[Mapping[str, str]] = {"number": "numbers"}
    point: ClassVar[type[Any]] = ZooPoint

    numbers: tuple[int, ...] = option(tuple(range(300)), low=0, high=LARGEST_SEED)

    def coordinates(self) -> dict[str, Any]:
        descriptions = [describe(number) for number in self.numbers]
        described = {
            name: ("number", np.array([getattr(d, name) for d in descriptions]))
            for name in ZooDescription.__annotations__
            if name != "number"
        }
        return {**super().coordinates(), **described, **self.dims()}
