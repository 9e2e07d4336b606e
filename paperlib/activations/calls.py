"""What a run of a model is recorded as: calls of layers, operations, and places to look at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

Run = Callable[[Any], Any]
Layers = str | Sequence[str] | Callable[[str, nn.Module], bool]


class ProbeError(ValueError):
    """A model that cannot be probed; the message names the layer and the shape."""


class Called(NamedTuple):
    """One call of a layer, by its dotted name and its number from 0."""

    layer: str
    call: int


class Operated(NamedTuple):
    """One operation, by torch's name and its number from 0 among those of this name."""

    name: str
    number: int


@dataclass(frozen=True)
class Stage:
    """What one call of a layer returned, as a place where a model is looked at.

    Attributes:
        name: the layer's, with `#2` for its second call and `[1]` for the second tensor it returns.
        layer: its dotted name; the model itself is "".
        call: which call of it, from 0; -1 of an operation.
        place: which of the tensors that it returns, from 0.
        shape: of one sample.
        axis: of the batch; `rows` of them belong to one sample.
        cut: whether every path from the input to the output runs through it.
        bounded: whether its values have a natural unit, as those of tanh do.
        operation: where no layer returned it but an operation in some forward().
        inner: of the rows of a sample, how many lie side by side; all but in time-major batches.
        weights: that act between the stage before and this one.
        convolved: whether a convolution is among them.
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
    operation: Operated | None = None
    inner: int = 0
    weights: int = 0
    convolved: bool = False

    def samples(self, value: Tensor) -> Tensor:
        """The tensor (n, *shape) of what the layer returned for n samples."""
        value = unfolded(value.movedim(self.axis, 0), self.rows, self.inner)
        return value if value.ndim > 1 else value[:, None]


def unfolded(value: Tensor, rows: int, inner: int = 0) -> Tensor:
    """Return (n, rows, …) of a batch (n · rows, …) into which the rows of samples were folded.

    Args:
        value: in whose first axis `rows` belong to each sample.
        rows: 1 changes nothing.
        inner: how many of them lie side by side; all of them, 0, but in time-major batches.
    """
    if rows == 1:
        return value
    inner = inner or rows  # (outer · n · inner, …)
    return value.unflatten(0, (rows // inner, -1, inner)).transpose(0, 1).flatten(1, 2)


@dataclass(frozen=True)
class Recorded:
    """One tensor that one call of a layer returned, or one operation."""

    layer: str
    call: int
    place: int
    shape: tuple[int, ...]
    begin: int  # operations before the call
    node: int  # the operation that made the tensor, -1: nothing that depends on the input
    order: int
    end: int = 0  # operations before the call had ended
    operation: Operated | None = None
    title: str = ""  # of an operation

    @property
    def key(self) -> tuple[Called | Operated, int]:
        """Where the tensor is found in another run."""
        return self.operation or Called(self.layer, self.call), self.place

    @property
    def name(self) -> str:
        """For a table: the layer, with the number of its call from the second on."""
        return self.title or self.layer + (f"#{self.call + 1}" if self.call else "")


def title(layer: str) -> str:
    """Return what a layer is called in a message."""
    return f"layer {layer!r}" if layer else "its own forward()"
