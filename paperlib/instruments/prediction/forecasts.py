"""What signals and rivals say of networks before they are trained: the zoo's, and a grid's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from paperlib.core.checks import LARGEST_SEED
from paperlib.core.progress import clock_of
from paperlib.core.settings import Measured, option
from paperlib.datasets import Dataset
from paperlib.instruments.prediction.rivals import RIVALS, rival_scores, smallest_of_three
from paperlib.instruments.probe.probe import probe
from paperlib.instruments.probe.signals import signals
from paperlib.networks import untrained
from paperlib.networks.experiment import ImageExperiment, Point
from paperlib.networks.zoo import zoo_network
from paperlib.sweep.grid import Grid, Sweep

SIGNALS = (  # what `signals` returns with labels, see there
    *("r_squared_smallest", "r_squared_end", "r_squared_features", "r_squared_output"),
    *("label_features", "label_output", "chance", "gain", "gain_norm", "gain_relative"),
    *("sgd_decades", "adam_decades", "sensitivity_decades", "adam_share"),
    *("cosine", "cosine_within", "cosine_between", "tangent_top", "tangent_rank"),
    *("tangent_condition", "tangent_alignment", "tangent_accuracy", "loss", "step_gain"),
    *("step_r_squared", "step_accuracy", "trial_accuracy", "trial_loss"),
)
OF_SIGNALS = "smallest_of_three"  # the one rival that is made of them


@dataclass(frozen=True, kw_only=True)
class _ForecastExperiment(ImageExperiment):
    """What all forecasts share."""

    train_images: int = option(300, low=20)  # that the network is judged by

    def unread(self) -> tuple[str, ...]:
        return (*super().unread(), "test_images")

    def identifying(self) -> dict[str, Any]:
        return {**super().identifying(), "instrument": "zoo_forecasts"}

    def dims(self) -> dict[str, Any]:
        """Return the coordinates of what is measured of one network."""
        return {"signal": np.array(SIGNALS), "rival": np.array(list(RIVALS))}


@dataclass(frozen=True, kw_only=True)
class _Forecast(_ForecastExperiment, Measured):
    """What signals and rivals say of one network."""

    code_version: ClassVar[int] = 3  # 3: a trial is among the signals
    fields: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "signals": ("signal",),
        "rivals": ("rival",),
        "rival_seconds": ("rival",),
        "probe_seconds": (),
        "signal_seconds": (),
    }

    def network(self, data: Dataset) -> nn.Module:
        """Return the network, drawn anew."""
        raise NotImplementedError(f"{type(self).__name__} must say which network")

    def measure(self, data: Dataset, *, device: str = "cpu") -> dict[str, np.ndarray]:
        """Return the numbers of `signals` and the scores of `rival_scores`.

        Args:
            data: the point's data set; colour is turned into one channel. Training images only.
            device: "cpu" or "cuda".

        Returns:
            `signals` (signal,), NaN where one cannot be said, and `rivals` (rival,), float64;
            `probe_seconds` () of the probe that signals build on, `signal_seconds` () of all else
            that they take, and `rival_seconds` (rival,), of the processor.
        """
        images, labels = data.examples("train", self.train_images, device=device)
        network = self.network(data).to(device)
        clock = clock_of(torch.device(device).type)
        begin = clock()
        report = probe(network, images)
        probed = clock()
        found = signals(network, images, labels, report=report)
        done = clock()
        others = [name for name in RIVALS if name != OF_SIGNALS]
        judged = rival_scores(network, images, labels, names=others)
        scores = {name: judged[name].score for name in others}
        seconds = {name: judged[name].seconds for name in others}
        scores[OF_SIGNALS] = smallest_of_three(found.numbers)
        seconds[OF_SIGNALS] = done - begin
        return {
            "signals": np.array([found.numbers.get(name, np.nan) for name in SIGNALS]),
            "rivals": np.array([scores[name] for name in RIVALS]),
            "rival_seconds": np.array([seconds[name] for name in RIVALS], np.float32),
            "probe_seconds": np.array(probed - begin, np.float32),
            "signal_seconds": np.array(done - probed, np.float32),
        }


@dataclass(frozen=True, kw_only=True)
class ZooForecast(_Forecast):
    """What signals and rivals say of one network of the zoo.

    Example:
        >>> from paperlib import measure_point
        >>> from paperlib.instruments.prediction.forecasts import SIGNALS, ZooForecast
        >>> found = measure_point(ZooForecast(dataset="digits", number=9, train_images=100))
        >>> found["signals"].shape == (len(SIGNALS),)
        True
    """

    number: int = option(0, low=0, high=LARGEST_SEED)

    def network(self, data: Dataset) -> nn.Module:
        return zoo_network(self.number, (1, *data.image_shape[1:]), len(data.classes))


@dataclass(frozen=True, kw_only=True)
class ZooForecasts(_ForecastExperiment, Grid):
    """What signals and rivals say of many networks of the zoo.

    Example:
        >>> from paperlib.instruments.prediction.forecasts import ZooForecasts
        >>> len(list(ZooForecasts(numbers=range(300)).points()))
        300
    """

    axes: ClassVar[Mapping[str, str]] = {"number": "numbers"}
    point: ClassVar[type[Any]] = ZooForecast

    numbers: tuple[int, ...] = option(tuple(range(300)), low=0, high=LARGEST_SEED)

    def coordinates(self) -> dict[str, Any]:
        return {**super().coordinates(), **self.dims()}


@dataclass(frozen=True, kw_only=True)
class GridForecast(_Forecast, Point):
    """What signals and rivals say of one network of a grid.

    Example:
        >>> from paperlib import measure_point
        >>> from paperlib.instruments.prediction.forecasts import SIGNALS, GridForecast
        >>> point = GridForecast(dataset="digits", depth=3, width=20, train_images=100)
        >>> measure_point(point)["signals"].shape == (len(SIGNALS),)
        True
    """

    depth: int = option(10, low=1, high=10_000)

    def network(self, data: Dataset) -> nn.Module:
        return untrained(self, data.image_shape, len(data.classes))


@dataclass(frozen=True, kw_only=True)
class GridForecasts(_ForecastExperiment, Sweep):
    """What signals and rivals say of the networks of a grid.

    Example:
        >>> from paperlib.instruments.prediction.forecasts import GridForecasts
        >>> sweep = GridForecasts(sigma_w2=(1.0, 1.7), seeds=(0,), depths=(5, 10, 20))
        >>> len(list(sweep.points()))
        6
    """

    axes: ClassVar[Mapping[str, str]] = {**Sweep.axes, "depth": "depths"}
    point: ClassVar[type[Any]] = GridForecast

    depths: tuple[int, ...] = option((10, 30, 60), low=1, high=10_000)

    def coordinates(self) -> dict[str, Any]:
        return {**super().coordinates(), **self.dims()}
