"""Where a model can be cut: the calls of its layers, and the tensors that every path runs through.

One run of a small batch is recorded operation by operation, whatever makes them: modules, functions
or methods. A call of a layer is a cut where no path from the input to the output leads past what it
returned, so that skip connections, concatenations and attention need no rules of their own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Run = Callable[[Any], Any]
Layers = str | Sequence[str] | Callable[[str, nn.Module], bool]

# Operations by their names in torch: those that mix numbers, those whose results stay within ±1,
# those that keep the size of numbers, and those that only arrange them anew.
_MIXING = ("mm", "conv", "pool", "linear", "attention", "encoder_layer", "lstm", "gru", "rnn")
_MIXING_EXACTLY = ("mean", "sum", "mv", "dot", "embedding", "fft_fft", "cumsum")
_BOUNDED = ("tanh", "erf", "sigmoid", "_softmax", "sin", "cos", "lstm", "gru", "mkldnn_rnn_layer")
_CENTRED = ("tanh", "erf")
_KEEPING = ("pool", "dropout", "cat", "stack", "select", "slice", "split", "mean", "index")
_MOVING = ("view", "reshape", "permute", "transpose", "clone", "alias", "detach", "squeeze")
_MOVING_EXACTLY = ("t", "unsqueeze", "copy_", "contiguous", "_to_copy", "flatten", "unbind")


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
class _Operation:
    """One operation on numbers that depend on the input."""

    name: str
    parents: tuple[int, ...]  # numbers of the operations whose results it reads
    bounded: bool
    numbers: int


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


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in tuples, lists, mappings and objects with their fields as attributes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)


class _Flow(TorchDispatchMode):
    """Records which operation reads what of whose results."""

    def __init__(self, source: Tensor) -> None:
        super().__init__()
        self.operations = [_Operation("input", (), False, source.numel())]
        self._nodes: dict[Any, int] = {_key(source): 0}
        self._alive: dict[int, list[Tensor]] = {}  # by storage, so that none is used again
        self._keep(source)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [t for t in tensors_in([args, kwargs]) if _key(t) is not None]
        read = [self._nodes.get(_key(t)) for t in given]
        result = func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        parents = tuple(sorted({node for node in read if node is not None}))
        written = _written(func, args, kwargs)
        for tensor in [*tensors_in(result), *written]:
            if _key(tensor) is not None:
                self._note(tensor, name, parents, None in read, bool(written))
        return result

    def node(self, tensor: Tensor) -> int:
        """The number of the operation that made a tensor; -1 if it does not depend on the input."""
        return self._nodes.get(_key(tensor), -1)

    def _note(
        self, tensor: Tensor, name: str, parents: tuple[int, ...], others: bool, written: bool
    ) -> None:
        self._keep(tensor)
        if not parents or (_key(tensor) in self._nodes and not written):
            return
        alone = len(parents) == 1 and not written and not others and _moves(name)
        if alone and tensor.numel() == self.operations[parents[0]].numbers:
            self._nodes[_key(tensor)] = parents[0]  # the same numbers in another order
            return
        bounded = self._bounded(name, parents, others)
        self.operations.append(_Operation(name, parents, bounded, tensor.numel()))
        node = len(self.operations) - 1
        if written:  # in place: everything that shares the memory has changed
            for other in self._alive[tensor.untyped_storage()._cdata]:
                self._nodes[_key(other)] = node
        self._nodes[_key(tensor)] = node

    def _keep(self, tensor: Tensor) -> None:
        self._alive.setdefault(tensor.untyped_storage()._cdata, []).append(tensor)

    def _bounded(self, name: str, parents: tuple[int, ...], others: bool) -> bool:
        if name.rstrip("_") in _BOUNDED:
            return True
        if _moves(name) or any(part in name for part in _KEEPING):
            return all(self.operations[node].bounded for node in parents)
        if name.rstrip("_") == "mul":
            return not others and all(self.operations[node].bounded for node in parents)
        return False


def _key(tensor: Tensor) -> Any:
    """What two tensors have in common that are the same numbers; None for exotic ones."""
    try:
        storage = tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return None
    return storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The arguments that an operation changes in place."""
    found: list[Tensor] = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            found += tensors_in(value)
    return found


class ProbeError(ValueError):
    """A model that cannot be probed; the message names the layer and the shape."""


@contextmanager
def _listening(
    model: nn.Module, told: Callable[[str, int, Any], None], begun: Callable[[str, Any], None]
) -> Iterator[None]:
    """Hooks on every layer: `begun(layer, inputs)` and `told(layer, call, outputs)`."""
    names = {id(module): name for name, module in model.named_modules()}
    calls: dict[str, int] = {}
    handles: list[Any] = []

    def before(module: nn.Module, inputs: Any) -> None:
        begun(names[id(module)], inputs)

    def after(module: nn.Module, inputs: Any, outputs: Any) -> None:
        name = names[id(module)]
        calls[name] = calls.get(name, -1) + 1
        told(name, calls[name], outputs)

    try:
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_once(model: nn.Module, run: Run, inputs: Any, told: Callable[[str, int, Any], None]) -> Any:
    """What the model returns; `told` hears of every call of every layer, and what it returned.

    Raises:
        ProbeError: the model stopped; names the innermost layer that was running.
    """
    inside: list[tuple[str, Any]] = []

    def ended(layer: str, call: int, outputs: Any) -> None:
        inside.pop()
        told(layer, call, outputs)

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
    """The stages at which a model is looked at, in the order in which they end.

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
    calls, flow, sink = _recorded(model, run, examples[0], source)
    cuts = _cuts(flow.operations, sink)
    shapes: dict[tuple[str, int, int], tuple[int, ...]] = {}

    def told(layer: str, call: int, outputs: Any) -> None:
        for place, tensor in enumerate(tensors_in(outputs)):
            shapes[layer, call, place] = tuple(tensor.shape)

    run_once(model, run, examples[1], told)
    if layers == "auto":
        chosen = _automatic(calls, flow.operations, cuts) or _last(calls)
    else:
        chosen = _asked_for(calls, model, layers)
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
        segment = _between(flow.operations, cuts, begins.get(call.node, call.node), call.node)
        stages.append(_stage(call, *batch, cut=call.node in cuts, segment=segment))
    if not stages:
        raise ProbeError("no layer returns anything that depends on the images, sample by sample")
    return stages


def _recorded(
    model: nn.Module, run: Run, example: Any, source: Tensor
) -> tuple[list[_Call], _Flow, int]:
    """Every tensor that a layer returned, the flow of numbers, and the model's result in it."""
    flow = _Flow(source)
    calls: list[_Call] = []
    begins: list[int] = []

    def told(layer: str, call: int, outputs: Any) -> None:
        begin = begins.pop()
        for place, tensor in enumerate(tensors_in(outputs)):
            if tensor.is_floating_point():
                shape, node = tuple(tensor.shape), flow.node(tensor)
                calls.append(_Call(layer, call, place, shape, begin, node, len(calls)))

    def counted(value: Any) -> Any:
        with flow:
            return run(value)

    with _listening(model, lambda *_: None, lambda *_: begins.append(len(flow.operations))):
        result = run_once(model, counted, example, told)
    found = [flow.node(t) for t in tensors_in(result) if t.is_floating_point()]
    sink = next((node for node in found if node > 0), -1)
    if sink < 0:
        raise ProbeError(
            "the model's output holds no floating-point tensor that depends on the images; a "
            "probe needs a model whose forward() returns one, alone, in a tuple or in a dict"
        )
    return calls, flow, sink


def _cuts(operations: list[_Operation], sink: int) -> dict[int, int]:
    """The operations that no path from the input to the result leads past, and their order."""
    needed = {sink}
    for node in range(sink, 0, -1):
        if node in needed:
            needed.update(operations[node].parents)
    passing = [0] * (sink + 2)  # edges over each operation, as differences
    for node in needed:
        for parent in operations[node].parents:
            passing[parent + 1] += 1
            passing[node] -= 1
    open_edges, found = 0, []
    for node in range(sink + 1):
        open_edges += passing[node]
        if node and node in needed and not open_edges:
            found.append(node)
    return {node: order for order, node in enumerate(found)}


def _automatic(
    calls: list[_Call], operations: list[_Operation], cuts: dict[int, int]
) -> list[_Call]:
    """One call for every cut, less those between which nothing is mixed."""
    ends = sorted({call.node for call in calls if call.node in cuts})
    kept: list[int] = []
    for node in ends:
        before = kept[-1] if kept else 0
        segment = _between(operations, cuts, before, node)
        if any(_mixes(operation.name) for operation in segment):
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


def _asked_for(calls: list[_Call], model: nn.Module, layers: Layers) -> list[_Call]:
    """The calls of layers by name or rule, in the order in which they end; none twice."""
    modules = dict(model.named_modules())
    if isinstance(layers, str):
        layers = [layers]
    if callable(layers):
        rule = layers
        wanted = {name for name, module in modules.items() if rule(name, module)}
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
            "no layer matched that is called and returns a tensor that depends on the images; "
            "give layers='auto', dotted names as in model.named_modules(), or a function of name "
            "and module"
        )
    return [found[node] for node in sorted(found)]


def _between(
    operations: list[_Operation], cuts: dict[int, int], begin: int, end: int
) -> list[_Operation]:
    """The operations after one cut up to another that its result depends on."""
    needed = {end}
    for node in range(end, begin, -1):
        if node in needed:
            needed.update(parent for parent in operations[node].parents if parent > begin)
    return [operations[node] for node in sorted(needed) if node > begin or begin == end]


def _stage(call: _Call, axis: int, rows: int, *, cut: bool, segment: list[_Operation]) -> Stage:
    bounded = segment[-1].bounded
    joined = any(op.name.rstrip("_") == "add" and len(op.parents) > 1 for op in segment)
    if joined:  # a residual block of tanh has tanh's unit
        bounded = bounded or any(op.name.rstrip("_") in _CENTRED for op in segment)
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


def _mixes(name: str) -> bool:
    return any(part in name for part in _MIXING) or name in _MIXING_EXACTLY


def _moves(name: str) -> bool:
    return any(part in name for part in _MOVING) or name in _MOVING_EXACTLY
