"""The inverses of stages without convolutions, and what all inverses have in common."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from paperlib.cascade.regression import CHUNK, Moments, Samples
from paperlib.networks import Erf


class FixedPReLU(nn.Module):
    """A PReLU with the slopes that one of the network's has: constants, neither trained nor saved.

    Args:
        slopes: (1,), or one for each channel.
    """

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.slopes = slopes  # no buffer, which an inverse that is made on "meta" would lose

    def extra_repr(self) -> str:
        """The slopes: inverses with other ones are not trained in one program."""
        return str(self.slopes.tolist())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.prelu(x, self.slopes.to(x))


class Inverse(nn.Module):
    """From the outputs of one stage to its inputs.

    Subclasses with weights define `solve`, and `adjoint` where they can be affine.

    Args:
        activation: what bounded the stage's input; None makes the inverse affine.
    """

    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.activation = activation

    @property
    def affine(self) -> bool:
        """Whether the inverse is one matrix and one offset, so that a cascade composes."""
        return self.activation is None

    def solve(self, samples: Samples, moments: Moments) -> None:
        """Fit the weights: the ridge regression of a stage's inputs on its outputs.

        Args:
            samples: of the stage; gone through once.
            moments: empty ones, in the arithmetic to use.
        """
        raise NotImplementedError

    def adjoint(self, rows: Tensor) -> Tensor:
        """rows @ weight, for rows (k, *input shape) of a matrix: (k, *output shape)."""
        raise NotImplementedError

    def differentiate(self, codes: Tensor, inputs: Tensor) -> None:
        """Set the gradients of the mean squared error of a batch of codes.

        Args:
            codes: (batch, *output shape); in bfloat16 every product is taken in it, while weights,
                loss and gradients stay what they are.
            inputs: (batch, *input shape).
        """
        self.zero_grad()
        half = codes.dtype == torch.bfloat16
        with torch.autocast(codes.device.type, codes.dtype, enabled=half, cache_enabled=False):
            outputs = self(codes)
        nn.functional.mse_loss(outputs.to(inputs.dtype), inputs).backward()

    def activated(self, values: Tensor) -> Tensor:
        """What the activation makes of values; these themselves where there is none."""
        return values if self.activation is None else self.activation(values)

    def before_activation(self, values: Tensor) -> Tensor:
        """What the activation maps to `values`; saturated ones come from just inside its range.

        Raises:
            ValueError: the activation has no inverse.
        """
        inside = 1 - 1e-3
        if self.activation is None:
            return values
        if isinstance(self.activation, nn.Tanh):
            return torch.atanh(values.clamp(-inside, inside))
        if isinstance(self.activation, Erf):
            return torch.erfinv(values.clamp(-inside, inside))
        raise ValueError(
            "the closed form needs an activation with an inverse (tanh or erf), got "
            f"{self.activation}; use affine=True or solver='adam'"
        )


class Reshape(Inverse):
    """From the outputs of a stage that only arranges its input anew: exact, without weights.

    Args:
        output_shape: of one sample of the stage's output, e.g. (6272,).
        input_shape: of one sample of the stage's input, e.g. (128, 7, 7).
    """

    def __init__(self, output_shape: Sequence[int], input_shape: Sequence[int]) -> None:
        super().__init__()
        self.output_shape, self.input_shape = tuple(output_shape), tuple(input_shape)

    def forward(self, codes: Tensor) -> Tensor:
        """The stage's inputs (batch, *input_shape) for its outputs (batch, *output_shape)."""
        return codes.reshape(-1, *self.input_shape)

    def solve(self, samples: Samples, moments: Moments) -> None:
        """Read all samples, as every inverse does; there is nothing to solve."""
        for _ in samples:
            pass

    def adjoint(self, rows: Tensor) -> Tensor:
        """The rows in the outputs' shape."""
        return rows.reshape(-1, *self.output_shape)


class LinearInverse(Inverse):
    """From the output of a stage with one Linear layer to its input: Linear, then activation.

    Args:
        output_shape: of one sample of the stage's output, e.g. (784,).
        input_shape: of one sample of the stage's input, e.g. (1, 28, 28).
        activation: what bounded the stage's input; None makes the inverse affine.
    """

    def __init__(
        self,
        output_shape: Sequence[int],
        input_shape: Sequence[int],
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__(activation)
        self.output_shape, self.input_shape = tuple(output_shape), tuple(input_shape)
        self.linear = nn.Linear(math.prod(output_shape), math.prod(input_shape))

    def forward(self, codes: Tensor) -> Tensor:
        """The stage's inputs (batch, *input_shape) for its outputs (batch, *output_shape)."""
        return self.activated(self.linear(codes.flatten(1)).unflatten(1, self.input_shape))

    def regression(self, outputs: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The least-squares problem behind the fit: features (n, p) and targets (n, q)."""
        return outputs.flatten(1), self.before_activation(inputs.flatten(1))

    def solve(self, samples: Samples, moments: Moments) -> None:
        """Fit the ridge regression, see `Inverse.solve`."""
        for outputs, inputs in samples:
            for outs, ins in zip(outputs.split(CHUNK), inputs.split(CHUNK), strict=True):
                moments.update(*self.regression(outs, ins))
        self.assign(*moments.solve(samples.resolution))

    def adjoint(self, rows: Tensor) -> Tensor:
        """rows @ weight, for rows (k, *input shape) of a matrix: (k, *output shape)."""
        return (rows.flatten(1) @ self.linear.weight).unflatten(1, self.output_shape)

    def differentiate(self, codes: Tensor, inputs: Tensor) -> None:
        """Set the gradients of the mean squared error of a batch, see `Inverse.differentiate`.

        By hand for the published inverse, into the same memory every time: autograd takes an
        eighth longer for a step, and a step is all there is to training one layer.
        """
        if not (self.activation is None or isinstance(self.activation, nn.Tanh)):
            super().differentiate(codes, inputs)
            return
        weight, bias = self.linear.weight, self.linear.bias
        for parameter in (weight, bias):
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
        with torch.no_grad():
            codes = codes.flatten(1)
            outputs = torch.mm(codes, weight.to(codes.dtype).T).to(weight.dtype).add_(bias)
            if self.activation is not None:
                outputs.tanh_()
            slopes = (outputs - inputs.flatten(1)).mul_(2 / outputs.numel())
            if self.activation is not None:
                slopes.addcmul_(slopes * outputs, outputs, value=-1)  # tanh' = 1 - tanh²
            torch.sum(slopes, 0, out=bias.grad)
            if codes.dtype == weight.dtype:
                torch.mm(slopes.T, codes, out=weight.grad)
            else:
                weight.grad = torch.mm(slopes.T.to(codes.dtype), codes).to(weight.dtype)

    @torch.no_grad()
    def assign(self, weight: Tensor, bias: Tensor) -> None:
        """Set the weights from the solution of `regression`, weight (q, p) and bias (q,)."""
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)
