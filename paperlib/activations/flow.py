"""The flow of numbers through a model: which operation reads what of whose results.

It is recorded below autograd. So modules, functions and methods look alike, a view counts as the
numbers that it shows, and writing in place counts as a new operation.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from paperlib.activations.calls import Operated

# Operations by their names in torch: those that mix numbers, those whose results stay within ±1,
# those that keep the size of numbers, and those that only arrange them anew.
_MIXING = ("mm", "conv", "pool", "linear", "attention", "encoder_layer", "lstm", "gru", "rnn")
_WEIGHING = ("mm", "conv", "linear", "encoder_layer", "lstm", "gru", "rnn", "bilinear")
_MIXING_EXACTLY = ("mean", "sum", "mv", "dot", "embedding", "fft_fft", "cumsum")
_BOUNDED = ("tanh", "erf", "sigmoid", "_softmax", "sin", "cos", "lstm", "gru", "mkldnn_rnn_layer")
CENTRED = ("tanh", "erf")
_KEEPING = ("pool", "dropout", "cat", "stack", "select", "slice", "split", "mean", "index")
_MOVING = ("view", "reshape", "permute", "transpose", "clone", "alias", "detach", "squeeze")
_MOVING_EXACTLY = ("t", "unsqueeze", "copy_", "contiguous", "_to_copy", "flatten", "unbind")


@dataclass(frozen=True)
class Operation:
    """One operation on numbers that depend on the input."""

    name: str
    parents: tuple[int, ...]  # numbers of the operations whose results it reads
    bounded: bool
    numbers: int
    weights: frozenset[int] = frozenset()  # matrices that it reads and that no input decides
    operated: Operated | None = None  # how it is found in another run
    place: int = 0  # among the tensors that it makes
    shape: tuple[int, ...] = ()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Return the tensors in tuples, lists, mappings and the fields of dataclasses, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name, None))


class Flow(TorchDispatchMode):
    """Records which operation reads what of whose results."""

    def __init__(self, source: Tensor) -> None:
        super().__init__()
        self.operations = [Operation("input", (), False, source.numel())]
        self._nodes: dict[Any, int] = {_key(source): 0}
        self._alive: dict[int, list[Tensor]] = {}  # by storage, so that none is used again
        self._counted: Counter[str] = Counter()
        self._keep(source)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [t for t in tensors_in([args, kwargs]) if _key(t) is not None]
        read = [self._nodes.get(_key(t)) for t in given]
        result = func(*args, **kwargs)
        name = name_of(func)
        operated = Operated(name, self._counted[name])
        self._counted[name] += 1
        parents = tuple(sorted({node for node in read if node is not None}))
        written = _written(func, args, kwargs)
        others = [t for t, node in zip(given, read, strict=True) if node is None]
        weights = frozenset(t.untyped_storage()._cdata for t in others if t.ndim > 1)
        for place, tensor in enumerate([*tensors_in(result), *written]):
            if _key(tensor) is not None:
                made = Operation(
                    name,
                    parents,
                    False,
                    tensor.numel(),
                    weights,
                    operated,
                    place,
                    tuple(tensor.shape),
                )
                self._note(tensor, made, bool(others), bool(written))
        return result

    def node(self, tensor: Tensor) -> int:
        """The number of the operation that made a tensor; -1 if it does not depend on the input."""
        return self._nodes.get(_key(tensor), -1)

    def _note(self, tensor: Tensor, made: Operation, others: bool, written: bool) -> None:
        self._keep(tensor)
        parents = made.parents
        if not parents or (_key(tensor) in self._nodes and not written):
            return
        alone = len(parents) == 1 and not written and not others and _moves(made.name)
        if alone and tensor.numel() == self.operations[parents[0]].numbers:
            self._nodes[_key(tensor)] = parents[0]  # the same numbers in another order
            return
        bounded = self._bounded(made.name, parents, others)
        self.operations.append(replace(made, bounded=bounded))
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


def cuts_of(operations: list[Operation], sink: int) -> dict[int, int]:
    """Return the operations that every path from the input to the result runs through, in order."""
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


def between(
    operations: Sequence[Operation], cuts: Mapping[int, int], begin: int, end: int
) -> list[Operation]:
    """Return the operations after one cut up to another that its result depends on."""
    return [operations[node] for node in nodes_between(operations, begin, end)]


def nodes_between(operations: Sequence[Operation], begin: int, end: int) -> list[int]:
    """Return the numbers of these operations, in order."""
    needed = {end}
    for node in range(end, begin, -1):
        if node in needed:
            needed.update(parent for parent in operations[node].parents if parent > begin)
    return [node for node in sorted(needed) if node > begin or begin == end]


def mixes(name: str) -> bool:
    """Whether an operation of this name makes one number of several."""
    return any(part in name for part in _MIXING) or name in _MIXING_EXACTLY


def weighs(operation: Operation) -> bool:
    """Whether an operation mixes numbers by weights."""
    named = any(part in operation.name for part in _WEIGHING)
    return bool(operation.weights) and (named or operation.name.startswith("embedding"))


def name_of(func: Any) -> str:
    """Return what torch calls an operation."""
    return str(func._schema.name.partition("::")[2])


class Reading(TorchDispatchMode):
    """Gives what some operations make to a function, as they make it.

    Args:
        wanted: operations.
        take: is called with the operation and all tensors that it made or wrote into, before
            autograd has seen them; what it returns is called once it has, before the next
            operation.
    """

    def __init__(
        self,
        wanted: Collection[Operated],
        take: Callable[[Operated, list[Tensor]], Sequence[Callable[[], None]]],
    ) -> None:
        super().__init__()
        self._afterwards: list[Callable[[], None]] = []
        self.paused = False  # while a hook computes
        self._wanted, self._take = set(wanted), take
        self._counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._settle()
        result = func(*args, **kwargs)
        if not self.paused:
            name = name_of(func)
            operated = Operated(name, self._counted[name])
            self._counted[name] += 1
            if operated in self._wanted:
                made = [*tensors_in(result), *_written(func, args, kwargs)]
                self._afterwards += self._take(operated, made)
        return result

    def __exit__(self, *about: Any) -> None:
        super().__exit__(*about)
        self._settle()

    def _settle(self) -> None:
        waiting, self._afterwards = self._afterwards, []
        for each in waiting:
            each()


def _moves(name: str) -> bool:
    return any(part in name for part in _MOVING) or name in _MOVING_EXACTLY
