"""Steps in units of each parameter's own length, which no rescaling of layers can change."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Lars(torch.optim.Optimizer):
    """SGD with momentum that moves each parameter by a share of its own length.

    However long a gradient is, a step along it moves the parameter by `lr` of the length that it
    had at first: LARS (arXiv:1708.03888) without weight decay, with first lengths in place of
    present ones. A layer that is scaled up and its successor scaled down learn as before.

    Example:
        >>> import torch
        >>> from paperlib.training.lars import Lars
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> optimiser = Lars({"weight": weight}, lr=0.1)
        >>> weight.grad = torch.tensor([1e-20, 0.0])
        >>> optimiser.step()
        >>> weight
        Parameter containing:
        tensor([2.5000, 4.0000], requires_grad=True)

    Args:
        parameters: by name.
        lr: the share of its length that a parameter moves in a step without momentum.
        momentum: that is kept of the direction before.
        lengths: by name, in place of the parameters' own; of length 0 a parameter does not move.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.9,
        lengths: Mapping[str, float] | None = None,
    ) -> None:
        own = (
            {n: _length(p.detach()) for n, p in parameters.items()} if lengths is None else lengths
        )
        groups = [{"params": [p], "length": own[name]} for name, p in parameters.items()]
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a finite gradient which is not zero."""
        for group in self.param_groups:
            for parameter in group["params"]:
                steep = 0.0 if parameter.grad is None else _length(parameter.grad)
                if 0 < steep < float("inf"):
                    direction = (parameter.grad.double() / steep).to(parameter.dtype)
                    velocity = self.state[parameter].setdefault(
                        "velocity", torch.zeros_like(parameter)
                    )
                    velocity.mul_(group["momentum"]).add_(direction)
                    parameter.sub_(velocity, alpha=group["lr"] * group["length"])


def _length(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64))
