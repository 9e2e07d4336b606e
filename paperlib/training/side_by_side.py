"""Networks of one kind that learn side by side, each at a rate of its own."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from paperlib.core.replay import Replayed
from paperlib.training.loop import Rule, batches

State = Mapping[str, Tensor]
Loss = Callable[[Any, Tensor], Tensor]


class SideBySide(nn.Module):
    """Networks of one kind as one, from (n, …) to the outputs (k, n, …) of all of them.

    They run as one program where torch's vmap can make it one, else one after the other. The module
    that they are made from stays as it was.

    Attributes:
        parts: the parameters of each, for an optimiser; they share memory with `state`.
        own: whether each has batches of its own, (k, n, …), or all learn from the same.
    """

    def __init__(self, module: nn.Module, states: Sequence[State], *, own: bool = False) -> None:
        """Make a network of each state.

        Args:
            module: any module.
            states: as `state_of` gives them, of modules like this one.
            own: see above.
        """
        super().__init__()
        self.skeleton = copy.deepcopy(module)
        self.own, self.count = own, len(states)
        self._together: bool | None = None  # until it has been tried
        named = {name: p.requires_grad for name, p in module.named_parameters()}
        stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        self.learning = {n: stacked[n].requires_grad_(learns) for n, learns in named.items()}
        self.carried = {n: tensor for n, tensor in stacked.items() if n not in named}
        self.parts = [
            [nn.Parameter(t.data[i]) for t in self.learning.values() if t.requires_grad]
            for i in range(self.count)
        ]

    def state(self, number: int) -> dict[str, Tensor]:
        """Return a copy of all parameters and buffers of one of them."""
        both = {**self.learning, **self.carried}
        return {name: tensor[number].detach().clone() for name, tensor in both.items()}

    def weights(self) -> Tensor:
        """Return a copy of the parameters of each that learn, (k, numbers)."""
        return torch.cat([t.detach().flatten(1) for t in self.learning.values()], 1)

    def forward(self, images: Tensor) -> Tensor:
        if self._together is None:
            self._together = self._can_be_one(images)
        if self._together:
            return self._as_one(images)
        return torch.stack([
            functional_call(self.skeleton, self._slice(i), (images[i] if self.own else images,))
            for i in range(self.count)
        ])  # fmt: skip

    def _slice(self, number: int) -> dict[str, Tensor]:
        return {n: t[number] for n, t in (*self.learning.items(), *self.carried.items())}

    def _as_one(self, images: Tensor) -> Tensor:
        def one(learning: Any, carried: Any, images: Tensor) -> Any:
            return functional_call(self.skeleton, (learning, carried), (images,))

        axes = (0, 0 if self.carried else None, 0 if self.own else None)
        run = torch.vmap(one, in_dims=axes, randomness="different")
        return run(self.learning, self.carried, images)

    def _can_be_one(self, images: Tensor) -> bool:
        """Whether vmap takes the module; its buffers are as they were after the attempt."""
        kept = {name: tensor.clone() for name, tensor in self.carried.items()}
        try:
            with torch.no_grad():
                self._as_one(images)
        except Exception:  # whatever vmap cannot do with somebody's module
            return False
        finally:
            for name, tensor in kept.items():
                self.carried[name].copy_(tensor)
        return True

    def rule(self, loss: Loss = nn.functional.cross_entropy) -> Rule:
        """Return the rule by which `training.train` teaches them: backpropagation of each loss.

        Args:
            loss: from one network's outputs and the labels to a scalar.
        """

        def learn(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            losses, gradients = self._backpropagate(images, labels, loss)
            for number, part in enumerate(self.parts):
                for parameter, gradient in zip(part, gradients, strict=True):
                    parameter.grad = None if gradient is None else gradient[number]
            return losses

        return learn

    @property
    def stacked(self) -> list[Tensor]:
        """The parameters that learn, each of all networks as one, for an optimiser of one rate."""
        return [tensor for tensor in self.learning.values() if tensor.requires_grad]

    def stacked_rule(self, loss: Loss = nn.functional.cross_entropy) -> Rule:
        """Return the rule that leaves gradients in `stacked`; a GPU records it, see `Replayed`.

        Args:
            loss: from one network's outputs and the labels to a scalar.
        """
        stacked = self.stacked
        replayed = Replayed(lambda images, labels: self._backpropagate(images, labels, loss))

        def rule(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            losses, gradients = replayed(images, labels)
            for tensor, gradient in zip(stacked, gradients, strict=True):
                tensor.grad = gradient
            return losses

        return rule

    def _backpropagate(
        self, images: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The loss of each network, and the gradients that `stacked` has now."""
        stacked = self.stacked
        for tensor in stacked:
            tensor.grad = None
        losses = self.losses(self(images), labels, loss)
        losses.sum().backward()
        return losses.detach(), [tensor.grad for tensor in stacked]

    def losses(self, outputs: Tensor, labels: Tensor, loss: Loss) -> Tensor:
        """Return the loss of each network, (k,)."""
        own = labels if self.own else [labels] * self.count
        return torch.stack([loss(out, true) for out, true in zip(outputs, own, strict=True)])

    def groups(self, rates: Sequence[float]) -> list[dict[str, Any]]:
        """Return what an optimiser takes for each to learn at its own rate."""
        return [{"params": p, "lr": float(r)} for p, r in zip(self.parts, rates, strict=True)]


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers, also of buffers that are not saved."""
    both = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in both}


def own_batches(
    images: Tensor, labels: Tensor, *, size: int, seeds: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches (k, size, …) without end: for each network in the order of its own seed.

    Args:
        images: (n, *image_shape).
        labels: (n,).
        size: images per batch.
        seeds: one for each network, as `training.train` takes them.
    """
    for each in zip(*(batches(len(labels), size, seed) for seed in seeds), strict=True):
        chosen = torch.stack(each).to(labels.device)
        yield images[chosen], labels[chosen]
