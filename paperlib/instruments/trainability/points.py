"""Which networks train: grids of classifiers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from paperlib.core.settings import option
from paperlib.networks.experiment import Point
from paperlib.sweep.grid import Sweep
from paperlib.training import TrainingExperiment, TrainingPoint


@dataclass(frozen=True, kw_only=True)
class TrainingSweep(TrainingExperiment, Sweep):
    """Classifiers: every variance with every seed and every depth.

    Example:
        >>> from paperlib import TrainingSweep
        >>> sweep = TrainingSweep(sigma_w2=(1.0, 1.7), seeds=(0,), depths=(5, 10, 20))
        >>> len(list(sweep.points()))
        6
    """

    axes: ClassVar[Mapping[str, str]] = {**Sweep.axes, "depth": "depths"}
    point: ClassVar[type[Point]] = TrainingPoint

    depths: tuple[int, ...] = option((5, 10, 20, 40), low=1, high=10_000)
