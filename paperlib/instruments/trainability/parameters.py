"""What each notebook's `parameters` cell fills in, checked, and the sweeps that it stands for."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from paperlib.core.settings import option
from paperlib.instruments.reconstruction.parameters import CascadeGrid
from paperlib.networks.kinds import OPTIMISERS, SHAPES

if TYPE_CHECKING:
    from paperlib.instruments.reconstruction.points import CascadeSweep
    from paperlib.instruments.trainability.points import TrainingSweep


@dataclass(frozen=True, kw_only=True)
class Trainability(CascadeGrid):
    """The parameters of the trainability notebook: its heat maps, and the networks it trains."""

    dataset: str = "cifar10"
    depth: int = option(60, low=1, high=10_000)
    width: int = option(0, low=0, high=100_000)
    sigma_w2_max: float = option(4.1, above=0.0, high=1e6)
    sigma_w2_step: float = option(0.2, above=0.0)
    resolution: float = option(1e-3, above=0.0)
    train_images: int = option(1000, low=2)
    test_images: int = option(100, low=2)
    start_from: str = "cifar10_mlp.nc"
    trained_shape: str = option("wide", choices=SHAPES)
    trained_width: int = option(300, low=0, high=100_000)
    trained_sigma_w2: tuple[float, ...] = option(
        (0.6, 0.9, 1.1, 1.3, 1.5, 1.75, 2.05, 2.4, 2.7, 3.1, 3.5, 4.0), above=0.0
    )
    trained_depths: tuple[int, ...] = option((5, 10, 15, 20, 30, 45, 70, 140), low=1, high=10_000)
    trained_seeds: int = option(2, low=1, high=10_000)
    optimiser: str = option("sgd", choices=OPTIMISERS)
    learning_rate: float = option(0.3, above=0.0)
    rate_exponent: float = option(1.0, low=0.0, high=4.0)
    steps: int = option(1000, low=1)
    judged_images: int = option(2000, low=2)
    stop_at: float = option(1.0, above=0.0, high=1.0)
    search_from: float = option(0.0, low=0.0)
    trained: str = "trainability_cifar10.nc"
    predicted: str = "cifar10_mlp_300.nc"
    column: float = option(1.75, low=0.0)
    column_depth: int = option(10, low=1, high=10_000)
    jobs: int = option(0, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.search_from and self.stop_at == 1:
            raise ValueError("a search (search_from > 0) needs stop_at < 1, the accuracy it seeks")

    def sweep(self) -> "CascadeSweep":
        """The cascades behind the heat maps."""
        return self._cascades(steps=0)  # `steps` here are those of the trainings

    def prediction(self) -> "CascadeSweep":
        """The cascades of the networks that are trained, to be compared with them."""
        return replace(self.sweep(), depth=max(self.trained_depths), **self._trained_size())

    def _trained_size(self) -> dict[str, Any]:
        width = 0 if self.trained_shape == "shrinking" else self.trained_width
        return {"shape": self.trained_shape, "width": width}

    def training(self) -> "TrainingSweep":
        """The networks that are trained."""
        from paperlib.instruments.trainability.points import TrainingSweep

        return TrainingSweep(
            dataset=self.dataset,
            fallback=self.fallback,
            **self._trained_size(),
            activation=self.activation,
            sigma_b2=self.sigma_b2,
            sigma_w2=self.trained_sigma_w2,
            depths=self.trained_depths,
            seeds=tuple(range(self.trained_seeds)),
            optimiser=self.optimiser,
            learning_rate=self.learning_rate,
            rate_exponent=self.rate_exponent,
            steps=self.steps,
            threshold=self.stop_at,
            test_images=self.judged_images,
        )
