"""Classifiers that are really trained: what a prediction of trainability is measured against.

Training never fails: a network whose loss is no longer a number stops there and counts as one that
cannot be trained.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from paperlib.core.progress import clock_of
from paperlib.core.settings import option
from paperlib.datasets import Dataset
from paperlib.networks import Network, untrained
from paperlib.networks.experiment import Experiment, Point
from paperlib.networks.kinds import OPTIMISERS
from paperlib.training.loop import StopTraining, batches, train

CHECKS = 10  # of the accuracy within the budget, where training may stop early
EVALUATED = 1000  # images that pass through a network at a time


@dataclass(frozen=True, kw_only=True)
class TrainingExperiment(Experiment):
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
class TrainingPoint(TrainingExperiment, Point):
    """One classifier that is trained.

    Example:
        >>> from paperlib import TrainingPoint, measure_point
        >>> point = TrainingPoint(dataset="digits", depth=2, width=50, steps=20, train_images=200)
        >>> sorted(measure_point(point))
        ['accuracy', 'diverged', 'loss', 'seconds', 'steps']
    """

    depth: int = option(30, low=1, high=10_000)

    fields: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        ("accuracy", "loss", "steps", "diverged", "seconds"), ()
    )
    watched: ClassVar[str] = "accuracy"

    def measure(self, data: Dataset, *, device: str = "cpu") -> dict[str, np.ndarray]:
        """Return what the classifier has learnt within its budget, see `train_points`."""
        return train_point(self, data=data, device=device)

    @classmethod
    def measure_together(
        cls, points: Sequence[Self], data: Dataset, *, device: str = "cpu"
    ) -> list[dict[str, np.ndarray]]:
        return train_points(points, data=data, device=device)

    def alike(self, device: str) -> Any:
        """On a GPU networks of one depth: all else but variance and seed is the same in a sweep."""
        return self.depth if device == "cuda" else self


def train_point(
    point: TrainingPoint, *, data: Dataset, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Train one classifier and return what it has learnt within its budget; see `train_points`.

    Example:
        >>> from paperlib import TrainingPoint, load_dataset
        >>> from paperlib.training import train_point
        >>> point = TrainingPoint(depth=2, width=50, steps=30, batch_size=32)
        >>> learnt = train_point(point, data=load_dataset("digits", limit=200))
        >>> int(learnt["steps"]), bool(learnt["diverged"])
        (30, False)
    """
    return train_points([point], data=data, device=device)[0]


def train_network(
    point: TrainingPoint, *, data: Dataset, grey: bool = True, device: str = "cpu"
) -> tuple[Network, dict[str, np.ndarray]]:
    """Train one classifier and return it with what it has learnt; see `train_points`.

    Example:
        >>> from paperlib import TrainingPoint, load_dataset
        >>> from paperlib.training import train_network
        >>> point = TrainingPoint(depth=2, width=50, steps=5)
        >>> network, learnt = train_network(point, data=load_dataset("digits", limit=100))
        >>> len(network.stages), int(learnt["steps"])
        (2, 5)

    Args:
        point: its settings.
        data: the point's data set.
        grey: turn colour into one channel, as `train_points` does; else it takes them all.
        device: "cpu" or "cuda".
    """
    (network,), (learnt,) = _trained([point], data, grey=grey, device=device)
    return network, learnt


def train_points(
    points: Sequence[TrainingPoint], *, data: Dataset, device: str = "cpu"
) -> list[dict[str, np.ndarray]]:
    """Train several classifiers of one shape, and return what each has learnt within the budget.

    Cross-entropy of the logits on grey images with values in [0, 1], each epoch in an order of its
    own; SGD without momentum, or Adam with its defaults, at the constant rate
    `learning_rate` / depth ** `rate_exponent`. With a `threshold` below 1 the accuracy on the test
    images is looked at after every `steps` // 10 steps, at least one, and a network that has
    reached it stops there. Several points are trained together, each as if it were alone.

    Example:
        >>> from paperlib import TrainingPoint, load_dataset
        >>> from paperlib.training import train_points
        >>> points = [TrainingPoint(depth=2, width=50, steps=5, seed=seed) for seed in range(2)]
        >>> learnt = train_points(points, data=load_dataset("digits", limit=100))
        >>> [int(one["steps"]) for one in learnt]
        [5, 5]

    Args:
        points: at least one; they may differ in variance and seed only.
        data: the points' data set.
        device: "cpu" or "cuda".

    Returns:
        For each point `accuracy` () on the test images, 0 if it diverged; `loss` (), the mean over
        the last tenth of the steps taken, NaN without steps, infinite if it diverged; `steps` ()
        taken; `diverged` (), 1 if its loss or outputs became infinite or NaN; `seconds` (), its
        share of CPU time (of the clock on a GPU).

    Raises:
        ValueError: points that are not as above, labels of one class only, or labels that do not
            number the classes.

    Source: arXiv:2406.12916, whose code applies softmax twice; this trains logits.
    """
    return _trained(points, data, grey=True, device=device)[1]


def learning_rate(point: TrainingPoint) -> float:
    """Return the constant rate at which a point is trained: it falls with depth by the stated rule.

    Example:
        >>> from paperlib import TrainingPoint
        >>> from paperlib.training import learning_rate
        >>> learning_rate(TrainingPoint(depth=10, learning_rate=0.5))
        0.05
    """
    return point.learning_rate / point.depth**point.rate_exponent


class _Examples(NamedTuple):
    """Images (n, *image_shape) and labels (n,), on one device."""

    images: Tensor
    labels: Tensor


class _End(NamedTuple):
    """Where a network stopped: after how many steps, with which accuracy (NaN: it diverged)."""

    steps: int
    accuracy: float


def _trained(
    points: Sequence[TrainingPoint], data: Dataset, *, grey: bool, device: str
) -> tuple[list[Network], list[dict[str, np.ndarray]]]:
    """The networks, and what each has learnt; only one that is alone holds what it has learnt."""
    first = _first_of_equals(points)
    examples = _examples(data, "train", first.train_images, grey, device)
    test = _examples(data, "test", first.test_images, grey, device)
    if len(examples.labels.unique()) < 2:
        raise ValueError(
            f"training needs images of at least two classes; the {len(examples.labels)} training "
            f"images of {data.name} are all of class {data.classes[int(examples.labels[0])]!r}"
        )
    shape, classes = data.image_shape, len(data.classes)
    networks = [untrained(p, shape, classes, grey=grey).to(device) for p in points]
    clock = clock_of(device)
    begin = clock()
    ends, losses = _train(networks, points, examples, test)
    seconds = (clock() - begin) / len(points)
    learnt = [_arrays(end, [row[i] for row in losses], seconds) for i, end in enumerate(ends)]
    return networks, learnt


def _first_of_equals(points: Sequence[TrainingPoint]) -> TrainingPoint:
    """The first of points that can be trained together."""
    settings = set(TrainingPoint.names()) - {"sigma_w2", "seed"}
    differ = sorted(n for n in settings if len({getattr(point, n) for point in points}) > 1)
    if not points or differ:
        found = f"these differ in {', '.join(differ)}" if differ else "got none"
        raise ValueError(
            f"expected at least one point, and several to differ in sigma_w2 and seed only; {found}"
        )
    return points[0]


def _train(
    networks: list[Network], points: Sequence[TrainingPoint], examples: _Examples, test: _Examples
) -> tuple[list[_End], list[list[float]]]:
    """Where each network stops, and for every step the loss of each."""
    first = points[0]
    network = _Together(networks)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[first.optimiser]
    update = kind(network.learning, lr=learning_rate(first), fused=True)
    orders = (batches(len(examples.labels), first.batch_size, point.seed) for point in points)
    chosen = (torch.stack(each).to(examples.labels.device) for each in zip(*orders, strict=True))
    ends = _Ends(first, test, len(networks))
    losses = train(
        network,
        ((examples.images[batch], examples.labels[batch]) for batch in chosen),
        optimiser=update,
        steps=first.steps,
        rule=ends.rule,
        observers=[ends],
    )
    return ends.of(network, len(losses)), losses


class _Together(nn.Module):
    """Networks of one shape as one, from (k, n, *image_shape) to (k, n, classes).

    Attributes:
        learning: all their parameters.
    """

    def __init__(self, networks: list[Network]) -> None:
        super().__init__()
        self.first = networks[0]
        self.learning: list[Tensor] = list(self.first.parameters())
        self._stacked: tuple[Any, Any] | None = None
        if len(networks) > 1:
            self._stacked = stack_module_state(networks)
            self.learning = list(self._stacked[0].values())

    def forward(self, images: Tensor) -> Tensor:
        if self._stacked is None:
            return self.first(images[0])[None]

        def one(parameters: Any, buffers: Any, images: Tensor) -> Tensor:
            return functional_call(self.first, (parameters, buffers), (images,))

        return torch.vmap(one)(*self._stacked, images)


class _Ends:
    """Watches networks that learn together: each ends where it diverges or reaches the threshold,
    and the training where all have ended."""

    def __init__(self, point: TrainingPoint, test: _Examples, count: int) -> None:
        self.threshold, self.every = point.threshold, max(1, point.steps // CHECKS)
        self.test, self.count = test, count
        self.ends: dict[int, _End] = {}  # an end that was found earlier stands
        self.losses: list[float] = []  # of the last step

    def rule(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Backpropagate the mean cross-entropy of each network, and return them all."""
        losses = nn.functional.cross_entropy(network(images).mT, labels, reduction="none").mean(1)
        losses.sum().backward()
        self.losses = losses.tolist()
        return losses.detach()

    def __call__(self, step: int, network: nn.Module) -> None:
        broken = (i for i, value in enumerate(self.losses) if not math.isfinite(value))
        self.ends = {i: _End(step, math.nan) for i in broken} | self.ends
        if step and self.threshold < 1 and step % self.every == 0:
            found = enumerate(_accuracies(network, self.test, self.count))
            self.ends = {i: _End(step, a) for i, a in found if a >= self.threshold} | self.ends
        if len(self.ends) == self.count:
            raise StopTraining

    def of(self, network: nn.Module, steps: int) -> list[_End]:
        """Where each network stopped: those that have not ended yet, after all steps."""
        if len(self.ends) < self.count:
            final = enumerate(_accuracies(network, self.test, self.count))
            self.ends = {i: _End(steps, accuracy) for i, accuracy in final} | self.ends
        return [self.ends[i] for i in range(self.count)]


def _arrays(end: _End, losses: list[float], seconds: float) -> dict[str, np.ndarray]:
    diverged = math.isnan(end.accuracy)
    last = losses[: end.steps][-max(1, end.steps // 10) :]
    loss = math.inf if diverged else float(np.mean(last)) if last else math.nan
    return {
        "accuracy": np.array(0 if diverged else end.accuracy, np.float32),
        "loss": np.array(loss, np.float32),
        "steps": np.array(end.steps, np.int32),
        "diverged": np.array(diverged, np.int8),
        "seconds": np.array(seconds, np.float32),
    }


def _examples(data: Dataset, split: str, limit: int, grey: bool, device: str) -> _Examples:
    """At most `limit` images of a split as floats, and their labels, checked."""
    labels = data.labels(split)[:limit]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(data.classes):
        raise ValueError(
            f"the {split} labels of {data.name} must number its {len(data.classes)} classes from "
            f"0 to {len(data.classes) - 1}, got {low} … {high}"
        )
    return _Examples(*data.examples(split, limit, grey=grey, device=device))


@torch.no_grad()
def _accuracies(network: nn.Module, examples: _Examples, count: int) -> list[float]:
    """The accuracy of each network; NaN where an output is no finite number."""
    right = torch.zeros(count, dtype=torch.float64, device=examples.labels.device)
    for images, labels in zip(*(e.split(EVALUATED) for e in examples), strict=True):
        logits = network(images.expand(count, *images.shape))
        right += (logits.argmax(-1) == labels).sum(-1) + 0 * logits.sum((-1, -2))
    return (right / len(examples.labels)).tolist()
