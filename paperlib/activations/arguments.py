"""How a model is called with samples, and which part of its output counts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import register_pytree_node

from paperlib.activations.tracing import Called, ProbeError, Run, replaced
from paperlib.core.checks import quoted

EMBEDDED = "its embedding"  # the vectors of words, among a model's arguments

Key = Any  # a name or a place among a model's arguments
Values = Any  # a tensor, a dict or a tuple of tensors, or `Arguments`
Output = str | int | Callable[[Any], Any] | None


@dataclass(frozen=True, eq=False)
class How:
    """What a call of a model needs beside its samples.

    Attributes:
        form: of the arguments: "alone", "places" or "names".
        fixed: arguments that are the same for all samples.
        axes: of the samples, where it is not the first.
        output: the part of the output that counts.
        call: whose result is replaced by the vectors of words that are given.
    """

    form: str
    fixed: dict[Key, Any] = field(default_factory=dict)
    axes: dict[Key, int] = field(default_factory=dict)
    output: Output = None
    call: Called | None = None


@dataclass(frozen=True)
class Arguments:
    """A model's arguments that have an axis of samples, which is the first, and all others."""

    tensors: dict[Key, Tensor]
    how: How

    def call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments in order and by name."""
        given = {name: value for name, value in self.tensors.items() if name != EMBEDDED}
        for name, axis in self.how.axes.items():
            given[name] = given[name].movedim(0, axis)
        given |= self.how.fixed
        if self.how.form == "names":
            return (), given
        return tuple(given[place] for place in sorted(given)), {}


register_pytree_node(
    Arguments,
    lambda found: (list(found.tensors.values()), (tuple(found.tensors), found.how)),
    lambda values, about: Arguments(dict(zip(about[0], values, strict=True)), about[1]),
)


def arguments_of(values: Values) -> Arguments:
    """Return a tensor, a dict or a tuple of tensors as arguments."""
    if isinstance(values, Arguments):
        return values
    if isinstance(values, dict):
        return Arguments(values, How("names"))
    if isinstance(values, Tensor):
        return Arguments({0: values}, How("alone"))
    return Arguments(dict(enumerate(values)), How("places"))


def runner(model: nn.Module) -> Run:
    """Return the function that calls a model with such arguments, and picks of its output."""

    def run(values: Values) -> Any:
        found = arguments_of(values)
        places, names = found.call()
        vectors, how = found.tensors.get(EMBEDDED), found.how
        if vectors is None or how.call is None:
            return picked(model(*places, **names), how.output)
        with replaced(model, how.call, vectors):
            return picked(model(*places, **names), how.output)

    return run


def called_with_parameters(
    model: nn.Module, parameters: Mapping[str, Tensor], values: Values
) -> Any:
    """Return the part that counts of what a model makes of arguments with other parameters."""
    found = arguments_of(values)
    places, names = found.call()
    result = functional_call(model, dict(parameters), places, names)
    return picked(result, found.how.output)


def picked(result: Any, output: Output) -> Any:
    """Return the part of a model's output that a key, a place, a path of them or a function picks.

    Raises:
        ProbeError: there is no such part; names those there are.
    """
    if output is None:
        return result
    if callable(output):
        return output(result)
    part = result
    for key in [output] if isinstance(output, int) else output.split("."):
        try:
            part = _part(part, key)
        except (KeyError, IndexError, AttributeError, TypeError, ValueError):
            raise ProbeError(
                f"the model's output has no part {quoted(output)}; it is {_in_words(result)}"
            ) from None
    return part


def parts_of(result: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Return the tensors of a model's output with their paths, as `picked` takes them."""
    if isinstance(result, Tensor):
        yield path, result
        return
    items: Any = ()
    if isinstance(result, Mapping):
        items = result.items()
    elif isinstance(result, tuple | list):
        items = enumerate(result)
    elif is_dataclass(result) and not isinstance(result, type):
        items = [(each.name, getattr(result, each.name, None)) for each in fields(result)]
    for key, value in items:
        yield from parts_of(value, f"{path}.{key}" if path else str(key))


def _part(value: Any, key: str | int) -> Any:
    if isinstance(value, Mapping):
        return value[key]
    if isinstance(key, str) and hasattr(value, key):
        return getattr(value, key)
    if isinstance(value, Tensor):
        raise TypeError
    return value[int(key)]


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a dict of " + ", ".join(map(repr, value))
    if isinstance(value, tuple | list):
        return f"a tuple of {len(value)}"
    return f"a {type(value).__name__}"
