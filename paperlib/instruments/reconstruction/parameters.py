"""What each notebook's `parameters` cell fills in, checked, and the sweeps that it stands for."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from paperlib.core.checks import LARGEST_SEED
from paperlib.core.settings import Parameters, option
from paperlib.networks.kinds import ACTIVATIONS, BLOCKS, PADDINGS, SOLVERS

if TYPE_CHECKING:
    from paperlib.instruments.reconstruction.points import CascadePoint, CascadeSweep
    from paperlib.training import TrainingPoint

EPOCH = 60_000  # images of the published data sets, each seen once


@dataclass(frozen=True, kw_only=True)
class CascadeGrid(Parameters):
    """What every notebook with a grid of cascades asks for."""

    depth: int = option(24, low=1, high=10_000)
    activation: str = option("tanh", choices=ACTIVATIONS)
    sigma_w2_min: float = option(0.3, above=0.0)
    sigma_w2_max: float = option(3.9, above=0.0, high=1e6)
    sigma_w2_step: float = option(0.6, above=0.0)
    sigma_b2: float = option(0.05, low=0.0)
    seeds: int = option(3, low=1, high=10_000)
    adaptive: bool = False

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

    def _cascades(self, **changes: Any) -> "CascadeSweep":
        """The whole grid, its settings those of the same name here unless given."""
        from paperlib.instruments.reconstruction.points import CascadeSweep

        whole = {"sigma_w2": self.variances(), "seeds": tuple(range(self.seeds))}
        return CascadeSweep(**(self.shared_with(CascadeSweep) | whole | changes))


@dataclass(frozen=True, kw_only=True)
class _ComparedGrid(CascadeGrid):
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

    def sweep(self) -> "CascadeSweep":
        """The grid of points behind the phase diagram."""
        return self._by(self.solver)

    def comparison(self) -> "CascadeSweep":
        """A few points of the same grid, one seed each, by the other solver."""
        other = next(solver for solver in SOLVERS if solver != self.solver)
        return self._by(other, sigma_w2=self._few(self.compared), seeds=(0,))

    def resolutions(self) -> list["CascadeSweep"]:
        """A few ridge points of the same grid, one seed each, at coarser and finer resolutions."""
        few = self._by("ridge", sigma_w2=self._few(self.compared), seeds=(0,))
        return [replace(few, resolution=self.resolution * factor) for factor in self.factors]

    def _few(self, count: int) -> tuple[float, ...]:
        grid = self.variances()
        return tuple(grid[:: math.ceil(len(grid) / count)])

    def _by(self, solver: str, **changes: Any) -> "CascadeSweep":
        if solver == "adam":  # every batch of up to one epoch is new
            changes["train_images"] = min(self.steps * self.batch_size, EPOCH) or EPOCH
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

    def _cascades(self, **changes: Any) -> "CascadeSweep":
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
    depth: int = option(20, low=1, high=10_000)
    train_images: int = option(200, low=2)
    sigma_w2_min: float = option(0.1, above=0.0)
    sigma_w2_max: float = option(4.9, above=0.0, high=1e6)
    sigma_w2_step: float = option(0.8, above=0.0)
    calibration: str = ""
    by_steps: str = ""
    decayed: str = ""
    trained: str = "trainability_resnet.nc"

    def numbers_of_steps(self) -> list["CascadeSweep"]:
        """A few points of the same grid by Adam, one seed each, after a quarter, a half and all of
        the steps."""
        whole = self.steps or EPOCH // self.batch_size
        parts = sorted({max(1, whole // part) for part in (4, 2, 1)})
        few = {"sigma_w2": self._few(self.compared), "seeds": (0,)}
        return [replace(self, steps=steps)._by("adam", **few) for steps in parts]


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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image >= self.test_images:
            raise ValueError(
                f"image must be < test_images ({self.test_images}), it is one of them; "
                f"got {self.image}"
            )

    def point(self, **changes: Any) -> "CascadePoint":
        """The network whose cascade is drawn, with other settings where they are given."""
        from paperlib.instruments.reconstruction.points import CascadePoint

        return CascadePoint(**(self.shared_with(CascadePoint) | {"steps": 0} | changes))

    def training(self, depth: int) -> "TrainingPoint":
        """The same network with another depth, to be trained."""
        from paperlib.training import TrainingPoint

        limits = {"train_images": 60_000, "test_images": 1000, "depth": depth}
        return TrainingPoint(**(self.shared_with(TrainingPoint) | limits))
