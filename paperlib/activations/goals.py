"""What is differentiated of a model: the cross-entropy of labels, or its outputs contracted."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.activations.flow import tensors_in
from paperlib.activations.tracing import ProbeError
from paperlib.core.seeds import random_numbers

Goal = Callable[[Tensor, Tensor], Tensor]  # of outputs and targets, summed over the samples


def outputs_in(result: Any) -> Tensor:
    """Return the first floating-point tensor that a model returned."""
    found = next((t for t in tensors_in(result) if t.is_floating_point()), None)
    if found is None:
        raise ProbeError(
            "the model returns no floating-point tensor, whose gradient could be taken"
        )
    return found


def goal_of(
    example: Tensor, count: int, labels: Tensor | None, cotangent: Tensor | None, seed: int
) -> tuple[Goal, Tensor]:
    """Return what is differentiated, and its target for every sample.

    Args:
        example: the output of one sample.
        count: samples.
        labels: (count,), whole numbers: their cross-entropy is differentiated.
        cotangent: without labels, Σ cotangent · outputs is; of the shape of the outputs, for one
            sample or for all. None draws one for all samples from the seed.
        seed: of that one.

    Raises:
        ProbeError: labels or a cotangent of another shape, or both.
    """
    shape = example.shape[1:]
    if labels is not None:
        if cotangent is not None:
            raise ProbeError("give labels or a cotangent, not both")
        return _cross_entropy, _checked_labels(labels, example, count)
    if cotangent is None:
        cotangent = torch.randn(shape, generator=random_numbers("cotangent", seed))
    if not isinstance(cotangent, Tensor) or cotangent.shape not in (shape, (count, *shape)):
        raise ProbeError(
            f"cotangent must have the shape {tuple(shape)} of a sample's outputs, or "
            f"{(count, *shape)} of all; got {tuple(getattr(cotangent, 'shape', ()))}"
        )
    return _contracted, cotangent.to(example).expand(count, *shape)


def _checked_labels(labels: Tensor, example: Tensor, count: int) -> Tensor:
    came = type(labels).__name__
    if isinstance(labels, Tensor):
        came = f"{tuple(labels.shape)} of {labels.dtype}"
        if not labels.is_floating_point() and example.ndim == 2 and labels.shape == (count,):
            return _in_classes(labels, example)
    raise ProbeError(
        f"labels must be a tensor of {count} whole numbers, for outputs (n, classes); got {came} "
        f"for outputs of shape {tuple(example.shape)}"
    )


def _in_classes(labels: Tensor, example: Tensor) -> Tensor:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= example.shape[1]:
        raise ProbeError(f"labels must lie in 0 … {example.shape[1] - 1}, got {low} … {high}")
    return labels.to(example.device).long()


def _cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, labels, reduction="sum")


def _contracted(outputs: Tensor, cotangents: Tensor) -> Tensor:
    return (outputs * cotangents).sum()
