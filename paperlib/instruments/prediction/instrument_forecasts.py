"""What the other instruments say of untrained networks: those of the zoo, and MLPs of a grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from paperlib import instruments
from paperlib.core.checks import LARGEST_SEED, did_you_mean
from paperlib.core.progress import clock_of
from paperlib.core.settings import Measured, option
from paperlib.datasets import Dataset
from paperlib.networks import untrained
from paperlib.networks.experiment import ImageExperiment, Point
from paperlib.networks.zoo import zoo_network
from paperlib.sweep.grid import Grid, Sweep

MOST = 3  # scores that an instrument may give


@dataclass(frozen=True, kw_only=True)
class _Foretold(ImageExperiment, Measured):
    """What one instrument says of one network."""

    instrument: str = "few_shot"  # of `instruments.foretellers`
    train_images: int = option(300, low=2)  # that the network is judged by

    fields: ClassVar[Mapping[str, tuple[str, ...]]] = {"scores": ("score",), "seconds": ()}

    def __post_init__(self) -> None:
        super().__post_init__()
        known = instruments.foretellers()
        if self.instrument not in known:
            raise ValueError(
                f"no instrument {self.instrument!r} foretells what trains"
                f"{did_you_mean(self.instrument, known)}; expected one of {', '.join(known)}"
            )

    def unread(self) -> tuple[str, ...]:
        return (*super().unread(), "test_images")

    def identifying(self) -> dict[str, Any]:
        version = instruments.foretellers()[self.instrument].CODE_VERSION
        return {**super().identifying(), "foretold": True, "instrument_code": version}

    def network(self, data: Dataset) -> nn.Module:
        """Return the network, drawn anew."""
        raise NotImplementedError(f"{type(self).__name__} must say which network")

    def measure(self, data: Dataset, *, device: str = "cpu") -> dict[str, np.ndarray]:
        """Return what the instrument says.

        Args:
            data: the point's data set; colour is turned into one channel. Training images only.
            device: "cpu" or "cuda".

        Returns:
            `scores` (score,), by the instrument's `FORETELLS`, then NaN; `seconds` () of the
            processor.
        """
        images, labels = data.examples("train", self.train_images, device=device)
        network = self.network(data).to(device)
        clock = clock_of(torch.device(device).type)
        begin = clock()
        module: Any = instruments.foretellers()[self.instrument]
        found = module.foretell(network, images, labels, seed=0)
        seconds = clock() - begin
        scores = np.full(MOST, np.nan)
        scores[: len(found)] = [found[name] for name in module.FORETELLS]
        return {"scores": scores, "seconds": np.array(seconds, np.float32)}


@dataclass(frozen=True, kw_only=True)
class InstrumentForecast(_Foretold):
    """What one instrument says of one network of the zoo.

    Example:
        >>> from paperlib import measure_point
        >>> from paperlib.instruments.prediction.instrument_forecasts import InstrumentForecast
        >>> point = InstrumentForecast(dataset="digits", number=1, instrument="sample_sets")
        >>> measure_point(point)["scores"].round(2).tolist()
        [1.0, 0.75, nan]
    """

    number: int = option(0, low=0, high=LARGEST_SEED)

    def network(self, data: Dataset) -> nn.Module:
        return zoo_network(self.number, (1, *data.image_shape[1:]), len(data.classes))


@dataclass(frozen=True, kw_only=True)
class InstrumentForecasts(Grid):
    """What the instruments say of many networks of the zoo.

    Example:
        >>> from paperlib.instruments.prediction.instrument_forecasts import InstrumentForecasts
        >>> sweep = InstrumentForecasts(numbers=(1, 2), instruments=("few_shot", "sample_sets"))
        >>> len(list(sweep.points()))
        4
    """

    axes: ClassVar[Mapping[str, str]] = {"instrument": "instruments", "number": "numbers"}
    point: ClassVar[type[Any]] = InstrumentForecast

    instruments: tuple[str, ...] = ("few_shot",)
    numbers: tuple[int, ...] = option(tuple(range(300)), low=0, high=LARGEST_SEED)
    train_images: int = option(300, low=2)

    def coordinates(self) -> dict[str, Any]:
        return {**super().coordinates(), "score": np.arange(MOST)}


@dataclass(frozen=True, kw_only=True)
class InstrumentPoint(_Foretold, Point):
    """What one instrument says of one MLP.

    Example:
        >>> from paperlib import measure_point
        >>> from paperlib.instruments.prediction.instrument_forecasts import InstrumentPoint
        >>> point = InstrumentPoint(dataset="digits", sigma_w2=1.7, depth=3, width=50)
        >>> measure_point(point)["scores"].shape
        (3,)
    """

    depth: int = option(10, low=1, high=10_000)

    def network(self, data: Dataset) -> nn.Module:
        return untrained(self, data.image_shape, len(data.classes))


@dataclass(frozen=True, kw_only=True)
class InstrumentSweep(Sweep):
    """What the instruments say of MLPs, over variances, seeds and depths.

    Example:
        >>> from paperlib.instruments.prediction.instrument_forecasts import InstrumentSweep
        >>> sweep = InstrumentSweep(sigma_w2=(1.0, 1.7), seeds=(0,), depths=(5, 10))
        >>> len(list(sweep.points()))
        4
    """

    axes: ClassVar[Mapping[str, str]] = {
        "instrument": "instruments", **Sweep.axes, "depth": "depths",
    }  # fmt: skip
    point: ClassVar[type[Any]] = InstrumentPoint

    instruments: tuple[str, ...] = ("few_shot",)
    depths: tuple[int, ...] = option((5, 10, 20, 40), low=1, high=10_000)
    train_images: int = option(300, low=2)

    def coordinates(self) -> dict[str, Any]:
        return {**super().coordinates(), "score": np.arange(MOST)}
