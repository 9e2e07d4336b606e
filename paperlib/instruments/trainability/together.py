"""Networks of one shape that are trained side by side: what a GPU does faster than one by one."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from paperlib.core.replay import Replayed
from paperlib.instruments.trainability.trainings import (
    Looks,
    Training,
    as_fields,
    moments_of,
    optimiser_of,
)
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
    losses = torch.full((budget, len(networks)), torch.nan, device=lessons[0].device)
    going = list(range(len(networks)))
    group = _Group([state_of(network) for network in networks], networks[0], training)
    begin, looking, steps = time.perf_counter(), 0.0, [budget] * len(networks)
    feed = own_batches(*lessons, size=batch_size, seeds=seeds)
    for step in range(1, budget + 1):
        images, labels = next(feed)
        losses[step - 1, going] = group.learn(images[going], labels[going])
        if step not in moments and not any(step in each for each in ends):
            continue
        since = time.perf_counter()
        if step in moments:
            for number, logits in zip(going, group.outputs(test[0]), strict=True):
                looks[number].note(step, logits, test[1])
        looking += time.perf_counter() - since
        finite = losses[:step].isfinite().cpu().numpy()
        for number in list(going):
            if not finite[:, number].all():  # it stopped at the first loss that is not
                steps[number] = int(finite[:, number].argmin()) + 1
                looks[number].forget(after=steps[number])
            elif not looks[number].reaches(ends[number].get(step)):
                continue
            else:
                steps[number] = step
            going.remove(number)
        if not going:
            break
        group.keep(going)
    seconds = (time.perf_counter() - begin - looking) / len(networks)
    taken = losses.cpu().numpy().astype(float)
    for look in looks:
        look.seconds = looking / len(networks)
    return [
        as_fields(taken[: steps[i], i].tolist(), looks[i], moments, seconds)
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
        learning = [t for t in self.side.learning.values() if t.requires_grad]
        self.optimiser = optimiser_of(learning, self.training)
        self.learn = Replayed(self._step)

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        self.optimiser.zero_grad()
        losses = nn.functional.cross_entropy(
            self.side(images).flatten(0, 1), labels.flatten(), reduction="none"
        )
        losses = losses.view(len(labels), -1).mean(1)
        losses.sum().backward()
        self.optimiser.step()
        return losses.detach()

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
        for name, tensor in old.learning.items():
            self.optimiser.state[self.side.learning[name]] = {
                key: value[rows].clone() if value.ndim and len(value) == count else value.clone()
                for key, value in moments[tensor].items()
            }
        self.numbers = list(numbers)
