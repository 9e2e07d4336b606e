"""The settings of a study of one trained classifier."""

from dataclasses import dataclass

from paperlib.core.settings import option
from paperlib.networks.kinds import SOLVERS
from paperlib.training import TrainingPoint


@dataclass(frozen=True, kw_only=True)
class StudyPoint(TrainingPoint):
    """One classifier that is trained, and what is looked at through its cascade; see `study`."""

    solver: str = option("ridge", choices=SOLVERS)
    resolution: float = option(1e-3, above=0.0)  # ridge only
    fit_images: int = option(10_000, low=2)  # that the cascade is fitted to
    shown_class: int = option(-1, low=-1)  # whose inputs are shown; -1: that misjudged most often
    off: float = -1.0  # ideal outputs: of the other classes; the class itself has 1
    grey: bool = False  # the network takes grey images, whatever the data
    numbers: int = option(1024, low=1)  # per image, colours counted; larger ones are scaled down
