"""What predictors say of untrained networks, and grids of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from paperlib.core.settings import option
from paperlib.datasets import Dataset
from paperlib.instruments.prediction import predictors
from paperlib.instruments.prediction.baselines import make_task
from paperlib.instruments.prediction.names import PREDICTORS
from paperlib.instruments.reconstruction.points import RTOL
from paperlib.networks import untrained
from paperlib.networks.experiment import Experiment, Point
from paperlib.sweep.grid import Sweep


@dataclass(frozen=True, kw_only=True)
class _PredictorExperiment(Experiment):
    """What all points of a grid of predictions share: one network predicts all depths."""

    depth: int = option(60, low=1, high=10_000)
    predictors: tuple[str, ...] = option(PREDICTORS, choices=PREDICTORS)
    train_images: int = option(2000, low=4)

    def unread(self) -> tuple[str, ...]:
        return (*super().unread(), "test_images")


@dataclass(frozen=True, kw_only=True)
class PredictorPoint(_PredictorExperiment, Point):
    """What predictors say of one untrained network.

    Example:
        >>> from paperlib import PredictorPoint, measure_point
        >>> point = PredictorPoint(
        ...     dataset="digits", depth=4, width=50, train_images=100, predictors=("naswot", "snip")
        ... )
        >>> measure_point(point)["scores"].shape  # (predictor, depth)
        (2, 4)
    """

    fields: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "scores": ("predictor", "depth"),
        "seconds": ("predictor",),
    }

    def measure(self, data: Dataset, *, device: str = "cpu") -> dict[str, np.ndarray]:
        """Return what predictors say of the network, cut off at every depth.

        Args:
            data: the point's data set; predictors see training images only.
            device: "cpu" or "cuda".

        Returns:
            `scores` (predictor, depth) in float64, and `seconds` (predictor,), as in `Prediction`.
        """
        network = untrained(self, data.image_shape, len(data.classes)).to(device)
        images, labels = data.examples("train", self.train_images, device=device)
        task = make_task(network, images, labels, self.seed)
        tolerance = {"rtol": RTOL[self.architecture]}  # read by rules that measure reconstructions
        chosen = [predictors.PREDICTORS[name] for name in self.predictors]
        found = [rule.judge(task, **(tolerance if rule.fit else {})) for rule in chosen]
        return {
            "scores": torch.stack([prediction.scores for prediction in found]).numpy(),
            "seconds": np.array([prediction.seconds for prediction in found], np.float32),
        }


@dataclass(frozen=True, kw_only=True)
class PredictorSweep(_PredictorExperiment, Sweep):
    """Predictions: every variance with every seed.

    Example:
        >>> from paperlib import PredictorSweep
        >>> sweep = PredictorSweep(sigma_w2=(1.0, 1.7), seeds=(0, 1), predictors=("naswot",))
        >>> len(list(sweep.points())), sweep.coordinates()["predictor"].tolist()
        (4, ['naswot'])
    """

    point: ClassVar[type[Point]] = PredictorPoint

    def coordinates(self) -> dict[str, np.ndarray]:
        return {**super().coordinates(), "predictor": np.array(self.predictors)}
