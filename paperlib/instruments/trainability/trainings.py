"""Networks that are trained several ways, and what they come to: which learn, and which fast.

Every network is trained anew by each of several optimisers within one budget, from the same weights
and on the same batches. Images have values in [0, 1], as `load_dataset` gives them: they are not
centred. A training goes on only while it could still change a label (`until`).
"""

import copy
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from paperlib.core.provenance import provenance
from paperlib.core.settings import Measured, option
from paperlib.datasets import Dataset
from paperlib.networks.experiment import ImageExperiment
from paperlib.sweep.grid import numbered
from paperlib.training import StopTraining, at, train


class Training(NamedTuple):
    """An optimiser and its constant rate; SGD has momentum 0.9, Adam its defaults."""

    optimiser: str
    rate: float

    @property
    def name(self) -> str:
        return f"{self.optimiser} {self.rate:g}"


DEFAULT = Training("adam", 1e-3)  # what one takes without a thought
TRAININGS = (  # in this order; the first ones most often decide
    DEFAULT,
    Training("adam", 3e-4),
    Training("sgd", 0.1),
    Training("adam", 3e-3),
    Training("sgd", 0.01),
)
SLOWER = (Training("adam", 1e-4), Training("adam", 3e-5))  # that a grid may be trained by, too
MOMENTUM = 0.9
EARLY = (20, 30, 100)  # steps after which each training is looked at, and
PARTS = {"quarter": 0.25, "end": 1.0}  # of the budget
MOMENTS = (*(f"{steps} steps" for steps in EARLY), *PARTS)
SMOOTH = 10  # steps over which a loss is the mean
CURVE = 100  # first steps of which every loss is kept
AT_ALL, FAST = 0.5, 0.8  # accuracies that make the two labels
TRAINING = ("training",)


@dataclass(frozen=True, kw_only=True)
class TrainedExperiment(ImageExperiment):
    """What all networks of one experiment share that are trained several ways."""

    budget: int = option(2400, low=1)  # steps of each training
    batch_size: int = option(32, low=1)
    train_images: int = option(20_000, low=2)
    test_images: int = option(500, low=2)
    # "decided": a training ends at the last early look if it has reached FAST by then, at the
    # quarter if AT_ALL, or, if it is not the default, if one before it has; "end": none ends early
    until: str = option("decided", choices=("decided", "end"))

    def trainings(self) -> tuple[Training, ...]:
        """Return the optimisers that train each network, in this order."""
        return TRAININGS

    def dims(self) -> dict[str, Any]:
        """Return the coordinates of what is measured of one network."""
        return {
            "training": np.array([training.name for training in self.trainings()]),
            "moment": np.array(MOMENTS),
            "step": np.arange(1, CURVE + 1),
        }


@dataclass(frozen=True, kw_only=True)
class TrainedPoint(TrainedExperiment, Measured):
    """One network that is trained several ways."""

    code_version: ClassVar[int] = 2  # 2: trainings end at the last early look, too
    fields: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "accuracy": (*TRAINING, "moment"),
        "loss": (*TRAINING, "moment"),
        "curve": (*TRAINING, "step"),
        **dict.fromkeys(("steps", "diverged", "seconds", "judging_seconds"), TRAINING),
        "parameters": (),
    }

    def network(self, data: Dataset) -> nn.Module:
        """Return the network, drawn anew."""
        raise NotImplementedError(f"{type(self).__name__} must say which network")

    def order(self) -> int:
        """Return the seed of the order of the images."""
        raise NotImplementedError(f"{type(self).__name__} must say in which order it learns")

    def measure(self, data: Dataset, *, device: str = "cpu") -> dict[str, np.ndarray]:
        """Return what each training of the network makes of it.

        Args:
            data: the point's data set; colour is turned into one channel.
            device: "cpu" or "cuda".

        Returns:
            For each training `accuracy` (training, moment) on the test images, 0 from where it
            diverged; `loss` (training, moment), the mean over the last ten steps before, infinite
            from where it diverged; both NaN from where it was decided; `curve` (training, step),
            the loss of each of the first 100 steps; `steps` (training,) taken; `diverged`
            (training,), 1 if a loss or an output was no finite number; `seconds` (training,) of the
            processor without looking, and `judging_seconds` for all looks; and `parameters` ().
        """
        lessons = data.examples("train", self.train_images, device=device)
        test = data.examples("test", self.test_images, device=device)
        network = self.network(data).to(device)
        found: list[dict[str, np.ndarray]] = []
        for training in self.trainings():
            each = trained(
                copy.deepcopy(network),
                training,
                lessons,
                test,
                budget=self.budget,
                batch_size=self.batch_size,
                seed=self.order(),
                ends=self.ends(training, found),
            )
            found.append(each)
        return self.stacked(network, found)

    @staticmethod
    def stacked(network: nn.Module, found: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return what `measure` does, from the fields of each training."""
        together = {name: np.stack([each[name] for each in found]) for name in found[0]}
        parameters = sum(p.numel() for p in network.parameters())
        return {**together, "parameters": np.array(parameters, np.int32)}

    def ends(self, training: Training, before: list[dict[str, np.ndarray]]) -> dict[int, float]:
        """Return by step the accuracy with which a training can change no label any more, given
        what those before it came to."""
        if self.until == "end":
            return {}
        moments = moments_of(self.budget)
        quarter = moments[MOMENTS.index("quarter")]
        early = min(EARLY[-1], quarter)
        within = {AT_ALL: np.array(moments) <= self.budget, FAST: np.array(moments) <= quarter}

        def needed(label: float) -> float:
            """Nothing more, where another training has made the label already."""
            if training is DEFAULT:
                return label
            reached = [np.nanmax(each["accuracy"][within[label]], initial=0) for each in before]
            return 0.0 if max(reached) >= label else label

        return {quarter: needed(AT_ALL), early: needed(FAST)}


def trained(
    network: nn.Module,
    training: Training,
    lessons: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    budget: int,
    batch_size: int = 32,
    seed: int = 0,
    ends: Mapping[int, float] | None = None,
) -> dict[str, np.ndarray]:
    """Train a network in place and return the fields of `TrainedPoint` for this training.

    Args:
        network: any module.
        training: its optimiser and rate.
        lessons: images and labels to learn from.
        test: images and labels on which accuracies are taken, in evaluation mode.
        budget: steps, fewer where a loss is no finite number any more.
        batch_size: images per step.
        seed: of the order of the images.
        ends: by step, a share of the test images; the training ends there if it has ever been right
            about as many by then.
    """
    looks = Looks()
    moments = moments_of(budget)
    ends = ends or {}

    @torch.no_grad()
    def look(step: int, network: nn.Module) -> None:
        since = time.process_time()
        looks.note(step, network.eval()(test[0]), test[1])
        network.train()
        looks.seconds += time.process_time() - since

    def stop(step: int, _: nn.Module) -> None:
        if looks.reaches(ends[step]):
            raise StopTraining

    begin = time.process_time()
    losses = train(
        network.train(),
        lessons,
        optimiser=optimiser_of(network.parameters(), training),
        steps=budget,
        batch_size=batch_size,
        observers=[at(set(moments), look), at(set(ends), stop)],
        seed=seed,
    )
    seconds = time.process_time() - begin - looks.seconds
    return as_fields(losses, looks, moments, seconds)


def as_fields(
    losses: list[float], looks: "Looks", moments: list[int], seconds: float
) -> dict[str, np.ndarray]:
    """Return the fields of `TrainedPoint` for one training that has ended.

    Args:
        losses: of every step that was taken.
        looks: at the network meanwhile.
        moments: at which it was to be looked at.
        seconds: that it took, without looking.
    """
    curve = np.full(CURVE, np.nan, np.float32)
    curve[: len(losses)] = losses[:CURVE]
    diverged = not np.isfinite(losses).all() or not all(looks.finite.values())
    unseen = 0.0 if diverged else np.nan
    return {
        "accuracy": np.array([looks.found.get(step, unseen) for step in moments], np.float32),
        "loss": np.array([_loss(losses, step, diverged) for step in moments], np.float32),
        "curve": curve,
        "steps": np.array(len(losses), np.int32),
        "diverged": np.array(diverged, np.int8),
        "seconds": np.array(seconds, np.float32),
        "judging_seconds": np.array(looks.seconds, np.float32),
    }


def moments_of(budget: int) -> list[int]:
    """Return the steps after which a training is looked at, in the order of `MOMENTS`.

    Example:
        >>> from paperlib.instruments.trainability.trainings import moments_of
        >>> moments_of(2400), moments_of(40)  # none is later than the budget's end
        ([20, 30, 100, 600, 2400], [20, 30, 40, 10, 40])
    """
    parts = [max(1, round(part * budget)) for part in PARTS.values()]
    return [*(min(steps, budget) for steps in EARLY), *parts]


def labels(result: xr.Dataset, *, at_all: float = AT_ALL, fast: float = FAST) -> xr.Dataset:
    """Return which of the trained networks learn, by their best training and by the default one.

    A network *learns at all* if a training is right about `at_all` of the test images at any moment
    within the budget, and *learns fast* if it is about `fast` of them within a quarter of it.

    Args:
        result: of a `ZooSweep`, `GridTrainings` or `TrainingSweep`, of which only the first label
            is known; networks that are not finished are left out.
        at_all: accuracy; of data sets on which no network is good, take less.
        fast: accuracy.

    Returns:
        Along number `best_accuracy` and `default_accuracy`, the highest that were seen within the
        budget (trainings that are decided end early: see `until`), and the labels
        `learns_at_all`, `learns_fast`, `default_learns_at_all` and `default_learns_fast`.
    """
    numbers = numbered(result)
    done = numbers.isel(number=np.flatnonzero(numbers["finished"].values == 1))
    if "training" not in done.dims:
        return xr.Dataset(
            {"best_accuracy": done["accuracy"], "learns_at_all": done["accuracy"] >= at_all}
        )
    budget = provenance(done)["config"]["budget"]
    steps = np.array(moments_of(budget))
    within = done["accuracy"].max("moment")
    quarter = steps <= steps[MOMENTS.index("quarter")]
    early = done["accuracy"].isel(moment=quarter).max("moment")
    default = {"training": DEFAULT.name}
    best, default_best = within.max("training"), within.sel(default, drop=True)
    return xr.Dataset(
        {
            "best_accuracy": best,
            "default_accuracy": default_best,
            "learns_at_all": best >= at_all,
            "learns_fast": early.max("training") >= fast,
            "default_learns_at_all": default_best >= at_all,
            "default_learns_fast": early.sel(default, drop=True) >= fast,
        }
    )


class Looks:
    """What was seen of one training: its accuracy at each look, 0 where an output is no finite
    number."""

    def __init__(self) -> None:
        self.found: dict[int, float] = {}
        self.finite: dict[int, bool] = {}
        self.seconds = 0.0

    def note(self, step: int, logits: Tensor, labels: Tensor) -> None:
        """Keep the accuracy of logits (n, classes) after this step."""
        right = float((logits.argmax(1) == labels).float().mean())
        self.finite[step] = bool(logits.isfinite().all())
        self.found[step] = right if self.finite[step] else 0.0

    def reaches(self, accuracy: float | None) -> bool:
        """Whether it has ever been as accurate; never, where there is nothing to reach."""
        return accuracy is not None and max(self.found.values()) >= accuracy

    def forget(self, *, after: int) -> None:
        """Leave out what was seen after this step."""
        self.found = {step: right for step, right in self.found.items() if step <= after}
        self.finite = {step: good for step, good in self.finite.items() if step <= after}


def optimiser_of(parameters: Iterable[Tensor], training: Training) -> torch.optim.Optimizer:
    """Return a training's optimiser of parameters, which may be those of several networks."""
    if training.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=training.rate, momentum=MOMENTUM, fused=True)
    return torch.optim.Adam(parameters, lr=training.rate, fused=True)


def _loss(losses: list[float], step: int, diverged: bool) -> float:
    """The mean loss of the last steps up to this one; infinite from where they diverged, and NaN
    where they were not taken."""
    if len(losses) < step:
        return np.inf if diverged else np.nan
    mean = float(np.mean(losses[max(0, step - SMOOTH) : step]))
    return mean if np.isfinite(mean) else np.inf
