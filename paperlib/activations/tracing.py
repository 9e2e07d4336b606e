"""Where a model can be cut: the calls of its layers, and the tensors that every path runs through.

One run of a small batch is recorded operation by operation, whether modules, functions or methods
compute them. A layer's output is a cut if every path from the input to the output runs through it.
So skip connections, concatenations and attention need no rules of their own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.activations.flow import CENTRED, Flow, Operation, between, cuts_of, mixes, tensors_in
from paperlib.core.checks import quoted

Run = Callable[[Any], Any]
Layers = str | Sequence[str] | Callable[[str, nn.Module], bool]


@dataclass(frozen=True)
class Stage:
    """What one call of a layer returned, as a place where a model is looked at.

    Attributes:
        name: the layer's, with `#2` for its second call and `[1]` for the second tensor it returns.
        layer: its dotted name; the model itself is "".
        call: which call of it, from 0.
        place: which of the tensors that it returns, from 0.
        shape: of one sample.
        axis: of the batch; `rows` of them belong to one sample.
        cut: whether every path from the input to the output runs through it.
        bounded: whether its values have a natural unit, as those of tanh do.
    """

    name: str
    layer: str
    call: int
    place: int
    shape: tuple[int, ...]
    axis: int
    rows: int
    cut: bool
    bounded: bool

    def samples(self, value: Tensor) -> Tensor:
        """The tensor (n, *shape) of what the layer returned for n samples."""
        value = value.movedim(self.axis, 0)
        return value if self.rows == 1 else value.unflatten(0, (-1, self.rows))


@dataclass(frozen=True)
class _Call:
    """One tensor that one call of a layer returned."""

    layer: str
    call: int
    place: int
    shape: tuple[int, ...]
    begin: int  # operations before the call
    node: int  # the operation that made the tensor, -1: nothing that depends on the input
    order: int


class ProbeError(ValueError):
    """A model that cannot be probed; the message names the layer and the shape."""


@contextmanager
def _listening(
    model: nn.Module, ended: Callable[[str, int, Any], None], begun: Callable[[str, Any], None]
) -> Iterator[None]:
    """Hooks on every layer: `begun(layer, inputs)` and `ended(layer, call, outputs)`."""
    names = {id(module): name for name, module in model.named_modules()}
    calls: dict[str, int] = {}
    handles: list[Any] = []

    def before(module: nn.Module, inputs: Any) -> None:
        begun(names[id(module)], inputs)

    def after(module: nn.Module, inputs: Any, outputs: Any) -> None:
        name = names[id(module)]
        calls[name] = calls.get(name, -1) + 1
        ended(name, calls[name], outputs)

    try:
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_once(
    model: nn.Module, run: Run, inputs: Any, record: Callable[[str, int, Any], None]
) -> Any:
    """Run a model and return its result; call `record` with every layer's call and its outputs.

    Raises:
        ProbeError: the model stopped; names the innermost layer that was running.
    """
    inside: list[tuple[str, Any]] = []

    def ended(layer: str, call: int, outputs: Any) -> None:
        inside.pop()
        record(layer, call, outputs)

    with _listening(model, ended, lambda layer, given: inside.append((layer, given))):
        try:
            return run(inputs)
        except ProbeError:
            raise
        except Exception as error:
            layer, given = inside[-1] if inside else ("", ())
            shapes = ", ".join(str(tuple(t.shape)) for t in tensors_in(given)) or "no tensor"
            raise ProbeError(
                f"the model stopped in {_title(layer)}, which was given {shapes}: "
                f"{type(error).__name__}: {error}; images go in as they are, (batch, *shape)"
            ) from error


@torch.no_grad()
def stages_of(
    model: nn.Module, run: Run, examples: tuple[Any, Any], source: Tensor, layers: Layers
) -> list[Stage]:
    """Return the stages at which a model is looked at, in the order in which they end.

    Args:
        model: in evaluation mode.
        run: calls it with one of the examples.
        examples: inputs of two and of three samples, which tell the axis of the batch.
        source: the tensor in the first example that is to be reconstructed.
        layers: "auto" (every cut, but one for a run of operations that mix nothing), dotted names,
            or a function of name and module.

    Raises:
        ProbeError: no layer matched, a layer has no axis of samples, or the model stopped.
    """
    calls, flow, sink = recorded(model, run, examples[0], source)
    cuts = cuts_of(flow.operations, sink)
    shapes: dict[tuple[str, int, int], tuple[int, ...]] = {}

    def record(layer: str, call: int, outputs: Any) -> None:
        for place, tensor in enumerate(tensors_in(outputs)):
            shapes[layer, call, place] = tuple(tensor.shape)

    run_once(model, run, examples[1], record)
    if layers == "auto":
        chosen = _automatic(calls, flow.operations, cuts) or _last(calls)
    else:
        chosen = _chosen(calls, model, layers)
    ends = [call.node for call in chosen if call.node in cuts]
    begins = dict(zip(ends, [0, *ends], strict=False))
    stages = []
    for call in chosen:
        batch = _batch_axis(call.shape, shapes.get((call.layer, call.call, call.place), ()))
        if batch is None and layers == "auto":
            continue
        if batch is None:
            raise ProbeError(
                f"{_title(call.layer)} returns {call.shape} for two images, in which no axis "
                "counts the images; leave it out of layers"
            )
        segment = between(flow.operations, cuts, begins.get(call.node, call.node), call.node)
        stages.append(_stage(call, *batch, cut=call.node in cuts, segment=segment))
    if not stages:
        raise ProbeError("no layer returns anything that depends on the images, sample by sample")
    return stages


def recorded(
    model: nn.Module, run: Run, example: Any, source: Tensor
) -> tuple[list[_Call], Flow, int]:
    """Every tensor that a layer returned, the flow of numbers, and the model's result in it.

    Raises:
        ProbeError: the model stopped, or its output does not depend on the source.
    """
    flow = Flow(source)
    calls: list[_Call] = []
    begins: list[int] = []

    def record(layer: str, call: int, outputs: Any) -> None:
        begin = begins.pop()
        for place, tensor in enumerate(tensors_in(outputs)):
            if tensor.is_floating_point():
                shape, node = tuple(tensor.shape), flow.node(tensor)
                calls.append(_Call(layer, call, place, shape, begin, node, len(calls)))

    def counted(value: Any) -> Any:
        with flow:
            return run(value)

    with _listening(model, lambda *_: None, lambda *_: begins.append(len(flow.operations))):
        result = run_once(model, counted, example, record)
    found = [flow.node(t) for t in tensors_in(result) if t.is_floating_point()]
    sink = next((node for node in found if node > 0), -1)
    if sink < 0:
        raise ProbeError(
            "the model's output holds no floating-point tensor that depends on the images; a "
            "probe needs a model whose forward() returns one, alone or in a tuple, a dict or a "
            "dataclass"
        )
    return calls, flow, sink


def _automatic(
    calls: list[_Call], operations: list[Operation], cuts: dict[int, int]
) -> list[_Call]:
    """One call for every cut, less those between which nothing is mixed."""
    ends = sorted({call.node for call in calls if call.node in cuts})
    kept: list[int] = []
    for node in ends:
        before = kept[-1] if kept else 0
        segment = between(operations, cuts, before, node)
        if any(mixes(operation.name) for operation in segment):
            kept.append(node)
        elif kept:
            kept[-1] = node
    kept = kept or ends[-1:]
    return [_named(node, [c for c in calls if c.node == node], kept) for node in kept]


def _named(node: int, calls: list[_Call], kept: list[int]) -> _Call:
    """The outermost of the calls that returned a tensor, of those within one stage if any is; not
    one that only passed it on."""
    first = calls[0]
    calls = [call for call in calls if call.begin <= first.begin and call.shape == first.shape]
    whole = [call for call in calls if call.layer and not any(call.begin <= k < node for k in kept)]
    return max(whole or [c for c in calls if c.layer][:1] or calls, key=lambda call: call.order)


def _last(calls: list[_Call]) -> list[_Call]:
    """What the model itself returned first."""
    return [call for call in calls if not call.layer and call.node > 0][:1]


def _chosen(calls: list[_Call], model: nn.Module, layers: Layers) -> list[_Call]:
    """The calls of layers by name or rule, in the order in which they end; none twice."""
    modules = dict(model.named_modules())
    if isinstance(layers, str):
        layers = [layers]
    if callable(layers):
        rule = layers
        try:
            wanted = {name for name, module in modules.items() if rule(name, module)}
        except Exception as error:
            raise ProbeError(
                f"the function layers={quoted(rule)} stopped ({type(error).__name__}: {error}); it "
                "is called with a name and a module, and says whether to look there"
            ) from error
    else:
        wanted = {name.partition("#")[0] for name in layers}
        unknown = sorted(wanted - modules.keys())
        if unknown:
            known = ", ".join(list(modules)[1:9])
            raise ProbeError(
                f"the model has no layer {unknown[0]!r}; its layers are {known}"
                f"{', …' if len(modules) > 9 else ''} (see model.named_modules())"
            )
    numbered = {name for name in layers if "#" in name} if not callable(layers) else set()
    found: dict[int, _Call] = {}
    for call in calls:
        exact = any(name.partition("#")[0] == call.layer for name in numbered)
        if call.layer in wanted and call.node > 0 and (not exact or _title_of(call) in numbered):
            found.setdefault(call.node, call)
    if not found:
        raise ProbeError(
            "layers: no layer matched that is called and returns a tensor that depends on the "
            "images; give layers='auto', dotted names as in model.named_modules(), or a function "
            "of name and module"
        )
    return [found[node] for node in sorted(found)]


def _stage(call: _Call, axis: int, rows: int, *, cut: bool, segment: list[Operation]) -> Stage:
    bounded = segment[-1].bounded
    joined = any(op.name.rstrip("_") == "add" and len(op.parents) > 1 for op in segment)
    if joined:  # a residual block of tanh has tanh's unit
        bounded = bounded or any(op.name.rstrip("_") in CENTRED for op in segment)
    rest = [size for place, size in enumerate(call.shape) if place != axis]
    shape = tuple(rest if rows == 1 else [rows, *rest])
    name = (_title_of(call) or "output") + (f"[{call.place}]" if call.place else "")
    return Stage(name, call.layer, call.call, call.place, shape, axis, rows, cut, bounded)


def _title_of(call: _Call) -> str:
    return call.layer + (f"#{call.call + 1}" if call.call else "")


def _title(layer: str) -> str:
    return f"layer {layer!r}" if layer else "its own forward()"


def _batch_axis(two: tuple[int, ...], three: tuple[int, ...]) -> tuple[int, int] | None:
    """The axis that counts samples, and how many of it belong to each, from two sizes of batch."""
    if len(two) != len(three):
        return None
    different = [axis for axis, (a, b) in enumerate(zip(two, three, strict=True)) if a != b]
    if len(different) != 1 or two[different[0]] * 3 != three[different[0]] * 2:
        return None
    return different[0], two[different[0]] // 2
