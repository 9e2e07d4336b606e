"""A loss as a function of a model's parameters: its gradient, its curvature, its value elsewhere.

The model itself is never changed: other parameters are put in its place for one call.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from paperlib.activations.arguments import called_with_parameters
from paperlib.activations.goals import goal_of, outputs_in
from paperlib.activations.guard import plain_module, untouched
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.looking import BATCH
from paperlib.activations.tracing import ProbeError, run_once
from paperlib.core.checks import LARGEST_SEED, checked

Parameters = dict[str, Tensor]


class Loss:
    """The mean loss of a model on some samples, as a function of the parameters that learn.

        loss = Loss(model, images, labels)
        slope = loss.gradient()
        loss.value({name: p - 0.1 * slope[name] for name, p in loss.parameters.items()})

    The model runs in evaluation mode and is left exactly as it was.

    Args:
        model: any module.
        images: (n, *shape); or a dict or tuple of tensors with n samples each, its arguments.
        labels: (n,), whole numbers: the loss is the cross-entropy.
        cotangent: without labels, the loss is the mean of Σ cotangent · outputs; of the shape of
            the outputs, for one sample or for all n. None draws one for all samples from the seed.
        seed: of the cotangent, and of the model's random numbers meanwhile.
        batch_size: samples at a time; fewer take less memory.

    Raises:
        ProbeError: labels or a cotangent of another shape, no parameter that learns, a model that
            stops.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Any,
        labels: Tensor | None = None,
        *,
        cotangent: Tensor | None = None,
        seed: int = 0,
        batch_size: int = BATCH,
    ) -> None:
        self.model = plain_module(model)
        self._seed = checked("seed", seed, int, low=0, high=LARGEST_SEED)
        self._size = checked("batch_size", batch_size, int, low=1)
        self._inputs = Inputs.in_order(images, self.model).without_vectors()
        with untouched(self.model, seed):
            run = runner(self.model)
            example = outputs_in(run_once(self.model, run, self._inputs.few(2), lambda *_: None))
        count = self._inputs.train
        self._goal, self._targets = goal_of(example[:1], count, labels, cotangent, seed)
        if not self.parameters:
            raise ProbeError(
                "no parameter of the model learns; set requires_grad of those whose gradients are "
                "wanted"
            )

    @property
    def parameters(self) -> Parameters:
        """The model's own parameters that learn, by name, detached."""
        named = self.model.named_parameters()
        return {name: p.detach() for name, p in named if p.requires_grad}

    def value(self, parameters: Mapping[str, Tensor] | None = None) -> float:
        """Return the loss, where other parameters are given with these; one forward pass."""
        given = {**self.parameters, **(parameters or {})}
        with untouched(self.model, self._seed):
            return sum(float(part) for part in self._parts(given))

    def gradient(self) -> Parameters:
        """Return the gradient by parameter; one forward and one backward pass."""
        return self.value_and_gradient()[1]

    def value_and_gradient(self) -> tuple[float, Parameters]:
        """Return the loss, and the gradient by parameter; one forward and one backward pass."""
        values: list[float] = []

        def slopes(part: Tensor, given: list[Tensor]) -> list[Tensor]:
            values.append(float(part.detach()))
            return _gradients(part, given)

        found = self._sum(slopes)
        return sum(values), found

    def curvature_along(self, direction: Mapping[str, Tensor]) -> Parameters:
        """Return the Hessian times a direction, by parameter; two passes back and forth."""

        def product(part: Tensor, given: list[Tensor]) -> list[Tensor]:
            slopes = _gradients(part, given, again=True)
            along = sum(
                (slope * direction[name]).sum()
                for name, slope in zip(self.parameters, slopes, strict=True)
            )
            return _gradients(along, given)

        with differentiable_twice():
            return self._sum(product)

    def _sum(self, of_part: Callable[[Tensor, list[Tensor]], list[Tensor]]) -> Parameters:
        """The sum over the batches of what is computed of each one's loss and the parameters."""
        given = {name: p.clone().requires_grad_() for name, p in self.parameters.items()}
        total = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        with untouched(self.model, self._seed), torch.enable_grad():
            for part in self._parts(given):
                found = of_part(part, list(given.values()))
                for name, value in zip(total, found, strict=True):
                    total[name] += value.detach()
        return total

    def _parts(self, parameters: Parameters) -> Iterator[Tensor]:
        """What each batch adds to the mean loss."""
        count = self._inputs.train
        for first in range(0, count, self._size):
            end = min(first + self._size, count)
            values = self._inputs.part(first, end)
            result = called_with_parameters(self.model, parameters, values)
            yield self._goal(outputs_in(result), self._targets[first:end]) / count


def _gradients(total: Any, given: list[Tensor], *, again: bool = False) -> list[Tensor]:
    """The gradients of a scalar; `again`: that can be differentiated once more."""
    if not isinstance(total, Tensor) or not total.requires_grad:
        return [torch.zeros_like(value) for value in given]
    found = torch.autograd.grad(
        total, given, create_graph=again, allow_unused=True, materialize_grads=True
    )
    return list(found)


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """Have attention and recurrent layers computed by what has a second derivative."""
    mkldnn: Any = torch.backends.mkldnn
    cudnn: Any = torch.backends.cudnn
    enabled = mkldnn.enabled, cudnn.enabled
    try:
        mkldnn.enabled = cudnn.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mkldnn.enabled, cudnn.enabled = enabled
