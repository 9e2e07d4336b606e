"""Calls of Linear layers, convolutions and norms, whose gradients are products of two factors.

A weight's gradient for one sample is a sum over positions and calls: the gradient with respect to
the output (the slope) times what went in, of norms in its own unit.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor, nn

AT_ONCE = 2**23  # numbers of gradients, or of what makes them, at a time: more leave the caches
PIECE, FEW = 1024, 256  # numbers of rows that are multiplied at a time, of at most so many rows
FACTORED: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS: tuple[type[nn.Module], ...] = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm,
)  # fmt: skip


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
    """Return all products (n, n) of rows (n, features) with each other, in float64.

    Products of few long rows are taken in short pieces side by side, in half the time.
    """
    rows = rows.detach()
    count, width = rows.shape
    pieces = width // PIECE if count <= FEW else 0
    rest = rows[:, pieces * PIECE :].double()
    found = rest @ rest.T
    for some in rows[:, : pieces * PIECE].split(8 * PIECE, dim=1):
        columns = some.double().unflatten(1, (-1, PIECE)).transpose(0, 1)
        found += (columns @ columns.mT).sum(0)
    return found


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


def joined(pieces: Sequence[Sequence[Gradients]]) -> list[Gradients]:
    """Return the gradients of all samples, in the order of the pieces; of each a list by goal."""
    if not all(isinstance(piece, Factored) for piece in pieces[0]):
        return [Dense(torch.cat([piece.rows() for piece in some])) for some in pieces]
    inputs = torch.cat([piece.inputs for piece in pieces[0]])  # type: ignore[union-attr]
    return [
        Factored(inputs, torch.cat([piece.slopes for piece in some]))  # type: ignore[union-attr]
        for some in pieces
    ]


def weight_gradients(
    layer: Any, calls: Sequence[Call], slopes: Sequence[Sequence[Tensor]]
) -> list[Gradients]:
    """Return the gradients of a layer's weight in the smaller of their two forms, by goal.

    Args:
        layer: one of FACTORED or NORMS.
        calls: all of them, with n samples each.
        slopes: for each goal, like the calls' outputs.
    """
    if isinstance(layer, NORMS):
        ready = [_in_its_unit(layer, call.inputs) for call in calls]
        return [
            _added(_summed(layer, s * x) for s, x in zip(some, ready, strict=True))
            for some in slopes
        ]
    pairs = zip(calls, slopes[0], strict=True)
    if layer.weight.numel() >= sum(c.inputs[0].numel() + s[0].numel() for c, s in pairs):
        inputs = torch.cat([input_rows(layer, call.inputs) for call in calls], 2)
        return [
            Factored(inputs, torch.cat([slope_rows(layer, s) for s in some], 2)) for some in slopes
        ]
    products = [
        _products_of(layer, call.inputs, some)
        for call, some in zip(calls, zip(*slopes, strict=True), strict=True)
    ]
    return [_added(some) for some in zip(*products, strict=True)]


def _products_of(layer: Any, inputs: Tensor, slopes: Sequence[Tensor]) -> list[Tensor]:
    """The gradients (n, numbers) by one call for each goal, a few samples at a time."""
    positions = slopes[0][0].numel() // len(layer.weight)
    size = max(1, AT_ONCE // (positions * layer.weight[0].numel() * _groups(layer)))
    found: list[list[Tensor]] = [[] for _ in slopes]
    for first in range(0, len(inputs), size):
        rows = input_rows(layer, inputs[first : first + size])
        for kept, some in zip(found, slopes, strict=True):
            kept.append(Factored(rows, slope_rows(layer, some[first : first + size])).rows())
    return [torch.cat(kept) for kept in found]


def bias_gradients(layer: Any, slopes: Sequence[Tensor]) -> Dense:
    """Return the gradients of a layer's bias, the sums of its slopes over positions and calls."""
    return _added(_summed(layer, some) for some in slopes)


def _added(rows: Iterable[Tensor]) -> Dense:
    return Dense(reduce(torch.add, rows))


def _summed(layer: Any, values: Tensor) -> Tensor:
    """What a layer returned, or its like, summed over positions, (n, units)."""
    if isinstance(layer, nn.Linear | nn.LayerNorm):
        units = layer.weight.numel() if isinstance(layer, nn.LayerNorm) else len(layer.weight)
        return values.reshape(len(values), -1, units).sum(1)
    return values.reshape(len(values), len(layer.weight), -1).sum(2)


def _in_its_unit(norm: Any, inputs: Tensor) -> Tensor:
    """What a norm makes of its inputs before its weight and bias."""
    if isinstance(norm, nn.LayerNorm):
        return nn.functional.layer_norm(inputs, norm.normalized_shape, None, None, norm.eps)
    if isinstance(norm, nn.GroupNorm):
        return nn.functional.group_norm(inputs, norm.num_groups, None, None, norm.eps)
    return nn.functional.batch_norm(
        inputs, norm.running_mean, norm.running_var, None, None, False, 0.0, norm.eps
    )


def _groups(layer: Any) -> int:
    return getattr(layer, "groups", 1)


def _squared(rows: Tensor) -> Tensor:
    return rows.double().square().sum(1)


def input_rows(layer: Any, inputs: Tensor) -> Tensor:
    """Return what went into a layer as the first factor of its weight's gradients, (n, g, p, i).

    The gradient of sample n is Σ_p slopes inputs for each group g, o rows of i numbers.

    Args:
        layer: one of FACTORED.
        inputs: (n, *) as they went into the layer.
    """
    if isinstance(layer, nn.Linear):
        return inputs.reshape(len(inputs), 1, -1, layer.in_features)
    axes = inputs.ndim - 2
    windows = _windows(layer, inputs).unflatten(1, (layer.groups, -1))  # n g c *positions *kernel
    return windows.movedim(2, 2 + axes).flatten(2, 1 + axes).flatten(3)


def slope_rows(layer: Any, slopes: Tensor) -> Tensor:
    """Return the slopes (n, *) of what a layer returned as the second factor, (n, g, p, o)."""
    if isinstance(layer, nn.Linear):
        return slopes.reshape(len(slopes), 1, -1, layer.out_features)
    return slopes.unflatten(1, (layer.groups, -1)).flatten(3).mT


def _windows(layer: Any, inputs: Tensor) -> Tensor:
    """What a convolution sees from each position, (n, channels, *positions, *kernel)."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    inputs = nn.functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    sizes = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    for axis, (size, stride, dilation) in enumerate(sizes, start=2):
        inputs = inputs.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return inputs
