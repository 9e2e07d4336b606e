"""Which pixels a stage's outputs read: the geometry of convolutions, poolings and paddings, along
one, two or three axes."""

import math
from collections.abc import Sequence
from functools import reduce
from itertools import chain
from typing import Any, NamedTuple

from torch import nn


def _kinds(*names: str) -> list[tuple[Any, ...]]:
    """torch's layers of these names along one axis, two and three axes."""
    return [tuple(getattr(nn, f"{name}{axes}d") for name in names) for axes in (1, 2, 3)]


_PADDINGS = _kinds("ZeroPad", "ConstantPad", "CircularPad", "ReflectionPad", "ReplicationPad")
_SLIDING = _kinds("Conv", "MaxPool", "AvgPool")
CONVOLUTIONS = tuple(kind for (kind,) in _kinds("Conv"))
TRANSPOSED = tuple(kind for (kind,) in _kinds("ConvTranspose"))
POOLS = tuple(kind for kinds in _SLIDING for kind in kinds[1:])
ADAPTIVE_POOLS = tuple(chain(*_kinds("AdaptiveMaxPool", "AdaptiveAvgPool")))
FEATURES = 1152  # of neighbourhoods of a level that is known by its shape alone, at most


class Window(NamedTuple):
    """What a position o of a stage's output reads: the inputs stride·o − offset + dilation·t for
    t = 0 … kernel − 1, along every axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    offset: tuple[int, ...]

    @property
    def reach(self) -> list[int]:
        """The number of inputs from the first one that is read to the last."""
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]

    def then(self, other: "Window") -> "Window":
        """The window of this stage and another one after it."""
        if self == _one_to_one(len(self.kernel)):
            return other
        axes = zip(self.reach, other.reach, self.stride, self.offset, other.offset, strict=True)
        sizes = [(r + s * (q - 1), o + s * p) for r, q, s, o, p in axes]
        stride = tuple(a * b for a, b in zip(self.stride, other.stride, strict=True))
        return _dense(sizes, stride)

    def in_blocks(self) -> "Window":
        """The smallest centred window from which a transposed convolution sees, for every pixel
        of a stride × stride block, equally many outputs."""
        axes = zip(self.reach, self.stride, self.offset, strict=True)
        sizes = [(s * math.ceil(r / s), r, o) for r, s, o in axes]
        return _dense([(k, o + math.ceil((k - r) / 2)) for k, r, o in sizes], self.stride)

    def margins(self, few: Sequence[int], many: Sequence[int]) -> tuple[int, ...]:
        """By how much the inputs that so many positions read go beyond the ends of those there are,
        before and after, the last axis first: as nn.functional.pad takes them."""
        axes = list(zip(few, many, self.reach, self.stride, self.offset, strict=True))[::-1]
        pairs = [(before, s * (n - 1) + r - before - size) for n, size, r, s, before in axes]
        return tuple(margin for pair in pairs for margin in pair)

    def without_gaps(self) -> "Window":
        """The window that reads every input from the first to the last."""
        return _dense(list(zip(self.reach, self.offset, strict=True)), self.stride)


def _dense(sizes: Sequence[tuple[int, int]], stride: tuple[int, ...]) -> Window:
    """The window without gaps of a kernel and an offset for each axis."""
    kernel, offset = zip(*sizes, strict=True)
    return Window(kernel, stride, (1,) * len(stride), offset)


def _one_to_one(axes: int) -> Window:
    return Window((1,) * axes, (1,) * axes, (1,) * axes, (0,) * axes)


def window_of(
    layers: Sequence[nn.Module], *, output_shape: Sequence[int], input_shape: Sequence[int]
) -> Window | None:
    """Return the window of convolutions, poolings and paddings, one after the other.

    Args:
        layers: those of a stage that are not pointwise.
        output_shape, input_shape: of one sample, (channels, length), (channels, height, width) or
            (channels, depth, height, width).

    Returns:
        None where there is none of them, a layer of another kind or for other axes, or an adaptive
        pooling that is not alone or whose output does not divide its input.
    """
    axes = len(input_shape) - 1
    if axes not in (1, 2, 3):
        return None
    windows: list[Window] = []
    for layer in layers:
        if isinstance(layer, _PADDINGS[axes - 1]):
            before: Any = layer.padding[::2]  # of the last axis first
            windows.append(_one_to_one(axes)._replace(offset=tuple(before[::-1])))
        elif isinstance(layer, ADAPTIVE_POOLS):
            found = _evenly(input_shape, output_shape)
            if found is None or len(layers) > 1:
                return None
            windows.append(found)
        elif isinstance(layer, _SLIDING[axes - 1]):
            windows.append(_window_of_layer(layer, axes))
        else:
            return None
    return reduce(Window.then, windows, _one_to_one(axes)) if windows else None


def transposed_window_of(
    layers: Sequence[nn.Module], *, input_shape: Sequence[int]
) -> Window | None:
    """The window of transposed convolutions, one after the other, read backwards: which outputs
    an input is written to; None where there is none, or a layer of another kind."""
    axes = len(input_shape) - 1
    kinds = TRANSPOSED[axes - 1 : axes] if axes else ()
    if not layers or not all(isinstance(layer, kinds) for layer in layers):
        return None
    windows = (_window_of_layer(layer, axes) for layer in reversed(layers))
    return reduce(Window.then, windows, _one_to_one(axes))


def neighbourhood(
    channels: int, above: Sequence[int], below: Sequence[int], *, most: float = FEATURES
) -> Window:
    """The window between two fields of which only the shapes are known: every block of positions
    below is read from the 3 nearest positions above along each axis, or from one.

    Args:
        channels: above.
        above, below: positions along every axis.
        most: numbers in a neighbourhood above; where there would be more, it is one position.
    """
    sizes = list(zip(below, above, strict=True))
    stride = tuple(max(1, round(low / high)) for low, high in sizes)
    reach = [1 if -(-low // s) == 1 else 3 for low, s in zip(below, stride, strict=True)]
    if math.prod(reach) * channels > most:
        reach = [1 for _ in reach]
    return _dense([(r * s, r // 2 * s) for r, s in zip(reach, stride, strict=True)], stride)


def _evenly(input_shape: Sequence[int], output_shape: Sequence[int]) -> Window | None:
    """The window of an adaptive pooling."""
    sizes = list(zip(input_shape[1:], output_shape[1:], strict=False))
    if len(sizes) != len(input_shape) - 1 or any(size % parts for size, parts in sizes):
        return None
    block = tuple(size // parts for size, parts in sizes)
    return _dense([(size, 0) for size in block], block)


def _window_of_layer(layer: Any, axes: int) -> Window:
    kernel, stride, dilation = (
        _on_axes(getattr(layer, name, 1), axes) for name in ("kernel_size", "stride", "dilation")
    )
    if layer.padding == "same":  # with an even kernel, the odd one out comes behind
        before = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
        return Window(kernel, stride, dilation, before)
    padding = 0 if layer.padding == "valid" else layer.padding
    return Window(kernel, stride, dilation, _on_axes(padding, axes))


def _on_axes(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)
