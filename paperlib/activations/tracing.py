"""Where a model can be cut: the calls of its layers, and the tensors that every path runs through.

One run of a small batch is recorded operation by operation, whether modules, functions or methods
compute them. A layer's output is a cut if every path from the input to the output runs through it.
So skip connections, concatenations and attention need no rules of their own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.activations.calls import Called, Layers, ProbeError, Recorded, Run, Stage, title
from paperlib.activations.cutting import Choice, Cuts, chosen_by, numbered
from paperlib.activations.flow import (
    CENTRED,
    Flow,
    Operation,
    Reading,
    cuts_of,
    nodes_between,
    tensors_in,
    weighs,
)

__all__ = ["Called", "Layers", "ProbeError", "Run", "Stage", "output_of", "run_once", "stages_of"]

MOST = 0.9  # of the weights that lead to any part of the output
Tensors = dict[Any, Tensor]  # of a run, by what made them and their place


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
                f"the model stopped in {title(layer)}, which was given {shapes}: "
                f"{type(error).__name__}: {error}; images go in as they are, (batch, *shape)"
            ) from error


@contextmanager
def replaced(model: nn.Module, called: Called, value: Tensor) -> Iterator[None]:
    """A model in which one call of a layer returns this tensor instead of its own."""
    calls = 0

    def instead(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        nonlocal calls
        calls += 1
        return value if calls == called.call + 1 else None

    handle = model.get_submodule(called.layer).register_forward_hook(instead)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def called_with(
    model: nn.Module, run: Run, example: Any, value: Tensor, kind: type[nn.Module]
) -> Called | None:
    """Return the first call of a layer of a kind whose input is this tensor, for each sample a
    vector for each of its numbers; None where there is none."""
    found: list[Called] = []
    kinds = {name for name, module in model.named_modules() if isinstance(module, kind)}
    given: list[Any] = []

    def ended(layer: str, call: int, outputs: Any) -> None:
        inputs = given.pop()
        first = next(tensors_in(inputs), None)
        if layer in kinds and first is not None and first.shape == value.shape:
            made = next(tensors_in(outputs), None)
            shaped = made is not None and made.shape[:-1] == value.shape
            if shaped and torch.equal(first, value):
                found.append(Called(layer, call))

    with (
        suppress(Exception),  # what a model does not take has no words that it looks up
        _listening(model, ended, lambda layer, inputs: given.append(inputs)),
    ):
        run(example)
    return found[0] if found else None


@torch.no_grad()
def stages_of(
    model: nn.Module,
    run: Run,
    examples: tuple[Any, Any],
    source: Tensor,
    layers: Layers,
    *,
    operations: bool = False,
    changed: Any = None,
) -> list[Stage]:
    """Return the stages at which a model is looked at, in the order in which they end.

    Args:
        model: in evaluation mode.
        run: calls it with one of the examples.
        examples: inputs of two and of three samples, which tell the axis of the batch.
        source: the tensor in the first example that is to be reconstructed.
        layers: "auto" (every cut, but one for a run of operations that mix nothing), dotted names,
            or a function of name and module.
        operations: with "auto", also look between the operations of stages that hold many weights,
            beside their paths, and at what is cut off before the next weights.
        changed: the second example with another second sample, which tells how the samples of a
            folded batch lie; None takes them one after the other.

    Raises:
        ProbeError: no layer matched, a layer has no axis of samples, or the model stopped.
    """
    calls, flow, sink = recorded(model, run, examples[0], source)
    cuts = Cuts(calls, flow.operations, cuts_of(flow.operations, sink), _recurrent(model))
    if layers == "auto":
        any_cut = any(call.node in cuts.cuts for call in calls)
        chosen = cuts.automatic(narrowing=operations) if any_cut else []
        chosen = cuts.opened(chosen) if operations else chosen
        chosen = chosen or [call for call in calls if not call.layer and call.node > 0][:1]
    else:
        chosen = chosen_by(calls, model, layers)
    seen = made_by(model, run, examples[1], chosen)
    others = {} if changed is None else made_by(model, run, changed, chosen)
    ends = [call.node for call in chosen if call.node in cuts.cuts]
    begins = dict(zip(ends, [0, *ends], strict=False))
    stages = []
    for call, name in zip(chosen, numbered(chosen), strict=True):
        three = seen.get(call.key)
        batch = _batch_axis(call.shape, () if three is None else tuple(three.shape))
        if batch is None and layers == "auto":
            continue
        if batch is None or three is None:
            raise ProbeError(
                f"{title(call.layer)} returns {call.shape} for two images, in which no axis "
                "counts the images; leave it out of layers"
            )
        inner = _inner(three, others.get(call.key), *batch)
        nodes = nodes_between(flow.operations, begins.get(call.node, call.node), call.node)
        segment = [flow.operations[node] for node in nodes]
        cut = call.node in cuts.cuts
        stages.append(_stage(call, name, batch, inner, cut=cut, segment=segment))
    if not stages:
        raise ProbeError("no layer returns anything that depends on the images, sample by sample")
    return stages


def made_by(model: nn.Module, run: Run, values: Any, chosen: Choice) -> Tensors:
    """What was made at some places of a run, copied; those that it did not come by are missing."""
    found: Tensors = {}
    places: dict[Any, set[int]] = {}
    for call in chosen:
        key, place = call.key
        places.setdefault(key, set()).add(place)

    def take(key: Any, outputs: Any) -> tuple[()]:
        tensors = list(tensors_in(outputs))
        for place in places.get(key, ()):
            if place < len(tensors):
                found[key, place] = tensors[place].clone()
        return ()

    read_once(model, run, values, places, take)
    return found


def read_once(
    model: nn.Module,
    run: Run,
    values: Any,
    wanted: Any,
    take: Callable[[Any, Any], Sequence[Callable[[], None]]],
) -> Any:
    """Run a model, give `take` what the wanted calls and operations return; return its result.

    What `take` returns is called once autograd has seen the tensors.

    Raises:
        ProbeError: the model stopped; names the layer.
    """
    operated = [key for key in wanted if not isinstance(key, Called)]
    reading = Reading(operated, take)

    def record(layer: str, call: int, outputs: Any) -> None:
        if Called(layer, call) in wanted:
            reading.paused = True
            try:
                for each in take(Called(layer, call), outputs):
                    each()
            finally:
                reading.paused = False

    def counted(given: Any) -> Any:
        if not operated:
            return run(given)
        with reading:
            return run(given)

    return run_once(model, counted, values, record)


def recorded(
    model: nn.Module, run: Run, example: Any, source: Tensor
) -> tuple[list[Recorded], Flow, int]:
    """Every tensor that a layer returned, the flow of numbers, and the model's result in it.

    Raises:
        ProbeError: the model stopped, or its output does not depend on the source.
    """
    flow = Flow(source)
    calls: list[Recorded] = []
    begins: list[int] = []

    def record(layer: str, call: int, outputs: Any) -> None:
        begin, end = begins.pop(), len(flow.operations)
        for place, tensor in enumerate(tensors_in(outputs)):
            if tensor.is_floating_point():
                shape, node = tuple(tensor.shape), flow.node(tensor)
                calls.append(Recorded(layer, call, place, shape, begin, node, len(calls), end))

    def counted(value: Any) -> Any:
        with flow:
            return run(value)

    with _listening(model, lambda *_: None, lambda *_: begins.append(len(flow.operations))):
        result = run_once(model, counted, example, record)
    sink = _sink(flow, result)[1]
    if sink < 0:
        raise ProbeError(
            "the model's output holds no floating-point tensor that depends on the images; a "
            "probe needs a model whose forward() returns one, alone or in a tuple, a dict or a "
            "dataclass"
        )
    return calls, flow, sink


@torch.no_grad()
def output_of(model: nn.Module, run: Run, example: Any, source: Tensor) -> tuple[Any, int]:
    """Return a model's result, and which of its floating-point tensors counts, from 0."""
    flow = Flow(source)

    def counted(value: Any) -> Any:
        with flow:
            return run(value)

    result = run_once(model, counted, example, lambda *_: None)
    return result, _sink(flow, result)[0]


def _sink(flow: Flow, result: Any) -> tuple[int, int]:
    """Which of a result's floating-point tensors counts, and the operation that made it.

    That is the first that most of the weights lead to, and a loss only where there is nothing else;
    -1 without any.
    """
    floating = [t for t in tensors_in(result) if t.is_floating_point()]
    reached = [place for place, tensor in enumerate(floating) if flow.node(tensor) > 0]
    places = [place for place in reached if floating[place].ndim] or reached
    weights: dict[int, set[int]] = {}
    for place in places:
        nodes = nodes_between(flow.operations, 0, flow.node(floating[place]))
        acting = [flow.operations[node] for node in nodes if weighs(flow.operations[node])]
        weights[place] = {weight for operation in acting for weight in operation.weights}
    most = max(map(len, weights.values()), default=0)
    found = next((place for place in places if len(weights[place]) >= MOST * most), -1)
    return found, -1 if found < 0 else flow.node(floating[found])


def _recurrent(model: nn.Module) -> dict[str, int]:
    """How many layers each layer holds that reads one time after the other."""
    named = model.named_modules()
    return {name: module.num_layers for name, module in named if isinstance(module, nn.RNNBase)}


def _stage(
    call: Recorded,
    name: str,
    batch: tuple[int, int],
    inner: int,
    *,
    cut: bool,
    segment: list[Operation],
) -> Stage:
    bounded = segment[-1].bounded
    joined = any(op.name.rstrip("_") == "add" and len(op.parents) > 1 for op in segment)
    if joined:  # a residual block of tanh has tanh's unit
        bounded = bounded or any(op.name.rstrip("_") in CENTRED for op in segment)
    axis, rows = batch
    rest = [size for place, size in enumerate(call.shape) if place != axis]
    shape = tuple(rest if rows == 1 else [rows, *rest]) or (1,)
    name = (name or "output") + (f"[{call.place}]" if call.place and not call.operation else "")
    return Stage(
        name,
        call.layer,
        call.call,
        call.place,
        shape,
        axis,
        rows,
        cut,
        bounded,
        call.operation,
        inner,
        len({weight for op in segment if weighs(op) for weight in op.weights}),
        any("conv" in op.name for op in segment),
    )


def _batch_axis(two: tuple[int, ...], three: tuple[int, ...]) -> tuple[int, int] | None:
    """The axis that counts samples, and how many of it belong to each, from two sizes of batch."""
    if len(two) != len(three):
        return None
    different = [axis for axis, (a, b) in enumerate(zip(two, three, strict=True)) if a != b]
    if len(different) != 1 or two[different[0]] * 3 != three[different[0]] * 2:
        return None
    return different[0], two[different[0]] // 2


def _inner(three: Tensor, changed: Tensor | None, axis: int, rows: int) -> int:
    """How many of a sample's rows lie side by side, from three samples of which the second was
    changed; all of them where that does not tell."""
    if changed is None or rows == 1 or changed.shape != three.shape:
        return rows
    differ = (three != changed).movedim(axis, 0).flatten(1).any(1).nonzero().flatten().tolist()
    for inner in sorted((n for n in range(1, rows + 1) if rows % n == 0), reverse=True):
        if differ and all(row // inner % 3 == 1 for row in differ):
            return inner
    return rows
