"""Networks that learn side by side in cycles of the rate, and the weights at every cycle's end."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paperlib.training.between import judged
from paperlib.training.loop import every, train
from paperlib.training.schedules import schedule
from paperlib.training.side_by_side import SideBySide, State, own_batches

PER_HALF = 10  # looks in a half cycle


class Log(NamedTuple):
    """What was seen of networks that learnt side by side, (look, network), and their weights."""

    rates: NDArray[Any]
    losses: NDArray[Any]
    accuracies: NDArray[Any]
    moved: NDArray[Any]  # since the look before, by the length of the weights then
    ends: list[list[State]]  # of each network, at the start and after every cycle

    def of(self, chosen: slice) -> "Log":
        """Return the same of some of the networks."""
        return Log(
            self.rates[:, chosen], self.losses[:, chosen], self.accuracies[:, chosen],
            self.moved[:, chosen], [end[chosen] for end in self.ends],
        )  # fmt: skip


def learn_in_cycles(
    module: nn.Module,
    states: Sequence[State],
    lessons: Any,
    test: Any,
    *,
    kind: str = "triangular",
    lows: Sequence[float],
    highs: Sequence[float],
    orders: Sequence[int],
    cycles: int,
    half: int,
    batch_size: int = 64,
    momentum: float = 0.0,
    decay: float = 0.0,
) -> Log:
    """Train networks side by side, each at rates and in an order of its own, and return what was
    seen of them.

    Args:
        module: that the states are of.
        states: of the networks at the start.
        lessons: images and labels.
        test: the same, on which accuracies are taken at every look.
        kind: of the schedule, see `training.schedules.cyclical_rates`.
        lows: the least rate of each.
        highs: the largest rate of each.
        orders: the seed of the order of images of each.
        cycles: how many.
        half: steps of half a cycle.
        batch_size: images per step.
        momentum: of SGD.
        decay: of the weights.
    """
    network = SideBySide(module, states, own=True).train()
    steps, apart = 2 * half * cycles, max(1, half // PER_HALF)
    optimiser = torch.optim.SGD(network.groups(lows), lr=0.1, momentum=momentum,
                                weight_decay=decay, fused=True)  # fmt: skip
    steered = schedule(kind, optimiser, steps, low=lows, high=highs, half_cycle=half)
    watch = _Watch(network, optimiser, test)
    losses = train(
        network, own_batches(*lessons, size=batch_size, seeds=orders),
        optimiser=optimiser, steps=steps, schedule=steered, rule=network.rule(),
        observers=[every(apart, watch.look), every(2 * half, watch.keep)],
    )  # fmt: skip
    for _ in range(len(losses), steps):  # where no loss was finite any more
        losses.append([math.nan] * len(states))
    for _ in range(len(watch.rates), steps // apart + 1):
        watch.look(steps, network)
    for _ in range(len(watch.ends), cycles + 1):
        watch.keep(steps, network)
    whole = np.array(losses)[: steps // apart * apart]
    means = whole.reshape(-1, apart, len(states)).mean(1)
    return Log(np.array(watch.rates), np.concatenate([whole[:1], means]),
               np.array(watch.accuracies), torch.stack(watch.moved).numpy(),
               watch.ends)  # fmt: skip


class _Watch:
    """Looks at networks while they learn, and keeps their weights."""

    def __init__(self, network: SideBySide, optimiser: torch.optim.Optimizer, test: Any) -> None:
        self.network, self.optimiser, self.test = network, optimiser, test
        self.rates: list[list[float]] = []
        self.accuracies: list[NDArray[Any]] = []
        self.moved: list[Tensor] = []
        self.ends: list[list[State]] = []
        self.last = network.weights()

    def look(self, _: int, __: nn.Module) -> None:
        self.rates.append([group["lr"] for group in self.optimiser.param_groups])
        self.network.own = False  # all are judged on the same images
        self.accuracies.append(judged(self.network.eval(), *self.test)[1])
        self.network.own = True
        self.network.train()
        now = self.network.weights()
        self.moved.append((now - self.last).norm(dim=1) / self.last.norm(dim=1))
        self.last = now

    def keep(self, _: int, __: nn.Module) -> None:
        self.ends.append([self.network.state(number) for number in range(self.network.count)])
