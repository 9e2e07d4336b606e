"""The settings of every experiment: frozen, typed, checked before any work, and hashed.

A point is one computation: a `CascadePoint` one network whose cascade is measured, a
`TrainingPoint` one that is trained, a `PredictorPoint` one that a predictor judges. A sweep is a
grid of them. What notebooks ask for is in `paperlib.parameters`.
"""

import dataclasses
import hashlib
import itertools
import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from paperlib.checks import LARGEST_SEED, check_limits, checked, did_you_mean, quoted, values_of

ACTIVATIONS = ("tanh", "erf", "relu", "gelu", "linear")
SHAPES = ("wide", "shrinking")
ARCHITECTURES = ("mlp", "cnn", "resnet")
PADDINGS = ("circular", "published")  # of CNNs, see `networks.cnn`
BLOCKS = ("plain", "published")  # of ResNets, see `networks.resnet`
ENDS = ("deepest", "lost")  # where a cascade stops, see `Cascade.fit`
STEM = 3  # stages of convolutional networks before depth 1, as published
RESOLUTION = {"mlp": 1e-3, "cnn": 3e-6, "resnet": 3e-6}  # λ that puts the walls where published
RTOL = {"mlp": 0.005, "cnn": 0.01, "resnet": 0.01}  # as published
SOLVERS = ("ridge", "adam")
OPTIMISERS = ("sgd", "adam")
PRECISIONS = ("float32", "bfloat16")  # of the products of a training
VGG_LAYERS = (11, 13, 16, 19)  # with weights, as torchvision builds them
RECONSTRUCTED = ("r_squared", "gram_entropy", "differential_entropy", "relative_entropy")
DEPTHS_REACHED = ("collapse_depth", "cutoff")
BASELINES = (
    "correlation_depth",
    "gradient_ratio",
    "naswot",
    "snip",
    "synflow",
    "ntk_condition",
    "random",
)
PREDICTORS = (
    *(f"{name}_{solver}" for solver in SOLVERS for name in (*RECONSTRUCTED, *DEPTHS_REACHED)),
    *BASELINES,
)
PROFILES = ("smoke", "quick", "reference", "paper")


def option(default: Any, **limits: Any) -> Any:
    """A field with its limits, `low`, `above` (exclusive), `high`, or `choices`; `zero`, what 0
    stands for; and `before`, the value that stood for a setting before there was one: a point that
    has it keeps the identity that it had then."""
    return field(default=default, metadata=limits)


class Checked:
    """Validation on construction, and the ways in and out, shared by every configuration."""

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):  # type: ignore[arg-type]
            name, kind = setting.name, setting.type
            value = getattr(self, name)
            if kind in (int, float, bool, str):
                value = checked(name, value, kind, **setting.metadata)
            else:
                value = values_of(name, value, kind)
                for each in value:
                    check_limits(name, each, setting.metadata)
            object.__setattr__(self, name, value)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all settings, in order."""
        return tuple(setting.name for setting in dataclasses.fields(cls))  # type: ignore[arg-type]

    @classmethod
    def zeros(cls) -> dict[str, str]:
        """What 0 stands for, of the settings where it stands for something else."""
        found = {setting.name: setting.metadata.get("zero") for setting in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return {name: zero for name, zero in found.items() if zero}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """The configuration with these settings; the rest keep their defaults.

        Raises:
            ValueError: a name that is unknown, or a value of the wrong type or out of its range.
        """
        for name, value in settings.items():
            if name not in cls.names():
                raise ValueError(
                    f"unknown parameter {name!r} = {quoted(value)}"
                    f"{did_you_mean(name, cls.names())}; "
                    f"the parameters are: {', '.join(cls.names())}"
                )
        return cls(**settings)

    @classmethod
    def from_notebook(cls, namespace: Mapping[str, Any]) -> Self:
        """The configuration in a notebook's globals(), as its parameters cell and papermill left
        it.

        Papermill injects a misspelt parameter as a variable that nobody reads; so every public
        variable that holds a literal must be a parameter here.

        Raises:
            ValueError: an unknown name, a wrong type or a value out of range.
        """
        literals = (int, float, str, bool, list, dict, tuple, types.NoneType)
        settings = {
            name: value
            for name, value in namespace.items()
            if not name.startswith("_")
            and name not in ("In", "Out")
            and isinstance(value, literals)
        }
        return cls.from_dict(settings)

    def as_dict(self) -> dict[str, Any]:
        """Every setting by name, in the types that JSON and YAML know."""
        return {name: getattr(self, name) for name in self.names()}


@dataclass(frozen=True, kw_only=True)
class _Experiment(Checked):
    """What every experiment states: its data and its untrained networks."""

    dataset: str = "mnist"
    fallback: bool = False  # take an offline data set where this one is missing
    architecture: str = option("mlp", choices=ARCHITECTURES)
    shape: str = option("wide", choices=SHAPES)  # MLPs only
    activation: str = option("tanh", choices=ACTIVATIONS)
    # MLPs only
    width: int = option(0, low=0, high=100_000, zero="as many neurons as pixels")
    channels: int = option(64, low=1, high=100_000)  # convolutional networks only
    padding: str = option("circular", choices=PADDINGS, before="circular")  # CNNs only
    block: str = option("plain", choices=BLOCKS, before="plain")  # ResNets only
    sigma_b2: float = option(0.05, low=0.0)
    train_images: int = option(2000, low=2)
    test_images: int = option(100, low=2)
    data_seed: int = option(0, low=0, high=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape == "shrinking" and self.width:
            raise ValueError(f"width is given by the shape 'shrinking', got {self.width}; use 0")

    def unread(self) -> tuple[str, ...]:
        """The settings that do not change the numbers, given the data's checksum.

        The data set's name and fall-back only say where the data came from, and no network reads
        the options of another architecture.
        """
        own = {"mlp": ("shape", "width"), "cnn": ("channels", "padding")}
        own["resnet"] = ("channels", "block")
        others = {name for names in own.values() for name in names} - {*own[self.architecture]}
        return ("dataset", "fallback", *sorted(others))

    def identifying(self) -> dict[str, Any]:
        """The settings that do: two experiments that agree in them share their points."""
        before = {
            setting.name: setting.metadata["before"]
            for setting in dataclasses.fields(self)
            if "before" in setting.metadata
        }
        return {
            name: value
            for name, value in self.as_dict().items()
            if name not in self.unread() and not (name in before and value == before[name])
        }

    def identity(self, *, code_version: int, checksum: str) -> str:
        """The sha256 of everything that determines the numbers: settings, code and data, in hex."""
        return digest({**self.identifying(), "code": code_version, "data": checksum})


@dataclass(frozen=True, kw_only=True)
class _Point(_Experiment):
    """One network of its own."""

    sigma_w2: float = option(1.7, above=0.0)
    seed: int = option(0, low=0, high=LARGEST_SEED)


@dataclass(frozen=True, kw_only=True)
class Sweep(_Experiment):
    """A grid of points: every combination of the values along its axes, which rise."""

    # a point's setting: the field with its values here
    axes: ClassVar[Mapping[str, str]] = {"sigma_w2": "sigma_w2", "seed": "seeds"}
    point: ClassVar[type[_Experiment]]

    sigma_w2: tuple[float, ...] = option((1.0, 1.7, 3.0), above=0.0)
    seeds: tuple[int, ...] = option((0, 1, 2), low=0, high=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.axes.values():  # figures and scores go along rising axes
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))
        object.__setattr__(self, "_points", tuple(self._grid()))  # each checks its own values

    def points(self) -> Iterator[Any]:
        """Every point of the grid; the last axis runs fastest."""
        points: tuple[Any, ...] = self.__dict__["_points"]
        return iter(points)

    def _grid(self) -> Iterator[Any]:
        shared = {k: v for k, v in self.as_dict().items() if k not in self.axes.values()}
        for values in itertools.product(*(getattr(self, name) for name in self.axes.values())):
            yield self.point(**shared, **dict(zip(self.axes, values, strict=True)))


@dataclass(frozen=True, kw_only=True)
class _CascadeExperiment(_Experiment):
    """What all points of a sweep of cascades share: depth, inverses and measures."""

    depth: int = option(60, low=1, high=10_000)
    solver: str = option("ridge", choices=SOLVERS)
    resolution: float = option(0.0, low=0.0)  # ridge only: what lies below its root is lost
    steps: int = option(0, low=0, zero="one epoch")  # adam only
    batch_size: int = option(64, low=1)  # adam only
    precision: str = option("float32", choices=PRECISIONS, before="float32")  # adam only
    until: str = option("deepest", choices=ENDS, before="deepest")  # "lost": skip what is collapsed
    rtol: float = option(0.0, low=0.0)  # the published cutoff's tolerance

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, defaults in (("resolution", RESOLUTION), ("rtol", RTOL)):
            if not getattr(self, name):  # 0 stands for the architecture's own
                object.__setattr__(self, name, defaults[self.architecture])

    def unread(self) -> tuple[str, ...]:
        of_adam = ("steps", "batch_size", "precision")
        other = {"ridge": of_adam, "adam": ("resolution",)}[self.solver]
        return (*super().unread(), *other)


@dataclass(frozen=True, kw_only=True)
class CascadePoint(_CascadeExperiment, _Point):
    """One network: its initialisation and the fit of its cascade."""


@dataclass(frozen=True, kw_only=True)
class CascadeSweep(_CascadeExperiment, Sweep):
    """Cascades: every variance with every seed."""

    point: ClassVar[type[_Experiment]] = CascadePoint


@dataclass(frozen=True, kw_only=True)
class _TrainingExperiment(_Experiment):
    """What all points of a trainability grid share: one optimiser and one budget.

    The learning rate is `learning_rate` / depth ** `rate_exponent`: deeper networks diverge at
    rates at which shallow ones train. It never depends on the variance.
    """

    optimiser: str = option("sgd", choices=OPTIMISERS)
    learning_rate: float = option(0.3, above=0.0)
    rate_exponent: float = option(1.0, low=0.0, high=4.0)
    steps: int = option(500, low=0)
    batch_size: int = option(64, low=1)
    threshold: float = option(1.0, above=0.0, high=1.0)  # accuracy at which training may stop
    train_images: int = option(60_000, low=2)
    test_images: int = option(1000, low=2)


@dataclass(frozen=True, kw_only=True)
class TrainingPoint(_TrainingExperiment, _Point):
    """One classifier that is trained."""

    depth: int = option(30, low=1, high=10_000)


@dataclass(frozen=True, kw_only=True)
class TrainingSweep(_TrainingExperiment, Sweep):
    """Classifiers: every variance with every seed and every depth."""

    axes: ClassVar[Mapping[str, str]] = {**Sweep.axes, "depth": "depths"}
    point: ClassVar[type[_Experiment]] = TrainingPoint

    depths: tuple[int, ...] = option((5, 10, 20, 40), low=1, high=10_000)


@dataclass(frozen=True, kw_only=True)
class _PredictorExperiment(_Experiment):
    """What all points of a grid of predictions share: one network predicts all depths."""

    depth: int = option(60, low=1, high=10_000)
    predictors: tuple[str, ...] = option(PREDICTORS, choices=PREDICTORS)
    train_images: int = option(2000, low=4)

    def unread(self) -> tuple[str, ...]:
        return (*super().unread(), "test_images")


@dataclass(frozen=True, kw_only=True)
class PredictorPoint(_PredictorExperiment, _Point):
    """What predictors say of one untrained network."""


@dataclass(frozen=True, kw_only=True)
class PredictorSweep(_PredictorExperiment, Sweep):
    """Predictions: every variance with every seed."""

    point: ClassVar[type[_Experiment]] = PredictorPoint


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


@dataclass(frozen=True, kw_only=True)
class VggTraining(Checked):
    """A VGG network that is trained on small images; see `training_vgg`."""

    dataset: str = "cifar10"
    fallback: bool = False
    layers: int = option(16, choices=VGG_LAYERS)
    batch_norm: bool = True
    epochs: int = option(20, low=1, high=10_000)
    batch_size: int = option(128, low=2)  # batch norm needs two
    learning_rate: float = option(0.05, above=0.0)  # the highest of the schedule
    weight_decay: float = option(5e-4, low=0.0)
    precision: str = option("float32", choices=PRECISIONS)
    train_images: int = option(60_000, low=2)
    test_images: int = option(10_000, low=2)
    seed: int = option(0, low=0, high=LARGEST_SEED)
    data_seed: ClassVar[int] = 0


@dataclass(frozen=True, kw_only=True)
class ChannelsPoint(Checked):
    """A VGG network, photographs, and which of its channels are looked at; see `channels`.

    A channel is written level:channel, such as 10:112.
    """

    weights: str = "random"
    layers: int = option(16, choices=VGG_LAYERS)
    batch_norm: bool = False
    side: int = option(224, low=32, high=4096)  # of the photographs, in pixels
    photographs: str = "bundled"
    train_images: int = option(200, low=2)  # that the cascade is fitted to
    test_images: int = option(20, low=2)  # that R² is measured on
    image: str = "astronaut"
    shown: tuple[str, ...] = ("3:26", "6:3", "10:112")
    asked: str = "10:216"
    asked_images: tuple[str, ...] = ("astronaut", "chelsea", "coffee", "camera")
    ranked_levels: tuple[int, ...] = option((3, 6, 10, 14), low=1)
    ranked_images: int = option(4, low=1)
    best: int = option(8, low=1)  # channels of each ranked level in the gallery
    solver: str = option("ridge", choices=SOLVERS)
    resolution: float = option(1e-3, above=0.0)  # ridge only
    compare: bool = False  # with random weights; after ridge with Adam for as long, too
    seed: int = option(0, low=0, high=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, channels in (("shown", self.shown), ("asked", (self.asked,))):
            for channel in channels:
                level_and_channel(channel, name=name)
        if self.ranked_images > self.test_images:
            raise ValueError(
                f"ranked_images must be <= test_images ({self.test_images}), "
                f"got {self.ranked_images}"
            )


def stages_of(architecture: str, depth: int) -> int:
    """How many stages a network of this depth has: convolutional ones begin with a stem."""
    return depth if architecture == "mlp" else STEM + depth


EXPERIMENTS: tuple[type[_Experiment], ...] = (
    CascadeSweep,
    TrainingSweep,
    PredictorSweep,
    CascadePoint,
    TrainingPoint,
    PredictorPoint,
    StudyPoint,
)


def experiment_of(settings: Mapping[str, Any]) -> _Experiment | None:
    """The experiment that has exactly settings of these names, lists at their defaults; or None.

    Settings that came later may be missing.
    """
    single = {name: value for name, value in settings.items() if not isinstance(value, list)}
    for kind in EXPERIMENTS:
        names = {setting.name: setting.metadata for setting in dataclasses.fields(kind)}
        missing = names.keys() - settings.keys()
        if settings.keys() <= names.keys() and all("before" in names[name] for name in missing):
            return kind.from_dict(single)
    return None


def level_and_channel(text: str, *, name: str = "a channel") -> tuple[int, int]:
    """The level (from 1) and the channel (from 0) that a text such as 10:112 names.

    Raises:
        ValueError: another text.
    """
    level, colon, channel = text.partition(":")
    if not (colon and level.isdecimal() and channel.isdecimal() and int(level)):
        raise ValueError(f"{name} is written level:channel, such as 10:112; got {quoted(text)}")
    return int(level), int(channel)


def digest(settings: Mapping[str, Any]) -> str:
    """The sha256 of settings in their canonical form, in hex."""
    canonical = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
