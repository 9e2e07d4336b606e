"""What each notebook's `parameters` cell fills in, checked, and the sweeps that it stands for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from paperlib.core.checks import LARGEST_SEED
from paperlib.core.settings import Parameters, option
from paperlib.networks.kinds import ACTIVATIONS, OPTIMISERS, SOLVERS

if TYPE_CHECKING:
    from paperlib.instruments.digits.settings import StudyPoint


@dataclass(frozen=True, kw_only=True)
class DigitReconstructions(Parameters):
    """The parameters of the digits' notebook: one network, trained, and what is looked at."""

    grey: bool = False
    numbers: int = option(1024, low=1)
    depth: int = option(9, low=1, high=10_000)
    activation: str = option("tanh", choices=ACTIVATIONS)
    sigma_w2: float = option(1.7, above=0.0)
    sigma_b2: float = option(0.05, low=0.0)
    seed: int = option(0, low=0, high=LARGEST_SEED)
    optimiser: str = option("adam", choices=OPTIMISERS)
    learning_rate: float = option(2e-4, above=0.0)
    rate_exponent: float = option(0.0, low=0.0, high=4.0)
    steps: int = option(1000, low=0)
    batch_size: int = option(128, low=1)
    train_images: int = option(60_000, low=2)
    test_images: int = option(10_000, low=2)
    solver: str = option("ridge", choices=SOLVERS)
    resolution: float = option(1e-3, above=0.0)
    fit_images: int = option(10_000, low=2)
    shown_class: int = option(-1, low=-1)
    off: float = -1.0

    def point(self) -> "StudyPoint":
        """The network that is trained and looked at."""
        from paperlib.instruments.digits.settings import StudyPoint

        return StudyPoint(**self.shared_with(StudyPoint), shape="shrinking")
