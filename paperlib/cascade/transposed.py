"""The inverse of a stage that makes its input larger: an ordinary convolution."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.cascade.convolutions import WindowInverse
from paperlib.cascade.windows import CONVOLUTIONS, Window


class TransposedInverse(WindowInverse):
    """From the outputs of a transposed convolution to its inputs: a convolution of the same kernel
    and stride, then the activation.

    As published it has the stage's own kernel and one bias per channel. For the closed form the
    kernel has no gaps, and there is one bias per channel and position. That is exact where the
    outputs that one input is written to depend on no other input, and are no fewer.

    Args:
        window: which outputs an input is written to, see `transposed_window_of`.
        output_shape, input_shape: of one sample, (channels, *positions) along one, two or three
            axes.
        activation: what bounded the stage's input; None makes the inverse affine.
        published: which of the two forms.
    """

    layer = ("convolution", CONVOLUTIONS)
    convolution: Any

    def _widened(self, window: Window) -> Window:
        return window.without_gaps()

    def _margins(self, above: Sequence[int], below: Sequence[int]) -> tuple[int, ...]:
        return self.window.margins(below, above)

    def _pixels(self, codes: Tensor) -> Tensor:
        pixels: Tensor = self.convolution(nn.functional.pad(codes, self.margins))
        return pixels

    def adjoint(self, rows: Tensor) -> Tensor:
        """rows @ weight, for rows (k, *input shape) of a matrix: (k, *output shape)."""
        _, stride, dilation, _ = self.window
        spread: Any = getattr(nn.functional, f"conv_transpose{self.axes}d")
        rows = spread(rows, self.convolution.weight, stride=stride, dilation=dilation)
        return nn.functional.pad(rows, [-margin for margin in self.margins])

    def _kernel(self, weight: Tensor) -> Tensor:
        return weight.view(len(weight), *self.window.kernel, -1).movedim(-1, 1)

    def _blocks(self, axis: int, device: torch.device) -> Tensor:
        """The positions along an axis."""
        return torch.arange(self.input_shape[1 + axis], device=device)

    def _block(self, numbers: Tensor, axis: int) -> Tensor:
        """These positions themselves, (n, 1)."""
        return numbers[:, None]

    def _seen(self, numbers: Tensor, axis: int) -> Tensor:
        """The positions of the outputs that an input is predicted from, (n, reach)."""
        reach, stride = self.window.kernel[axis], self.window.stride[axis]
        steps = torch.arange(reach, device=numbers.device)
        return stride * numbers[:, None] - self.window.offset[axis] + steps
