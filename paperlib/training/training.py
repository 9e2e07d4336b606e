"""Classifiers that are really trained: what a prediction of trainability is measured against.

Training never fails: a network whose loss is no longer a number stops there and counts as one that
cannot be trained.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from paperlib.core.progress import clock_of
from paperlib.core.seeds import random_numbers
from paperlib.core.settings import option
from paperlib.datasets import Dataset
from paperlib.networks import Network, untrained
from paperlib.networks.experiment import Experiment, Point

OPTIMISERS = ("sgd", "adam")
CHECKS = 10  # of the accuracy within the budget, where training may stop early
EVALUATED = 1000  # images that pass through a network at a time

_Forward = Callable[[Tensor], Tensor]


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
    """One classifier that is trained."""

    depth: int = option(30, low=1, high=10_000)

    fields: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        ("accuracy", "loss", "steps", "diverged", "seconds"), ()
    )

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
    """What one classifier has learnt within its budget; see `train_points`."""
    return train_points([point], data=data, device=device)[0]


def train_network(
    point: TrainingPoint, *, data: Dataset, grey: bool = True, device: str = "cpu"
) -> tuple[Network, dict[str, np.ndarray]]:
    """One classifier as its training leaves it, and what it has learnt; see `train_points`.

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
    """What each of several classifiers of one shape has learnt within the budget.

    Cross-entropy of the logits on grey images with values in [0, 1], each epoch in an order of its
    own; SGD without momentum, or Adam with its defaults, at the constant rate
    `learning_rate` / depth ** `rate_exponent`. With a `threshold` below 1 the accuracy on the test
    images is looked at after every `steps` // 10 steps, at least one, and a network that has
    reached it stops there. Several points are trained together, each as if it were alone.

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
    """The constant rate at which a point is trained: it falls with depth by the stated rule."""
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
    train = _examples(data, "train", first.train_images, grey, device)
    test = _examples(data, "test", first.test_images, grey, device)
    if len(train.labels.unique()) < 2:
        raise ValueError(
            f"training needs images of at least two classes; the {len(train.labels)} training "
            f"images of {data.name} are all of class {data.classes[int(train.labels[0])]!r}"
        )
    shape, classes = data.image_shape, len(data.classes)
    networks = [untrained(p, shape, classes, grey=grey).to(device) for p in points]
    clock = clock_of(device)
    begin = clock()
    ends, losses = _train(networks, points, train, test)
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
    networks: list[Network], points: Sequence[TrainingPoint], train: _Examples, test: _Examples
) -> tuple[list[_End], list[list[float]]]:
    """Where each network stops, and for every step the loss of each."""
    first, count = points[0], len(points)
    forward, parameters = _together(networks)
    update = _optimiser(parameters, first)
    orders = (_batches(len(train.labels), first.batch_size, point.seed) for point in points)
    every = max(1, first.steps // CHECKS)
    ends: dict[int, _End] = {}  # an end that was found earlier stands
    losses: list[list[float]] = []
    for step, batches in enumerate(islice(zip(*orders, strict=True), first.steps), start=1):
        batch = torch.stack(batches).to(train.labels.device)
        loss = _cross_entropies(forward(train.images[batch]), train.labels[batch])
        losses.append(loss.tolist())
        update.zero_grad()
        loss.sum().backward()
        update.step()
        broken = (i for i, value in enumerate(losses[-1]) if not math.isfinite(value))
        ends = {i: _End(step, math.nan) for i in broken} | ends
        if first.threshold < 1 and step % every == 0:
            found = enumerate(_accuracies(forward, test, count))
            ends = {i: _End(step, a) for i, a in found if a >= first.threshold} | ends
        if len(ends) == count:
            break
    if len(ends) < count:
        final = enumerate(_accuracies(forward, test, count))
        ends = {i: _End(len(losses), accuracy) for i, accuracy in final} | ends
    return [ends[i] for i in range(count)], losses


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
    return _Examples(data.floats(split, grey=grey, device=device)[:limit], labels.to(device))


def _together(networks: list[Network]) -> tuple[_Forward, list[Tensor]]:
    """Networks of one shape as one function, (k, n, *image_shape) to (k, n, classes), and all
    their parameters."""
    if len(networks) == 1:
        (network,) = networks
        return lambda images: network(images[0])[None], list(network.parameters())
    parameters, buffers = stack_module_state(networks)

    def one(parameters: Any, buffers: Any, images: Tensor) -> Tensor:
        return functional_call(networks[0], (parameters, buffers), (images,))

    return partial(torch.vmap(one), parameters, buffers), list(parameters.values())


def _optimiser(parameters: list[Tensor], point: TrainingPoint) -> torch.optim.Optimizer:
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[point.optimiser]
    return kind(parameters, lr=learning_rate(point), fused=True)


def _batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Numbers of images, `size` at a time, each epoch in a new order; a remainder is left out."""
    generator = random_numbers("batches", seed)
    size = min(size, count)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count // size * size].split(size)


def _cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean loss of each network: logits (k, n, classes), labels (k, n) to (k,)."""
    return nn.functional.cross_entropy(logits.mT, labels, reduction="none").mean(1)


@torch.no_grad()
def _accuracies(forward: _Forward, examples: _Examples, count: int) -> list[float]:
    """The accuracy of each network; NaN where an output is no finite number."""
    right = torch.zeros(count, dtype=torch.float64, device=examples.labels.device)
    for images, labels in zip(*(e.split(EVALUATED) for e in examples), strict=True):
        logits = forward(images.expand(count, *images.shape))
        right += (logits.argmax(-1) == labels).sum(-1) + 0 * logits.sum((-1, -2))
    return (right / len(examples.labels)).tolist()
