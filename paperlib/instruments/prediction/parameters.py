"""What each notebook's `parameters` cell fills in, checked, and the sweeps that it stands for."""

from dataclasses import dataclass

from paperlib.core.settings import PROFILES, Checked, option
from paperlib.instruments.prediction.names import PREDICTORS

GRIDS = ("mnist", "cifar10")  # of MLPs; the reference profile has others, too


@dataclass(frozen=True, kw_only=True)
class Scoreboard(Checked):
    """The parameters of the predictors' notebook."""

    profile: str = option("quick", choices=PROFILES)
    fallback: bool = False
    trained: tuple[str, ...] = tuple(f"trainability_{name}.nc" for name in GRIDS)
    predicted: tuple[str, ...] = option(
        tuple(f"predictors_{name}.nc" for name in GRIDS), repeated=True
    )
    column: float = option(1.75, low=0.0)
    column_depth: int = option(10, low=1, high=10_000)
    column_predictors: tuple[str, ...] = option(
        ("r_squared_ridge", "correlation_depth"), choices=PREDICTORS
    )
    jobs: int = option(0, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.trained) != len(self.predicted):
            raise ValueError(
                "trained and predicted must name as many results each, the n-th of both for the "
                f"same grid; got {len(self.trained)} and {len(self.predicted)}"
            )


@dataclass(frozen=True, kw_only=True)
class WillItTrain(Checked):
    """The parameters of the zoo's notebook."""

    profile: str = option("quick", choices=PROFILES)
    fallback: bool = False
    zoo: str = "zoo.nc"
    forecasts: str = "zoo_forecasts.nc"
    longer: str = "zoo_longer.nc"
    zoo_instruments: str = "zoo_instruments.nc"
    mlp_instruments: str = "mnist_instruments.nc"
    mlp_trainings: str = "trainability_mnist.nc"
    mlp_predictions: str = "predictors_mnist.nc"
    grids: tuple[str, ...] = ("trainability_cnn.nc",)
    grid_forecasts: tuple[str, ...] = option(("forecasts_cnn.nc",), repeated=True)
    grid_instruments: tuple[str, ...] = option(("instruments_cnn.nc",), repeated=True)
    grids_longer: tuple[str, ...] = ("trainability_cnn_longer.nc",)
    opened: int = option(4, low=0, high=100)
    anew: int = option(2, low=0, high=100)
    jobs: int = option(0, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = [len(self.grids), len(self.grid_forecasts), len(self.grid_instruments)]
        if len(set(counts)) > 1:
            raise ValueError(
                "grids, grid_forecasts and grid_instruments must name as many results each, the "
                f"n-th of all for the same grid; got {counts[0]}, {counts[1]} and {counts[2]}"
            )
