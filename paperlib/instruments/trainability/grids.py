"""Networks of a grid of variances and depths, trained several ways: which of them learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from torch import nn

from paperlib.core.settings import option
from paperlib.datasets import Dataset
from paperlib.instruments.trainability.together import trained_together
from paperlib.instruments.trainability.trainings import (
    DEFAULT,
    SLOWER,
    TRAININGS,
    TrainedExperiment,
    TrainedPoint,
    Training,
)
from paperlib.networks import untrained
from paperlib.networks.experiment import Experiment, Point
from paperlib.sweep.grid import Sweep

CHOICES = (*TRAININGS, *SLOWER)
RATES = tuple(t.name for t in TRAININGS if t.optimiser == "adam")


@dataclass(frozen=True, kw_only=True)
class _GridExperiment(TrainedExperiment, Experiment):
    """What all networks of a grid share that are trained several ways."""

    budget: int = option(600, low=1)
    trained_by: tuple[str, ...] = option(RATES, choices=tuple(t.name for t in CHOICES))

    def __post_init__(self) -> None:
        super().__post_init__()
        if DEFAULT.name not in self.trained_by:
            raise ValueError(
                f"trained_by must hold {DEFAULT.name!r}, the default; got {self.trained_by}"
            )

    def identifying(self) -> dict[str, Any]:
        return {**super().identifying(), "instrument": "trained grid"}

    def trainings(self) -> tuple[Training, ...]:
        return tuple(training for training in CHOICES if training.name in self.trained_by)


@dataclass(frozen=True, kw_only=True)
class GridTraining(_GridExperiment, TrainedPoint, Point):
    """One network of one variance and depth, trained several ways.

    Example:
        >>> from paperlib import measure_point
        >>> from paperlib.instruments.trainability.grids import GridTraining
        >>> point = GridTraining(dataset="digits", depth=2, width=20, budget=4, train_images=100)
        >>> measure_point(point)["accuracy"].shape  # (training, moment)
        (3, 5)
    """

    depth: int = option(10, low=1, high=10_000)

    def network(self, data: Dataset) -> nn.Module:
        return untrained(self, data.image_shape, len(data.classes))

    def order(self) -> int:
        return self.seed

    def alike(self, device: str) -> Any:
        """On a GPU networks of one depth: all else but variance and seed is the same in a sweep."""
        return self.depth if device == "cuda" else self

    @classmethod
    def measure_together(
        cls, points: Sequence[Self], data: Dataset, *, device: str = "cpu"
    ) -> list[dict[str, np.ndarray]]:
        if len(points) == 1:
            return [points[0].measure(data, device=device)]
        first = points[0]
        lessons = data.examples("train", first.train_images, device=device)
        test = data.examples("test", first.test_images, device=device)
        networks = [point.network(data).to(device) for point in points]
        found: list[list[dict[str, np.ndarray]]] = [[] for _ in points]
        for training in first.trainings():
            each = trained_together(
                networks,
                training,
                lessons,
                test,
                budget=first.budget,
                batch_size=first.batch_size,
                seeds=[point.order() for point in points],
                ends=[p.ends(training, before) for p, before in zip(points, found, strict=True)],
            )
            for before, fields in zip(found, each, strict=True):
                before.append(fields)
        return [first.stacked(n, before) for n, before in zip(networks, found, strict=True)]


@dataclass(frozen=True, kw_only=True)
class GridTrainings(_GridExperiment, Sweep):
    """Networks of every variance, seed and depth, each trained several ways.

    Example:
        >>> from paperlib.instruments.trainability.grids import GridTrainings
        >>> sweep = GridTrainings(sigma_w2=(1.0, 1.7), seeds=(0,), depths=(5, 10, 20))
        >>> len(list(sweep.points()))
        6
    """

    axes: ClassVar[Mapping[str, str]] = {**Sweep.axes, "depth": "depths"}
    point: ClassVar[type[Any]] = GridTraining

    depths: tuple[int, ...] = option((10, 30, 60), low=1, high=10_000)

    def coordinates(self) -> dict[str, Any]:
        return {**super().coordinates(), **self.dims()}
