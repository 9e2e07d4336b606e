"""Networks of one shape that are trained side by side: what a GPU does faster than one by one."""

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from paperlib.instruments.trainability.trainings import (
    Looks,
    Training,
    as_fields,
    moments_of,
    optimiser_of,
)
from paperlib.training import train
from paperlib.training.side_by_side import SideBySide, own_batches, state_of


def trained_together(
    networks: Sequence[nn.Module],
    training: Training,
    lessons: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    budget: int,
    batch_size: int = 32,
    seeds: Sequence[int],
    ends: Sequence[Mapping[int, float]],
) -> list[dict[str, np.ndarray]]:
    """Train copies of networks of one shape, and return for each what `trained` does.

    Every network learns as if it were alone: it has its own batches, and leaves when its training
    has ended.

    Args:
        networks: at least one; they stay as they are.
        training, lessons, test, budget, batch_size: see `trainings.trained`.
        seeds: of the order of the images, one for each network.
        ends: for each network, see `trainings.trained`.
    """
    moments = moments_of(budget)
    looks = [Looks() for _ in networks]
    losses = np.full((budget, len(networks)), np.nan)
    going, steps = list(range(len(networks))), [budget] * len(networks)
    group = _Group([state_of(network) for network in networks], networks[0], training)
    feed = own_batches(*lessons, size=batch_size, seeds=seeds)
    seconds = looking = 0.0
    for done, mark in pairwise([0, *sorted({*moments, *(step for each in ends for step in each)})]):
        begin = time.perf_counter()
        taken = group.train(((x[going], y[going]) for x, y in feed), mark - done)
        losses[done : done + len(taken), going] = taken
        since = time.perf_counter()
        if mark in moments:
            for number, logits in zip(going, group.outputs(test[0]), strict=True):
                looks[number].note(mark, logits, test[1])
        seconds, looking = seconds + since - begin, looking + time.perf_counter() - since
        finite = np.isfinite(losses[:mark])
        for number in list(going):
            if not finite[:, number].all():  # it stopped at the first loss that is not
                steps[number] = int(finite[:, number].argmin()) + 1
                looks[number].forget(after=steps[number])
            elif not looks[number].reaches(ends[number].get(mark)):
                continue
            else:
                steps[number] = mark
            going.remove(number)
        if not going:
            break
        group.keep(going)
    for look in looks:
        look.seconds = looking / len(networks)
    return [
        as_fields(losses[: steps[i], i].tolist(), looks[i], moments, seconds / len(networks))
        for i in range(len(networks))
    ]


class _Group:
    """Networks that learn side by side until they are left out."""

    def __init__(self, states: Sequence[Mapping[str, Tensor]], like: nn.Module, training: Training):
        self.numbers = list(range(len(states)))
        self.training = training
        self._build(states, like)

    def _build(self, states: Sequence[Mapping[str, Tensor]], like: nn.Module) -> None:
        self.side = SideBySide(like, states, own=True).train()
        self.optimiser = optimiser_of(self.side.stacked, self.training)
        self.rule = self.side.stacked_rule()

    def train(self, feed: Iterable[tuple[Tensor, Tensor]], steps: int) -> list[list[float]]:
        """Return the losses of each network in every step that was taken."""
        return train(self.side, feed, optimiser=self.optimiser, steps=steps, rule=self.rule)

    @torch.no_grad()
    def outputs(self, images: Tensor) -> Tensor:
        """Return the outputs (k, n, classes) of all of them in evaluation mode."""
        found: Tensor = self.side.eval()(images.expand(self.side.count, *images.shape))
        self.side.train()
        return found

    def keep(self, numbers: Sequence[int]) -> None:
        """Go on with these of the networks, as they and their optimiser's moments are."""
        if list(numbers) == self.numbers:
            return
        rows = [self.numbers.index(number) for number in numbers]
        old, moments, count = self.side, self.optimiser.state, self.side.count
        self._build([old.state(row) for row in rows], old.skeleton)
        for before, now in zip(old.stacked, self.side.stacked, strict=True):
            self.optimiser.state[now] = {
                key: value[rows].clone() if value.ndim and len(value) == count else value.clone()
                for key, value in moments[before].items()
            }
        self.numbers = list(numbers)
