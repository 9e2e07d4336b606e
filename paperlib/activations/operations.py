"""Every operation of a model on a few samples, and one gradient: what a doctor listens to.

Functions and methods count as modules do: an addition in `forward` is an operation like a layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from paperlib.activations.calls import Stage, unfolded
from paperlib.activations.flow import Flow, Operation, cuts_of, tensors_in
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.tracing import _listening, run_once

ALONG = 64  # numbers that are compared along an axis, at least

Take = Callable[["Step", Tensor, tuple[Any, ...]], None]


@dataclass(frozen=True)
class Step:
    """One operation on numbers that depend on the input.

    Attributes:
        number: from 1; 0 is the input.
        name: torch's, without the `_` of those that write in place.
        layer: the dotted name of the innermost layer that was running; "" is the model's forward().
        parents: numbers of the operations whose results it reads.
        axis: of the result, that counts samples; None where no axis does.
        rows: of that axis, that belong to one sample.
        inner: of these, how many lie side by side; 0 is all of them.
    """

    number: int
    name: str
    layer: str
    parents: tuple[int, ...]
    axis: int | None
    rows: int
    inner: int = 0

    def samples(self, value: Tensor) -> Tensor | None:
        """Return the result as (n, *shape); None where no axis counts samples."""
        if self.axis is None:
            return None
        value = unfolded(value.movedim(self.axis, 0), self.rows, self.inner)
        return value if value.ndim > 1 else value[:, None]


@dataclass
class Record:
    """The operations of one run.

    Attributes:
        steps: in their order; the first is the input.
        layers: (layer, call, place) of what layers returned, to the number of its operation.
        sink: the number of the operation that made the model's result.
        shapes: of the results, by number.
    """

    steps: list[Step] = field(default_factory=list)
    layers: dict[tuple[str, int, int], int] = field(default_factory=dict)
    sink: int = -1
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)

    def node_of(self, stage: Stage) -> int:
        """Return the number of the operation that made what a stage is; -1 where there is none."""
        if stage.operation is None:
            return self.layers.get((stage.layer, stage.call, stage.place), -1)
        for node, operation in enumerate(self.operations):
            if (operation.operated, operation.place) == (stage.operation, stage.place):
                return node
        return -1

    @property
    def cuts(self) -> set[int]:
        """The operations that every path from the input to the result runs through."""
        return set(cuts_of(self.operations, self.sink)) if self.sink > 0 else set()


class _Listener(Flow):
    """Gives each new operation, and its result, to a function."""

    def __init__(self, source: Tensor, made: Callable[[int, Tensor, tuple[Any, ...]], None]):
        super().__init__(source)
        self._made = made

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = len(self.operations)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if len(self.operations) > before:
            seen: set[int] = set()
            for tensor in tensors_in([result, args]):
                node = self.node(tensor)
                if node >= before and node not in seen:
                    seen.add(node)
                    self._made(node, tensor, args)
        return result


@torch.no_grad()
def outline_of(model: nn.Module, inputs: Inputs) -> Record:
    """Return the operations of a model on three samples, by which others find the samples' axes.

    Args:
        model: in the mode in which it is to run, see `guard.untouched`.
        inputs: its arguments.

    Raises:
        ProbeError: the model stopped.
    """
    return _recorded(model, inputs, inputs.few(3), lambda *_: None, {}, {})


@torch.no_grad()
def operations_of(
    model: nn.Module,
    inputs: Inputs,
    values: Any,
    outline: Record,
    take: Take,
    *,
    folded: Mapping[int, int] | None = None,
) -> Record:
    """Run a model once on samples; call `take(step, result, arguments)` after each operation.

    Args:
        model: in the mode in which it is to run, see `guard.untouched`.
        inputs: whose arguments these are.
        values: the arguments of n samples, n not 3.
        outline: see `outline_of`.
        take: is given the result as torch returned it, and torch's arguments.
        folded: how many of a sample's rows lie side by side, by how many there are.

    Raises:
        ProbeError: the model stopped.
    """
    return _recorded(model, inputs, values, take, outline.shapes, folded or {})


def _recorded(
    model: nn.Module,
    inputs: Inputs,
    values: Any,
    take: Take,
    shapes: dict[int, tuple[int, ...]],
    folded: Mapping[int, int],
) -> Record:
    source, record, running = inputs.source_of(values), Record(), [""]

    def made(node: int, value: Tensor, arguments: tuple[Any, ...]) -> None:
        operation = flow.operations[node]
        axis, rows = _samples_of(tuple(value.shape), shapes, node, len(source))
        name = operation.name.rstrip("_") if not operation.name.startswith("_") else operation.name
        inner = folded.get(rows, 0)
        step = Step(node, name, running[-1], operation.parents, axis, rows, inner)
        record.steps.append(step)
        record.shapes[node] = tuple(value.shape)
        take(step, value, arguments)

    def ended(layer: str, call: int, outputs: Any) -> None:
        running.pop()
        for place, tensor in enumerate(tensors_in(outputs)):
            record.layers[layer, call, place] = flow.node(tensor)

    flow = _Listener(source, made)
    record.steps.append(Step(0, "input", "", (), 0, 1))
    record.shapes[0] = tuple(source.shape)
    run = runner(model)
    with _listening(model, ended, lambda layer, _: running.append(layer)), flow:
        result = run(values)
    found = [flow.node(t) for t in tensors_in(result) if t.is_floating_point()]
    record.operations = flow.operations
    record.sink = next((node for node in found if node > 0), -1)
    return record


def _samples_of(
    shape: tuple[int, ...], three: dict[int, tuple[int, ...]], node: int, count: int
) -> tuple[int | None, int]:
    """The axis that counts samples and how many of its rows belong to one, from two batches."""
    if node not in three or len(three[node]) != len(shape):
        return None, 1
    pairs = list(enumerate(zip(three[node], shape, strict=True)))
    different = [(axis, a, b) for axis, (a, b) in pairs if a != b]
    if len(different) != 1:
        return None, 1
    axis, a, b = different[0]
    return (axis, b // count) if a * count == b * 3 and b % count == 0 else (None, 1)


@torch.no_grad()
def entangled(model: nn.Module, inputs: Inputs, seed: int) -> str | None:
    """Return the first layer whose answer to one sample depends on another sample of the batch.

    Four samples run through the model twice, the second time with another one in the last place.
    Rows of a layer may be in another order then without that: an expert gets the tokens that are
    sent to it. So the layer, or one around it, must hold sample by sample what has changed.

    Raises:
        ProbeError: the model stopped.
    """
    before: dict[tuple[str, int, int], tuple[torch.Size, Tensor]] = {}
    found: list[str] = []
    by_sample: set[str] = set()  # of these, those with an axis of samples
    four, other = inputs.few(4), inputs.few(5)
    changed = tree_map(lambda a, b: torch.cat([a[:3], b[4:5]]), four, other)

    def first(layer: str, call: int, outputs: Any) -> None:
        for place, tensor in enumerate(tensors_in(outputs)):
            before[layer, call, place] = tensor.shape, _thinned(tensor.detach()).clone()

    def second(layer: str, call: int, outputs: Any) -> None:
        for place, tensor in enumerate(tensors_in(outputs)):
            shape, old = before.get((layer, call, place), (None, tensor))
            if shape == tensor.shape and _spread(shape, old, _thinned(tensor)):
                found.append(layer)
                if 4 in shape[:2]:
                    by_sample.add(layer)

    for values, record in ((four, first), (changed, second)):
        torch.manual_seed(seed)
        run_once(model, runner(model), values, record)
    around = (layer for layer in found if any(_holds(outer, layer) for outer in by_sample))
    return next(around, None)


def _holds(outer: str, layer: str) -> bool:
    """Whether a layer is this one or lies in it; the model itself is ""."""
    return outer in ("", layer) or layer.startswith(f"{outer}.")


def _thinned(tensor: Tensor) -> Tensor:
    """Every so many numbers along the long axes of a tensor: an odd one, as four samples may lie
    side by side."""
    return tensor[tuple(slice(None, None, size // ALONG | 1) for size in tensor.shape)]


def _spread(shape: torch.Size, old: Tensor, new: Tensor) -> bool:
    """Whether more than a quarter of every axis changed, of which one counts four samples.

    Args:
        shape: of both, before they were thinned.
    """
    if not old.is_floating_point() or not old.numel():
        return False
    scale = float(old.abs().max())
    moved = (old - new).abs() > 1e-4 * scale
    counted = [axis for axis, size in enumerate(shape) if size % 4 == 0]
    return bool(counted) and all(
        int(moved.movedim(axis, 0).reshape(old.shape[axis], -1).any(1).sum()) * 4 > old.shape[axis]
        for axis in counted
    )
