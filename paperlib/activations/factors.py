"""Calls of Linear layers and convolutions, whose gradients are products of two factors.

A weight's gradient for one sample is a sum over positions and calls: the gradient with respect to
the output (the slope) times what went in.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor, nn

AT_ONCE = 2**24  # numbers of gradients, or of what makes them, that are held besides the result
FACTORED: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Call:
    """What went into one call of a layer, and what came out, in autograd's graph."""

    layer: Any
    inputs: Tensor
    outputs: Tensor

    @cached_property
    def gram(self) -> Tensor:
        """The products (n, n) of what went in, float64."""
        return gram(self.inputs)


@contextmanager
def recorded_calls(layers: Iterable[nn.Module]) -> Iterator[list[Call]]:
    """Record every call of these layers into a list; no hook is left afterwards."""
    calls: list[Call] = []

    def record(layer: nn.Module, inputs: Any, named: Any, outputs: Tensor) -> Tensor:
        given = inputs[0] if inputs else named["input"]
        calls.append(Call(layer, given.detach(), outputs))
        return outputs.clone()  # a later layer may write into it, which moves its gradient

    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_hook(record, with_kwargs=True))
        yield calls


def slopes_of(total: Tensor, calls: Sequence[Call]) -> list[Tensor]:
    """Return the gradients of a sum over samples with respect to the outputs of calls."""
    return gradients(total, [call.outputs for call in calls])


def linear_grams(total: Tensor, calls: Sequence[Call]) -> Iterator[Tensor]:
    """Yield the Gram matrix (n, n) that each call of a Linear layer adds to that of all gradients.

    That is (inputs · inputs′ + 1) (slopes · slopes′), without the 1 where there is no bias.

    Args:
        total: the sum over samples whose gradients are meant; can be differentiated again.
        calls: of Linear layers on (n, features), each layer called once.
    """
    for call, slopes in zip(calls, slopes_of(total, calls), strict=True):
        yield (call.gram + (call.layer.bias is not None)) * gram(slopes)


def gradients(total: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of a scalar, zero where it does not depend on a tensor."""
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    found: Iterator[Tensor] = iter(())
    if wanted and total.requires_grad:
        found = iter(
            torch.autograd.grad(
                total, wanted, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        )
    return [
        next(found) if t.requires_grad and total.requires_grad else torch.zeros_like(t)
        for t in tensors
    ]


def gram(rows: Tensor) -> Tensor:
    """Return all products (n, n) of rows (n, features) with each other, in float64."""
    rows = rows.detach().double()
    return rows @ rows.T


@dataclass(frozen=True)
class Dense:
    """Gradients of n samples as they are, (n, numbers)."""

    values: Tensor

    @property
    def held(self) -> int:
        """How many numbers are held."""
        return self.values.numel()

    def rows(self) -> Tensor:
        """Return the gradients, (n, numbers)."""
        return self.values

    def gram(self) -> Tensor:
        """Return their products with each other, (n, n) in float64."""
        return reduce(torch.add, map(gram, self._blocks()))

    def squared(self) -> Tensor:
        """Return their squared lengths, (n,) in float64."""
        return reduce(torch.add, map(_squared, self._blocks()))

    def _blocks(self) -> Iterable[Tensor]:
        return self.values.split(max(1, AT_ONCE // len(self.values)), dim=1)


@dataclass(frozen=True)
class Factored:
    """Gradients of n samples as factors: inputs (n, g, p, i) and slopes (n, g, p, o)."""

    inputs: Tensor
    slopes: Tensor

    @property
    def held(self) -> int:
        """How many numbers are held."""
        return self.inputs.numel() + self.slopes.numel()

    def rows(self) -> Tensor:
        """Return the gradients, (n, g o i)."""
        return self._products(self.slopes)

    def gram(self) -> Tensor:
        """Return their products with each other, (n, n) in float64."""
        if self.inputs.shape[2] == 1:  # for one position, the product of the factors' products
            pairs = zip(self.inputs.unbind(1), self.slopes.unbind(1), strict=True)
            return reduce(torch.add, (gram(i.flatten(1)) * gram(s.flatten(1)) for i, s in pairs))
        return reduce(torch.add, map(gram, self._blocks()))

    def squared(self) -> Tensor:
        """Return their squared lengths, (n,) in float64."""
        return reduce(torch.add, map(_squared, self._blocks()))

    def _blocks(self) -> Iterator[Tensor]:
        count, groups, _, width = self.inputs.shape
        for some in self.slopes.split(max(1, AT_ONCE // (count * groups * width)), dim=3):
            yield self._products(some)

    def _products(self, slopes: Tensor) -> Tensor:
        return torch.einsum("ngpo,ngpi->ngoi", slopes, self.inputs).flatten(1)


Gradients = Dense | Factored


def joined(pieces: Sequence[Gradients]) -> Gradients:
    """Return the gradients of all samples, in the order of the pieces."""
    factored = [piece for piece in pieces if isinstance(piece, Factored)]
    if len(factored) < len(pieces):
        return Dense(torch.cat([piece.rows() for piece in pieces]))
    inputs, slopes = ([getattr(p, name) for p in factored] for name in ("inputs", "slopes"))
    return Factored(torch.cat(inputs), torch.cat(slopes))


def weight_gradients(layer: Any, calls: Sequence[Call], slopes: Sequence[Tensor]) -> Gradients:
    """Return the gradients of a layer's weight in the smaller of their two forms.

    Args:
        layer: one of FACTORED.
        calls: all of them, with n samples each.
        slopes: like the calls' outputs.
    """
    pairs = list(zip((call.inputs for call in calls), slopes, strict=True))
    if layer.weight.numel() >= sum(i[0].numel() + s[0].numel() for i, s in pairs):
        rows = [rows_of(layer, *pair) for pair in pairs]
        return Factored(*(torch.cat(some, 2) for some in zip(*rows, strict=True)))
    return Dense(reduce(torch.add, (_products_of(layer, *pair) for pair in pairs)))


def _products_of(layer: Any, inputs: Tensor, slopes: Tensor) -> Tensor:
    """The gradients (n, numbers) by one call, a few samples at a time."""
    positions = slopes[0].numel() // len(layer.weight)
    size = max(1, AT_ONCE // (positions * layer.weight[0].numel() * _groups(layer)))
    pairs = zip(inputs.split(size), slopes.split(size), strict=True)
    return torch.cat([Factored(*rows_of(layer, *pair)).rows() for pair in pairs])


def bias_gradients(layer: Any, slopes: Sequence[Tensor]) -> Dense:
    """Return the gradients of a layer's bias, the sums of its slopes over positions and calls."""
    axis = -1 if isinstance(layer, nn.Linear) else 1
    sums = (s.movedim(axis, 1).reshape(len(s), len(layer.bias), -1).sum(2) for s in slopes)
    return Dense(reduce(torch.add, sums))


def _groups(layer: Any) -> int:
    return getattr(layer, "groups", 1)


def _squared(rows: Tensor) -> Tensor:
    return rows.double().square().sum(1)


def rows_of(layer: Any, inputs: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factors of a weight's gradients as inputs (n, g, p, i) and slopes (n, g, p, o).

    The gradient of sample n is Σ_p slopes inputs for each group g, o rows of i numbers.

    Args:
        layer: one of FACTORED.
        inputs: (n, *) as they went into the layer.
        slopes: (n, *) like what came out.
    """
    if isinstance(layer, nn.Linear):
        count = len(inputs)
        return (
            inputs.reshape(count, 1, -1, layer.in_features),
            slopes.reshape(count, 1, -1, layer.out_features),
        )
    axes = inputs.ndim - 2
    windows = _windows(layer, inputs).unflatten(1, (layer.groups, -1))  # n g c *positions *kernel
    windows = windows.movedim(2, 2 + axes).flatten(2, 1 + axes).flatten(3)
    return windows, slopes.unflatten(1, (layer.groups, -1)).flatten(3).mT


def _windows(layer: Any, inputs: Tensor) -> Tensor:
    """What a convolution sees from each position, (n, channels, *positions, *kernel)."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    inputs = nn.functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    sizes = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    for axis, (size, stride, dilation) in enumerate(sizes, start=2):
        inputs = inputs.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return inputs
