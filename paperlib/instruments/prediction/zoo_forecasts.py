"""What signals and rivals say of the zoo's networks before they are trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from paperlib.core.checks import LARGEST_SEED
from paperlib.core.progress import clock_of
from paperlib.core.settings import Measured, option
from paperlib.datasets import Dataset
from paperlib.instruments.prediction.rivals import RIVALS, rival_scores, smallest_of_three
from paperlib.instruments.probe.probe import probe
from paperlib.instruments.probe.signals import signals
from paperlib.networks.experiment import ImageExperiment
from paperlib.networks.zoo import zoo_network
from paperlib.sweep.grid import Grid

SIGNALS = (  # what `signals` returns with labels, see there
    *("r_squared_smallest", "r_squared_end", "r_squared_features", "r_squared_output"),
    *("label_features", "label_output", "chance", "gain", "gain_norm", "gain_relative"),
    *("sgd_decades", "adam_decades", "sensitivity_decades", "adam_share"),
    *("cosine", "cosine_within", "cosine_between", "tangent_top", "tangent_rank"),
    *("tangent_condition", "tangent_alignment", "tangent_accuracy", "loss", "step_gain"),
    *("step_r_squared", "step_accuracy"),
)
OF_SIGNALS = "smallest_of_three"  # the one rival that is made of them


@dataclass(frozen=True, kw_only=True)
class _ForecastExperiment(ImageExperiment):
    """What all forecasts of a zoo share."""

    train_images: int = option(300, low=20)  # that the network is judged by

    def unread(self) -> tuple[str, ...]:
        return (*super().unread(), "test_images")

    def identifying(self) -> dict[str, Any]:
        return {**super().identifying(), "instrument": "zoo_forecasts"}


@dataclass(frozen=True, kw_only=True)
class ZooForecast(_ForecastExperiment, Measured):
    """What signals and rivals say of one network of the zoo.

    Example:
        >>> from paperlib import measure_point
        >>> from paperlib.instruments.prediction.zoo_forecasts import SIGNALS, ZooForecast
        >>> found = measure_point(ZooForecast(dataset="digits", number=9, train_images=100))
        >>> found["signals"].shape == (len(SIGNALS),)
        True
    """

    number: int = option(0, low=0, high=LARGEST_SEED)

    fields: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "signals": ("signal",),
        "rivals": ("rival",),
        "rival_seconds": ("rival",),
        "probe_seconds": (),
        "signal_seconds": (),
    }

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
        shape = (1, *data.image_shape[1:])
        network = zoo_network(self.number, shape, len(data.classes)).to(device)
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
class ZooForecasts(_ForecastExperiment, Grid):
    """What signals and rivals say of many networks of the zoo.

    Example:
        >>> from paperlib.instruments.prediction.zoo_forecasts import ZooForecasts
        >>> len(list(ZooForecasts(numbers=range(300)).points()))
        300
    """

    axes: ClassVar[Mapping[str, str]] = {"number": "numbers"}
    point: ClassVar[type[Any]] = ZooForecast

    numbers: tuple[int, ...] = option(tuple(range(300)), low=0, high=LARGEST_SEED)

    def coordinates(self) -> dict[str, Any]:
        coordinates = super().coordinates()
        return {**coordinates, "signal": np.array(SIGNALS), "rival": np.array(list(RIVALS))}
