"""The inverses of stages without convolutions, and what all inverses have in common."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

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

        By hand for the published inverses: autograd takes an eighth longer for a step of one layer,
        and a tanh takes longer than what it saves in the products.

        Args:
            codes: (batch, *output shape); in bfloat16 every product is taken in it, while weights,
                loss and gradients stay what they are.
            inputs: (batch, *input shape).
        """
        if all(link.by_hand for link in self.links):
            _differentiate(self.links, codes, inputs)
            return
        self.zero_grad()
        half = codes.dtype == torch.bfloat16
        with torch.autocast(codes.device.type, codes.dtype, enabled=half, cache_enabled=False):
            outputs = self(codes)
        nn.functional.mse_loss(outputs.to(inputs.dtype), inputs).backward()

    @property
    def links(self) -> "list[Inverse]":
        """The inverses of single layers that this one is made of, in the order of `forward`."""
        return [self]

    @property
    def by_hand(self) -> bool:
        """Whether `before`, `pull` and the slope of the activation are known."""
        return False

    def before(self, codes: Tensor) -> Tensor:
        """What the activation is applied to, in the arithmetic of the codes."""
        raise NotImplementedError

    def pull(self, codes: Tensor, slopes: Tensor, *, further: bool) -> Tensor | None:
        """Set the gradients of the weights for slopes with respect to `before(codes)`; return
        those with respect to the codes if they are needed `further` on."""
        raise NotImplementedError

    def together(self, parameters: Mapping[str, Tensor], codes: Tensor) -> Tensor:
        """What k inverses like this one make of a batch each, (k, batch, *input_shape).

        Args:
            parameters: of all of them, each stacked along a first axis.
            codes: (k, batch, *output_shape).
        """

        def one(parameters: dict[str, Tensor], codes: Tensor) -> Tensor:
            return functional_call(self, parameters, (codes,))

        return torch.vmap(one)(dict(parameters), codes)

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


@torch.no_grad()
def _differentiate(links: Sequence[Inverse], codes: Tensor, inputs: Tensor) -> None:
    """Set the gradients of the mean squared error of inverses, one after the other."""
    outputs, seen = codes, []
    activated: list[Tensor] = []
    for link in links:
        seen.append(outputs.to(codes.dtype))
        outputs = link.before(seen[-1])
        outputs = outputs if link.activation is None else _tanh_(outputs)
        activated.append(outputs)
    slopes: Any = (outputs - inputs).mul_(2 / inputs.numel())
    for number, link in reversed(list(enumerate(links))):
        if link.activation is not None:  # tanh' = 1 - tanh²
            slopes.addcmul_(slopes * activated[number], activated[number], value=-1)
        slopes = link.pull(seen[number], slopes, further=number > 0)


def _tanh_(values: Tensor) -> Tensor:
    """Replace values by their tanh: within 2e-7, and four times as fast as torch's on a CPU."""
    if values.dtype != torch.float32 or values.is_cuda:
        return values.tanh_()
    return values.mul_(2).sigmoid_().mul_(2).sub_(1)


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

    def together(self, parameters: Mapping[str, Tensor], codes: Tensor) -> Tensor:
        """As `Inverse.together`; in this order the products' gradients lie as the weights do."""
        weight, bias = parameters["linear.weight"], parameters["linear.bias"]
        values = torch.baddbmm(bias[..., None], weight, codes.flatten(2).mT).mT
        return self.activated(values.unflatten(2, self.input_shape))

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

    @property
    def by_hand(self) -> bool:
        return isinstance(self.activation, nn.Tanh | None)

    def before(self, codes: Tensor) -> Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        values = torch.mm(codes.flatten(1), weight.to(codes.dtype).T).to(weight.dtype)
        return values.add_(bias).unflatten(1, self.input_shape)

    def pull(self, codes: Tensor, slopes: Tensor, *, further: bool) -> Tensor | None:
        """By hand, into the same memory every time."""
        weight, bias = self.linear.weight, self.linear.bias
        for parameter in (weight, bias):
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
        codes, slopes = codes.flatten(1), slopes.flatten(1)
        torch.sum(slopes, 0, out=bias.grad)
        if codes.dtype == weight.dtype:
            torch.mm(slopes.T, codes, out=weight.grad)
        else:
            weight.grad = torch.mm(slopes.T.to(codes.dtype), codes).to(weight.dtype)
        return (slopes @ weight).unflatten(1, self.output_shape) if further else None

    @torch.no_grad()
    def assign(self, weight: Tensor, bias: Tensor) -> None:
        """Set the weights from the solution of `regression`, weight (q, p) and bias (q,)."""
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)
