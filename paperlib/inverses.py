"""The inverse of each kind of stage: a small module from a stage's output back to its input."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from paperlib.networks import Erf

_ACTIVATIONS = (nn.Tanh, Erf, nn.ReLU, nn.GELU, nn.Sigmoid, nn.SiLU, nn.ELU, nn.LeakyReLU)
_PASSIVE = (nn.Flatten, nn.Identity, nn.Dropout, nn.Sequential, *_ACTIVATIONS)


class LinearInverse(nn.Module):
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
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.linear = nn.Linear(math.prod(output_shape), math.prod(input_shape))
        self.activation = activation

    @property
    def affine(self) -> bool:
        """Whether the inverse is one matrix and one offset, so that a cascade composes."""
        return self.activation is None

    def forward(self, codes: Tensor) -> Tensor:
        """The stage's inputs (batch, *input_shape) for its outputs (batch, *output_shape)."""
        flat = self.linear(codes.flatten(1))
        if self.activation is not None:
            flat = self.activation(flat)
        return flat.unflatten(1, self.input_shape)

    def regression(self, outputs: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The least-squares problem behind the fit: features (n, p) and targets (n, q)."""
        targets = inputs.flatten(1)
        return outputs.flatten(1), targets if self.affine else _before(self.activation, targets)

    def differentiate(self, codes: Tensor, inputs: Tensor) -> None:
        """Nothing; sets the gradients of the mean squared error of a batch of codes.

        By hand for the published inverse, into the same memory every time: autograd takes an
        eighth longer for a step, and a step is all there is to training one layer.
        """
        if not (self.activation is None or isinstance(self.activation, nn.Tanh)):
            self.zero_grad()
            nn.functional.mse_loss(self(codes), inputs).backward()
            return
        weight, bias = self.linear.weight, self.linear.bias
        for parameter in (weight, bias):
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
        with torch.no_grad():
            codes = codes.flatten(1)
            outputs = torch.addmm(bias, codes, weight.T)
            if self.activation is not None:
                outputs.tanh_()
            slopes = (outputs - inputs.flatten(1)).mul_(2 / outputs.numel())
            if self.activation is not None:
                slopes.addcmul_(slopes * outputs, outputs, value=-1)  # tanh' = 1 - tanh²
            torch.mm(slopes.T, codes, out=weight.grad)
            torch.sum(slopes, 0, out=bias.grad)

    @torch.no_grad()
    def assign(self, weight: Tensor, bias: Tensor) -> None:
        """Nothing; takes the solution of `regression`, weight (q, p) and bias (q,), as its own."""
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)


def _before(activation: nn.Module | None, values: Tensor) -> Tensor:
    """What the activation maps to `values`; saturated ones are taken from just inside its range."""
    inside = 1 - 1e-3
    if isinstance(activation, nn.Tanh):
        return torch.atanh(values.clamp(-inside, inside))
    if isinstance(activation, Erf):
        return torch.erfinv(values.clamp(-inside, inside))
    raise ValueError(
        f"the closed form needs an activation with an inverse (tanh or erf), got {activation}; "
        "use affine=True or solver='adam'"
    )


def activation_of(stage: nn.Module) -> nn.Module | None:
    """The activation that a stage ends in, None where another layer follows its last one."""
    layers = [module for module in stage.modules() if not any(module.children())]
    working = [m for m in layers if not isinstance(m, nn.Flatten | nn.Identity | nn.Dropout)]
    ends_in = working[-1] if working else None
    return ends_in if isinstance(ends_in, _ACTIVATIONS) else None


def is_bounded(stage: nn.Module) -> bool:
    """Whether a stage's output has a natural unit: its last activation is tanh, erf or sigmoid."""
    return isinstance(activation_of(stage), nn.Tanh | Erf | nn.Sigmoid)


def inverse_of(
    stage: nn.Module,
    name: str,
    *,
    output_shape: Sequence[int],
    input_shape: Sequence[int],
    activation: nn.Module | None,
) -> LinearInverse:
    """An untrained inverse of one stage.

    Args:
        stage: the module to invert.
        name: what the error calls it.
        output_shape, input_shape: of one sample, without the batch.
        activation: what bounded the stage's input; None makes the inverse affine.

    Raises:
        ValueError: no inverse is known for this kind of stage; names the stage and the module.
    """
    layers = [module for module in stage.modules() if not isinstance(module, _PASSIVE)]
    if len(layers) == 1 and isinstance(layers[0], nn.Linear):
        return LinearInverse(output_shape, input_shape, activation)
    kinds = ", ".join(type(layer).__name__ for layer in layers) or "no layer with weights"
    raise ValueError(
        f"no inverse is known for {name}, which holds {kinds}; "
        "a stage must hold exactly one Linear layer beside activations and Flatten"
    )
