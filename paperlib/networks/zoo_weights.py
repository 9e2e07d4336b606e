"""How the networks of the zoo are initialised: as PyTorch does it, well, and badly."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.networks.network import ResidualBlock

SPARSITY = 0.9  # share of zeros
SPREAD = 0.01  # of nearly constant weights, relative to their mean
# 1 / the root mean square of φ(z) for normal z: layers of this gain keep the size of a signal.
PRESERVING_GAIN = {
    "relu": 1.41,
    "leaky_relu": 1.41,
    "gelu": 1.53,
    "silu": 1.68,
    "elu": 1.25,
    "selu": 1.0,
    "tanh": 1.59,
    "sigmoid": 1.85,
    "softplus": 1.04,
    "softsign": 2.34,
    "sine": 1.52,
}

Draw = Callable[[Tensor, float, torch.Generator], Tensor]


def _normal(weight: Tensor, gain: float, generator: torch.Generator) -> Tensor:
    """N(0, gain² / fan_in)."""
    return _noise(weight, generator) * gain / _fan_in(weight) ** 0.5


def _fan_out(weight: Tensor, gain: float, generator: torch.Generator) -> Tensor:
    """N(0, gain² / fan_out), the mode that preserves gradients where widths differ."""
    fan_out = weight.shape[0] * weight[0, 0].numel()
    return _noise(weight, generator) * gain / fan_out**0.5


def _orthogonal(weight: Tensor, gain: float, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix times the gain."""
    return nn.init.orthogonal_(torch.empty(weight.shape), gain, generator=generator)


def _fixed(weight: Tensor, gain: float, generator: torch.Generator) -> Tensor:
    """N(0, (gain/10)²), whatever the fan."""
    return _noise(weight, generator) * gain / 10


def _constant(weight: Tensor, gain: float, generator: torch.Generator) -> Tensor:
    """gain / fan_in, the same for all but for a hundredth: neurons that are nearly one."""
    return (1 + SPREAD * _noise(weight, generator)) * gain / _fan_in(weight)


def _sparse(weight: Tensor, gain: float, generator: torch.Generator) -> Tensor:
    """As `_normal`, nine of ten weights zero, without making up for it."""
    kept = torch.rand(weight.shape, generator=generator) >= SPARSITY
    return _normal(weight, gain, generator) * kept


SCHEMES: dict[str, Draw | None] = {
    "default": None,  # PyTorch's own
    "preserving": _normal,  # with the gain that suits the activation
    "normal": _normal,
    "fan_out": _fan_out,
    "orthogonal": _orthogonal,
    "fixed": _fixed,
    "constant": _constant,
    "sparse": _sparse,
}
ZEROED = ("none", "head", "branches", "first", "middle")


@torch.no_grad()
def draw_weights(network: nn.Module, d: Any, generator: torch.Generator) -> None:
    """Initialise a network that holds PyTorch's own weights as its description says, in place.

    Norms and embeddings stay as they are. Biases are zero unless the scheme is PyTorch's own or
    the description gives them a deviation.

    Args:
        network: with `head` and `stages`.
        d: its description: `scheme`, `gain`, `bias`, `zeroed`, `odd_layer`.
        generator: of the random numbers.
    """
    draw = SCHEMES[d.scheme]
    for weight, biases in layers_of(network):
        if draw is not None:
            weight.copy_(draw(weight, d.gain, generator))
        for bias in biases:
            if d.bias:
                bias.copy_(d.bias * _noise(bias, generator))
            elif draw is not None:
                bias.zero_()
    for weight in _zeroed(network, d.zeroed):
        weight.zero_()
    if d.odd_layer != 1:
        weights = [weight for weight, _ in layers_of(network)]
        weights[int(torch.randint(len(weights), (), generator=generator))].mul_(d.odd_layer)


def layers_of(network: nn.Module) -> list[tuple[Tensor, list[Tensor]]]:
    """Return every weight matrix or kernel with its biases, from the image to the logits."""
    found: list[tuple[Tensor, list[Tensor]]] = []
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            found.append((module.weight, [] if module.bias is None else [module.bias]))
        elif isinstance(module, nn.RNNBase):
            for name in ("ih_l0", "hh_l0"):
                found.append((getattr(module, f"weight_{name}"), [getattr(module, f"bias_{name}")]))
    return found


def _zeroed(network: Any, which: str) -> list[Tensor]:
    """The weights to be set to zero."""
    weights = [weight for weight, _ in layers_of(network)]
    chosen = {
        "none": [],
        "head": weights[-1:],
        "first": weights[:1],
        "middle": [weights[len(weights) // 2]],
        "branches": _ends_of_branches(network),
    }
    return chosen[which]


def _ends_of_branches(network: nn.Module) -> list[Tensor]:
    """The last weights of each residual branch: zeroed, every block is the identity."""
    ends = []
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            ends += [weight for weight, _ in layers_of(module.body)][-1:]
    return ends


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator)


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()
