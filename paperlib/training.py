"""Classifiers that are really trained: what a prediction of trainability is measured against.

Training never fails: a network whose loss is no longer a number stops there and counts as one that
cannot be trained.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from paperlib.config import TrainingPoint
from paperlib.datasets import Dataset
from paperlib.networks import Network, random_numbers, untrained

CHECKS = 10  # of the accuracy, in equal parts of the budget, where training may stop early
EVALUATED = 1000  # images that pass through a network at a time

_Forward = Callable[[Tensor], Tensor]


def train_point(
    point: TrainingPoint, *, data: Dataset, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """What one classifier has learnt within its budget; see `train_points`."""
    return train_points([point], data=data, device=device)[0]


def train_points(
    points: Sequence[TrainingPoint], *, data: Dataset, device: str = "cpu"
) -> list[dict[str, np.ndarray]]:
    """What each of several classifiers of one shape has learnt within the budget.

    Cross-entropy of the logits on grey images with values in [0, 1], each epoch in an order of its
    own; SGD without momentum, or Adam with its defaults, at the constant rate
    `learning_rate` / depth ** `rate_exponent`. The accuracy on the test images is looked at ten
    times; a network that has reached `threshold` (below 1) stops there. Several points are trained
    together, each as if it were alone.

    Args:
        points: their settings, which may differ in variance and seed.
        data: the points' data set.
        device: "cpu" or "cuda".

    Returns:
        For each point `accuracy` () on the test images, 0 if it diverged; `loss` (), the mean over
        the last tenth of the steps taken, NaN without steps, infinite if it diverged; `steps` ()
        taken; `diverged` (), 1 if its loss or weights became infinite or NaN; `seconds` (), its
        share of CPU time (of the clock on a GPU).

    Raises:
        ValueError: points that differ in more, labels of one class only, or labels that do not
            number the classes.

    Source: arXiv:2406.12916, whose code applies softmax twice; this trains logits.
    """
    first = points[0]
    for point in points:
        if replace(point, sigma_w2=first.sigma_w2, seed=first.seed) != first:
            raise ValueError(
                "points trained together may differ in sigma_w2 and seed only; "
                f"got {first} and {point}"
            )
    images, labels = _examples(data, "train", first.train_images, device)
    test, expected = _examples(data, "test", first.test_images, device)
    if len(labels.unique()) < 2:
        raise ValueError(
            f"training needs images of at least two classes; the {len(labels)} training images of "
            f"{data.name} are all of class {data.classes[int(labels[0])]!r}"
        )
    networks = [untrained(p, data.image_shape, len(data.classes)).to(device) for p in points]
    clock = time.process_time if device == "cpu" else time.perf_counter
    begin = clock()
    forward, parameters = _together(networks)
    update = _optimiser(parameters, first)
    batches = zip(*(_batches(len(labels), first.batch_size, p.seed) for p in points), strict=True)
    ends: list[_End | None] = [None] * len(points)
    losses: list[list[float]] = []
    every = max(1, first.steps // CHECKS)
    for step in range(1, first.steps + 1):
        batch = torch.stack(next(batches)).to(device)
        loss = _cross_entropies(forward(images[batch]), labels[batch])
        losses.append(loss.tolist())
        update.zero_grad()
        loss.sum().backward()
        update.step()
        found: list[float | None] = [None] * len(points)
        if first.threshold < 1 and step % every == 0:
            found = list(_accuracies(forward, test, expected, len(points)))
        for i, (value, accuracy) in enumerate(zip(losses[-1], found, strict=True)):
            if ends[i] is None and not math.isfinite(value):
                ends[i] = _End(step, math.nan)
            elif ends[i] is None and accuracy is not None and accuracy >= first.threshold:
                ends[i] = _End(step, accuracy)
        if None not in ends:
            break
    if None in ends:
        final = _accuracies(forward, test, expected, len(points))
        ends = [end or _End(len(losses), a) for end, a in zip(ends, final, strict=True)]
    seconds = (clock() - begin) / len(points)
    return [_arrays(end, [row[i] for row in losses], seconds) for i, end in enumerate(ends) if end]


def learning_rate(point: TrainingPoint) -> float:
    """The constant rate at which a point is trained: it falls with depth by the stated rule."""
    return point.learning_rate / point.depth**point.rate_exponent


class _End(NamedTuple):
    """Where a network stopped: after how many steps, with which accuracy (NaN: it diverged)."""

    steps: int
    accuracy: float


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


def _examples(data: Dataset, split: str, limit: int, device: str) -> tuple[Tensor, Tensor]:
    """At most `limit` images of a split as floats, and their labels, checked."""
    labels = (data.train_labels if split == "train" else data.test_labels)[:limit]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(data.classes):
        raise ValueError(
            f"the {split} labels of {data.name} must number its {len(data.classes)} classes from "
            f"0 to {len(data.classes) - 1}, got {low} … {high}"
        )
    return data.floats(split, device=device)[:limit], labels.to(device)


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
def _accuracies(forward: _Forward, images: Tensor, labels: Tensor, count: int) -> list[float]:
    """The accuracy of each network; NaN where an output is no finite number."""
    right = torch.zeros(count, device=images.device)
    for some, theirs in zip(images.split(EVALUATED), labels.split(EVALUATED), strict=True):
        logits = forward(some.expand(count, *some.shape))
        right += (logits.argmax(-1) == theirs).sum(-1) + 0 * logits.sum((-1, -2))
    return (right / len(labels)).tolist()
