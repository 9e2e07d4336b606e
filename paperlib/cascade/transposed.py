"""The inverse of a stage that makes its input larger: an ordinary convolution."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.cascade.convolutions import WindowInverse
from paperlib.cascade.windows import CONVOLUTIONS, Window

_SPREAD = (
    nn.functional.conv_transpose1d,
    nn.functional.conv_transpose2d,
    nn.functional.conv_transpose3d,
)


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

    def __init__(
        self,
        window: Window,
        output_shape: Sequence[int],
        input_shape: Sequence[int],
        activation: nn.Module | None = None,
        *,
        published: bool = False,
    ) -> None:
        super().__init__(window if published else window.without_gaps(), input_shape, activation)
        self.convolution: Any = CONVOLUTIONS[self.axes - 1](
            output_shape[0],
            input_shape[0],
            self.window.kernel,
            stride=self.window.stride,
            dilation=self.window.dilation,
            bias=published,
        )
        self.bias = None if published else nn.Parameter(torch.zeros(*input_shape))
        axes = zip(self.input_shape[1:], output_shape[1:], *self.window, strict=True)
        margins = [
            (before, s * (n - 1) + d * (k - 1) + 1 - before - size)
            for n, size, k, s, d, before in axes
        ]
        self.margins = tuple(margin for pair in reversed(margins) for margin in pair)

    def extra_repr(self) -> str:
        """What the layers inside do not say."""
        return f"margins={self.margins}"

    def forward(self, codes: Tensor) -> Tensor:
        """The stage's inputs (batch, *input_shape) for its outputs (batch, *output_shape)."""
        pixels = self.convolution(nn.functional.pad(codes, self.margins))
        return self.activated(pixels if self.bias is None else pixels + self.bias)

    def adjoint(self, rows: Tensor) -> Tensor:
        """rows @ weight, for rows (k, *input shape) of a matrix: (k, *output shape)."""
        _, stride, dilation, _ = self.window
        spread: Any = _SPREAD[self.axes - 1]
        rows = spread(rows, self.convolution.weight, stride=stride, dilation=dilation)
        return nn.functional.pad(rows, [-margin for margin in self.margins])

    @torch.no_grad()
    def assign(self, weight: Tensor, code: Tensor, pixel: Tensor) -> None:
        """Set the weights to the solution, see `WindowInverse.assign`."""
        kernel = weight.view(len(weight), *self.window.kernel, -1).movedim(-1, 1)
        self.convolution.weight.copy_(kernel)
        if self.bias is not None:
            padded = nn.functional.pad(code[None], self.margins)
            self.bias.copy_(pixel - self.convolution(padded)[0])

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
