"""What each notebook's `parameters` cell fills in, checked, and the sweeps that it stands for."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from paperlib.cascade.fitting import SOLVERS
from paperlib.cascades import CascadePoint, CascadeSweep
from paperlib.channels_settings import ChannelsPoint
from paperlib.core.checks import LARGEST_SEED
from paperlib.core.settings import PROFILES, Checked, Parameters, option
from paperlib.names import PREDICTORS
from paperlib.networks.kinds import ACTIVATIONS, BLOCKS, PADDINGS, SHAPES
from paperlib.study_settings import StudyPoint
from paperlib.training import OPTIMISERS, TrainingPoint
from paperlib.trainings import TrainingSweep


@dataclass(frozen=True, kw_only=True)
class _CascadeGrid(Parameters):
    """What every notebook with a grid of cascades asks for."""

    depth: int = option(24, low=1, high=10_000)
    activation: str = option("tanh", choices=ACTIVATIONS)
    sigma_w2_min: float = option(0.3, above=0.0)
    sigma_w2_max: float = option(3.9, above=0.0, high=1e6)
    sigma_w2_step: float = option(0.6, above=0.0)
    sigma_b2: float = option(0.05, low=0.0)
    seeds: int = option(3, low=1, high=10_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        lowest, highest, step = self.sigma_w2_min, self.sigma_w2_max, self.sigma_w2_step
        if highest < lowest:
            raise ValueError(f"sigma_w2_max must be >= sigma_w2_min, got {highest} < {lowest}")
        if (highest - lowest) / step > 100_000:
            raise ValueError(
                "sigma_w2_step must leave at most 100,000 values from sigma_w2_min to "
                f"sigma_w2_max, got {step} from {lowest} to {highest}"
            )

    def variances(self) -> tuple[float, ...]:
        """The grid of σ_w² from the smallest up to the largest, in decimals as a person writes."""
        lowest, highest, step = self.sigma_w2_min, self.sigma_w2_max, self.sigma_w2_step
        count = math.floor((highest - lowest) / step + 1e-9) + 1
        return tuple(round(lowest + i * step, 10) for i in range(count))

    def _cascades(self, **changes: Any) -> CascadeSweep:
        """The whole grid, its settings those of the same name here unless given."""
        whole = {"sigma_w2": self.variances(), "seeds": tuple(range(self.seeds))}
        return CascadeSweep(**(self.shared_with(CascadeSweep) | whole | changes))


@dataclass(frozen=True, kw_only=True)
class _ComparedGrid(_CascadeGrid):
    """What phase diagrams ask for: a grid by one solver, and part of it by the other."""

    batch_size: ClassVar[int] = 64  # of Adam, as published
    compared: ClassVar[int] = 4  # variances of the comparison
    factors: ClassVar[tuple[float, ...]] = (0.1, 1.0, 10.0)  # of the resolution, in its calibration

    solver: str = option("ridge", choices=SOLVERS)
    resolution: float = option(1e-3, above=0.0)
    train_images: int = option(1000, low=2)
    steps: int = option(80, low=0)
    test_images: int = option(100, low=2)
    jobs: int = option(0, low=0)
    start_from: str = ""
    compare_with: str = ""

    def sweep(self) -> CascadeSweep:
        """The grid of points behind the phase diagram."""
        return self._by(self.solver)

    def comparison(self) -> CascadeSweep:
        """A few points of the same grid, one seed each, by the other solver."""
        other = next(solver for solver in SOLVERS if solver != self.solver)
        return self._by(other, sigma_w2=self._few(self.compared), seeds=(0,))

    def resolutions(self) -> list[CascadeSweep]:
        """A few ridge points of the same grid, one seed each, at coarser and finer resolutions."""
        few = self._by("ridge", sigma_w2=self._few(self.compared), seeds=(0,))
        return [replace(few, resolution=self.resolution * factor) for factor in self.factors]

    def _few(self, count: int) -> tuple[float, ...]:
        grid = self.variances()
        return tuple(grid[:: math.ceil(len(grid) / count)])

    def _by(self, solver: str, **changes: Any) -> CascadeSweep:
        if solver == "adam":  # every batch of up to one epoch is new
            changes["train_images"] = min(self.steps * self.batch_size, 60_000) or 60_000
        return self._cascades(solver=solver, batch_size=self.batch_size, **changes)


@dataclass(frozen=True, kw_only=True)
class PhaseDiagram(_ComparedGrid):
    """The parameters of the MLP's phase diagram, and the sweeps that they stand for."""

    steps: int = option(40, low=0)
    width: int = option(0, low=0, high=100_000)
    calibration: str = ""
    trained: str = "trainability_mnist.nc"
    predicted: str = "mnist_mlp_300.nc"


@dataclass(frozen=True, kw_only=True)
class _ConvolutionalGrid(_ComparedGrid):
    """What the phase diagrams of convolutional networks ask for."""

    architecture: ClassVar[str]
    batch_size: ClassVar[int] = 100  # of Adam, as published
    compared: ClassVar[int] = 2

    depth: int = option(30, low=1, high=10_000)
    channels: int = option(16, low=1, high=100_000)
    sigma_b2: float = option(2e-5, low=0.0)
    resolution: float = option(3e-6, above=0.0)
    train_images: int = option(400, low=2)
    steps: int = option(10, low=0)

    def _cascades(self, **changes: Any) -> CascadeSweep:
        return super()._cascades(architecture=self.architecture, **changes)


@dataclass(frozen=True, kw_only=True)
class CnnPhaseDiagram(_ConvolutionalGrid):
    """The parameters of the convolutional network's phase diagram."""

    architecture: ClassVar[str] = "cnn"

    padding: str = option("published", choices=PADDINGS)
    sigma_w2_min: float = option(0.5, above=0.0)
    sigma_w2_max: float = option(2.3, above=0.0, high=1e6)
    sigma_w2_step: float = option(0.2, above=0.0)
    trained: str = "trainability_cnn.nc"


@dataclass(frozen=True, kw_only=True)
class ResnetDepth(_ConvolutionalGrid):
    """The parameters of the residual network's depth plot."""

    architecture: ClassVar[str] = "resnet"
    factors: ClassVar[tuple[float, ...]] = (1.0, 300.0, 3000.0)  # coarse, where Adam's wall stands

    dataset: str = "fashion_mnist"
    block: str = option("published", choices=BLOCKS)
    sigma_w2_min: float = option(0.1, above=0.0)
    sigma_w2_max: float = option(4.9, above=0.0, high=1e6)
    sigma_w2_step: float = option(0.6, above=0.0)
    calibration: str = ""
    trained: str = "trainability_resnet.nc"


@dataclass(frozen=True, kw_only=True)
class Trainability(_CascadeGrid):
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

    def sweep(self) -> CascadeSweep:
        """The cascades behind the heat maps."""
        return self._cascades(steps=0)  # `steps` here are those of the trainings

    def prediction(self) -> CascadeSweep:
        """The cascades of the networks that are trained, to be compared with them."""
        return replace(self.sweep(), depth=max(self.trained_depths), **self._trained_size())

    def _trained_size(self) -> dict[str, Any]:
        width = 0 if self.trained_shape == "shrinking" else self.trained_width
        return {"shape": self.trained_shape, "width": width}

    def training(self) -> TrainingSweep:
        """The networks that are trained."""
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


@dataclass(frozen=True, kw_only=True)
class Scoreboard(Checked):
    """The parameters of the predictors' notebook."""

    profile: str = option("quick", choices=PROFILES)
    fallback: bool = False
    trained: tuple[str, ...] = ("trainability_mnist.nc", "trainability_cifar10.nc")
    predicted: tuple[str, ...] = ("predictors_mnist.nc", "predictors_cifar10.nc")
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
class HowItWorks(Parameters):
    """The parameters of the notebook that explains the method: one network, drawn and judged."""

    stages: int = option(3, low=1, high=4)
    image: int = option(0, low=0)
    depth: int = option(24, low=1, high=10_000)
    width: int = option(100, low=1, high=100_000)
    activation: str = option("tanh", choices=ACTIVATIONS)
    sigma_w2: float = option(0.6, above=0.0)
    sigma_b2: float = option(0.05, low=0.0)
    seed: int = option(0, low=0, high=LARGEST_SEED)
    solver: str = option("ridge", choices=SOLVERS)
    train_images: int = option(2000, low=2)
    test_images: int = option(100, low=2)
    steps: int = option(500, low=1)

    def point(self, **changes: Any) -> CascadePoint:
        """The network whose cascade is drawn, with other settings where they are given."""
        return CascadePoint(**(self.shared_with(CascadePoint) | {"steps": 0} | changes))

    def training(self, depth: int) -> TrainingPoint:
        """The same network with another depth, to be trained."""
        limits = {"train_images": 60_000, "test_images": 1000, "depth": depth}
        return TrainingPoint(**(self.shared_with(TrainingPoint) | limits))


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

    def point(self) -> StudyPoint:
        """The network that is trained and looked at."""
        return StudyPoint(**self.shared_with(StudyPoint), shape="shrinking")


@dataclass(frozen=True, kw_only=True)
class Vgg16Channels(ChannelsPoint):
    """The parameters of the notebook of VGG16's channels."""

    profile: str = option("quick", choices=PROFILES)
    side: int = option(64, low=32, high=4096)
    train_images: int = option(100, low=2)
    test_images: int = option(10, low=2)
    ranked_levels: tuple[int, ...] = option((3, 6, 10), low=1)
    ranked_images: int = option(2, low=1)
    start_from: str = ""

    def point(self) -> ChannelsPoint:
        """The network, and what is looked at."""
        return ChannelsPoint(**self.shared_with(ChannelsPoint))


@dataclass(frozen=True, kw_only=True)
class ProbeYourModel(Parameters):
    """The parameters of the probe's notebook: a network that is dead and saved, and others."""

    depth: int = option(60, low=1, high=10_000)
    width: int = option(100, low=1, high=100_000)
    probed_images: int = option(1000, low=10)
    steps: int = option(1000, low=1)
    learning_rate: float = option(0.3, above=0.0)
    batch_size: int = option(64, low=1)
    judged_images: int = option(2000, low=2)
    pictures: str = "patches"
    picture_count: int = option(200, low=10)
    picture_size: int = option(64, low=32, high=1024)
    seed: int = option(0, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.picture_size % 16:
            raise ValueError(
                f"picture_size must be a multiple of 16, the side of two squares of the Vision "
                f"Transformer; got {self.picture_size}"
            )
