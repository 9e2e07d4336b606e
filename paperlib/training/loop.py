"""The one loop in which networks learn.

Observers look at the network while it learns, a schedule changes the rate, and a rule sets the
gradients. All three are arguments: an experiment adds one of them and never edits the loop.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.core.checks import checked
from paperlib.core.seeds import random_numbers

Observer = Callable[[int, nn.Module], None]
Rule = Callable[[nn.Module, Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]


class StopTraining(Exception):
    """Raised by an observer: the training ends here, as it should."""


def train(
    network: nn.Module,
    data: Batch | Iterable[Batch],
    *,
    optimiser: torch.optim.Optimizer,
    steps: int | None = None,
    batch_size: int = 64,
    schedule: Any = None,
    rule: "Rule | None" = None,
    observers: Sequence[Observer] = (),
    seed: int = 0,
) -> list[Any]:
    """Train a network in place, and return the loss of every step.

    Training never fails: it ends early where no loss is finite any more.

    Example:
        >>> import torch
        >>> from paperlib import initialise, load_dataset, mlp
        >>> from paperlib.training import train
        >>> data = load_dataset("digits", limit=200)
        >>> network = mlp(data.image_shape, depth=2, width=50)
        >>> initialise(network, sigma_w2=1.7, sigma_b2=0.05, seed=0)
        >>> optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        >>> examples = data.floats("train"), data.labels("train")
        >>> losses = train(network, examples, optimiser=optimiser, steps=30)
        >>> len(losses), losses[-1] < losses[0]
        (30, True)

    Args:
        network: any module, in the mode in which it is to learn.
        data: images (n, *image_shape) and labels (n,), shuffled anew in every epoch; or batches of
            such pairs, in their own order.
        optimiser: of the network's parameters.
        steps: batches; None, with batches of one's own, is all of them.
        batch_size: images per batch, of images and labels.
        schedule: what has a `step()`, as torch.optim.lr_scheduler's have; called after each step.
        rule: from (network, images, labels) to the loss, a scalar or one per network that learns
            side by side; it leaves gradients in the parameters. None is backpropagation of the
            cross-entropy.
        observers: called as observer(step, network) with step 0 before the first batch, and after
            each one. One that raises StopTraining ends the training.
        seed: of the order of the images.

    Returns:
        a number, or a list of numbers where the rule returns several, for each step that was taken.

    Raises:
        ValueError: no steps for data that never end, or an argument out of range.
    """
    rule = rule or backpropagation
    losses: list[Any] = []
    try:
        _tell(observers, 0, network)
        for step, (images, labels) in enumerate(_feed(data, steps, batch_size, seed), start=1):
            optimiser.zero_grad()
            loss = rule(network, images, labels)
            optimiser.step()
            if schedule is not None:
                schedule.step()
            losses.append(loss.tolist())
            _tell(observers, step, network)
            if not any(map(math.isfinite, losses[-1] if loss.ndim else [losses[-1]])):
                break
    except StopTraining:
        pass
    return losses


def backpropagation(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Set the gradients of the mean cross-entropy of a batch, and return it.

    Example:
        >>> import torch
        >>> from paperlib import mlp
        >>> from paperlib.training import backpropagation
        >>> network = mlp((1, 4, 4), depth=1)
        >>> loss = backpropagation(network, torch.rand(8, 1, 4, 4), torch.arange(8))
        >>> loss.requires_grad, all(p.grad is not None for p in network.parameters())
        (False, True)
    """
    loss = nn.functional.cross_entropy(network(images), labels)
    loss.backward()
    return loss.detach()


def squared_error(network: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Set the gradients of half the squared error of outputs (n, outputs), a mean over samples and
    a sum over outputs, and return it.

    Example:
        >>> import torch
        >>> from paperlib.training import squared_error
        >>> network, targets = torch.nn.Linear(4, 2), torch.zeros(8, 2)
        >>> squared_error(network, torch.zeros(8, 4), targets).shape
        torch.Size([])
        >>> torch.equal(network.bias.grad, network.bias)  # half the square has the slope itself
        True
    """
    loss = (network(inputs) - targets).square().sum(1).mean() / 2
    loss.backward()
    return loss.detach()


def every(count: int, observer: Observer) -> Observer:
    """Return an observer that looks at step 0 and after every `count` steps.

    Example:
        >>> from paperlib.training import every
        >>> seen = []
        >>> observer = every(10, lambda step, network: seen.append(step))
        >>> for step in range(25):
        ...     observer(step, None)  # as `train` calls it
        >>> seen
        [0, 10, 20]
    """
    count = checked("count", count, int, low=1)
    return lambda step, network: None if step % count else observer(step, network)


def at(steps: Collection[int], observer: Observer) -> Observer:
    """Return an observer that looks after these numbers of steps only; 0 is before the first.

    Example:
        >>> from paperlib.training import at
        >>> seen = []
        >>> observer = at([0, 7], lambda step, network: seen.append(step))
        >>> for step in range(25):
        ...     observer(step, None)  # as `train` calls it
        >>> seen
        [0, 7]
    """
    chosen = {checked("steps", step, int, low=0) for step in steps}
    return lambda step, network: observer(step, network) if step in chosen else None


def batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield the numbers of images, `size` at a time, each epoch in a new order.

    A remainder at an epoch's end is left out. The order depends on the arguments alone, so that it
    can be gone through again after a training.

    Example:
        >>> from itertools import islice
        >>> from paperlib.training import batches
        >>> epoch = list(islice(batches(6, 2, seed=0), 3))
        >>> sorted(number for batch in epoch for number in batch.tolist())
        [0, 1, 2, 3, 4, 5]
    """
    generator = random_numbers("batches", seed)
    size = min(size, count)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count // size * size].split(size)


def _feed(
    data: Batch | Iterable[Batch], steps: int | None, batch_size: int, seed: int
) -> Iterator[Batch]:
    """The batches of a training."""
    if steps is not None:
        steps = checked("steps", steps, int, low=0)
    if not (isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor)):
        yield from itertools.islice(data, steps)
        return
    if steps is None:
        raise ValueError(
            "steps must say how many batches of images and labels to train on, got None"
        )
    images, labels = data
    batch_size = checked("batch_size", batch_size, int, low=1)
    for chosen in itertools.islice(batches(len(labels), batch_size, seed), steps):
        chosen = chosen.to(labels.device)
        yield images[chosen], labels[chosen]


def _tell(observers: Sequence[Observer], step: int, network: nn.Module) -> None:
    for observer in observers:
        observer(step, network)
