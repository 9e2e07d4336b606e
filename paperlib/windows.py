"""Which pixels a stage's outputs read: the geometry of convolutions, poolings and paddings."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

from torch import nn

_PADDINGS = (
    nn.ZeroPad2d,
    nn.ConstantPad2d,
    nn.CircularPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
)
POOLS = (nn.MaxPool2d, nn.AvgPool2d)
ADAPTIVE_POOLS = (nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)


class Window(NamedTuple):
    """What a position o of a stage's output reads: the inputs stride·o − offset + dilation·t for
    t = 0 … kernel − 1, along both axes."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    offset: tuple[int, int]

    @property
    def reach(self) -> list[int]:
        """The number of inputs from the first one that is read to the last."""
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]

    def then(self, other: "Window") -> "Window":
        """The window of this stage and another one after it."""
        if self == _ONE_TO_ONE:
            return other
        axes = zip(self.reach, other.reach, self.stride, self.offset, other.offset, strict=True)
        sizes = [(r + s * (q - 1), o + s * p) for r, q, s, o, p in axes]
        (tall, above), (wide, left) = sizes
        (down, right), (first, second) = self.stride, other.stride
        return Window((tall, wide), (down * first, right * second), (1, 1), (above, left))

    def in_blocks(self) -> "Window":
        """The smallest centred window from which a transposed convolution sees, for every pixel
        of a stride × stride block, equally many outputs."""
        axes = zip(self.reach, self.stride, self.offset, strict=True)
        sizes = [(s * math.ceil(r / s), r, o) for r, s, o in axes]
        (tall, above), (wide, left) = [(k, o + math.ceil((k - r) / 2)) for k, r, o in sizes]
        return Window((tall, wide), self.stride, (1, 1), (above, left))


_ONE_TO_ONE = Window((1, 1), (1, 1), (1, 1), (0, 0))


def window_of(
    layers: Sequence[nn.Module], *, output_shape: Sequence[int], input_shape: Sequence[int]
) -> Window | None:
    """The window of convolutions, poolings and paddings, one after the other.

    Args:
        layers: those of a stage that are not pointwise.
        output_shape, input_shape: of one sample, (channels, height, width).

    Returns:
        None where there is none of them, a layer of another kind, or an adaptive pooling that is
        not alone or whose output does not divide its input.
    """
    windows: list[Window] = []
    for layer in layers:
        if isinstance(layer, _PADDINGS):
            left, _, top, _ = layer.padding
            windows.append(_ONE_TO_ONE._replace(offset=(top, left)))
        elif isinstance(layer, ADAPTIVE_POOLS):
            found = _evenly(input_shape, output_shape)
            if found is None or len(layers) > 1:
                return None
            windows.append(found)
        elif isinstance(layer, (nn.Conv2d, *POOLS)):
            windows.append(_window_of_layer(layer))
        else:
            return None
    return reduce(Window.then, windows, _ONE_TO_ONE) if windows else None


def _evenly(input_shape: Sequence[int], output_shape: Sequence[int]) -> Window | None:
    """The window of an adaptive pooling."""
    sizes = list(zip(input_shape[1:], output_shape[1:], strict=False))
    if len(sizes) != 2 or any(size % parts for size, parts in sizes):
        return None
    height, width = (size // parts for size, parts in sizes)
    return Window((height, width), (height, width), (1, 1), (0, 0))


def _window_of_layer(layer: Any) -> Window:
    kernel, stride, dilation = (
        _pair(getattr(layer, name, 1)) for name in ("kernel_size", "stride", "dilation")
    )
    if layer.padding == "same":  # with an even kernel, the odd one out comes behind
        above, left = (d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
        return Window(kernel, stride, dilation, (above, left))
    return Window(kernel, stride, dilation, _pair(0 if layer.padding == "valid" else layer.padding))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
