"""The lesson on its way back: gradients of a model's outputs with respect to its activations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_map

from paperlib.activations.goals import Goal, goal_of, outputs_in
from paperlib.activations.guard import plain_module, untouched
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.looking import BATCH, stages_in, visit_whole
from paperlib.activations.tracing import Layers, Stage, run_once
from paperlib.core.checks import LARGEST_SEED, checked


def slopes(
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    layers: Layers = "auto",
    cotangent: Tensor | None = None,
    seed: int = 0,
    batch_size: int = BATCH,
) -> list[tuple[Stage, Tensor]]:
    """Return the gradient with respect to what every stage returned, in the order of the stages.

        for stage, slope in slopes(model, images):
            print(stage.name, slope.norm())

    One forward and one backward pass of all samples; the model runs in evaluation mode and is left
    exactly as it was.

    Args:
        model: any module.
        images: (n, *shape); or a dict or tuple of tensors with n samples each, its arguments.
        labels: (n,), whole numbers: the gradients are those of each sample's cross-entropy.
        layers: where to look, as for `look`.
        cotangent: without labels, the gradients are those of Σ cotangent · outputs; of the shape of
            the outputs, for one sample or for all n. None draws one for all samples from the seed.
        seed: of the cotangent, and of the model's random numbers meanwhile.
        batch_size: samples at a time; fewer take less memory.

    Returns:
        pairs of a stage and the gradients (n, *shape), zero where the output does not depend on it.

    Raises:
        ProbeError: no such layer, labels or a cotangent of another shape, a model that stops.
    """
    parts: dict[int, list[Tensor]] = {}

    def take(number: int, slope: Tensor) -> None:
        parts.setdefault(number, []).append(slope)

    found = visit_slopes(
        model, images, labels, take, layers=layers, cotangent=cotangent, seed=seed,
        batch_size=batch_size,
    )  # fmt: skip
    return [(stage, torch.cat(parts[number])) for number, stage in enumerate(found)]


def visit_slopes(
    model: nn.Module,
    images: Any,
    labels: Tensor | None,
    take: Callable[[int, Tensor], None],
    *,
    seen: Callable[[int, Tensor], None] | None = None,
    layers: Layers = "auto",
    cotangent: Tensor | None = None,
    seed: int = 0,
    batch_size: int = BATCH,
) -> list[Stage]:
    """Do as `slopes` with less memory: call `take(number, slopes)` for each stage of each batch.

    Args:
        take: is given the number of a stage and the gradients (samples, *shape) of a batch.
        seen: is given the number of a stage and its activations (samples, *shape), on the way.

    Returns:
        the stages.
    """
    model = plain_module(model)
    seed = checked("seed", seed, int, low=0, high=LARGEST_SEED)
    batch_size = checked("batch_size", batch_size, int, low=1)
    inputs = Inputs.in_order(images, model)
    with untouched(model, seed):
        stages = stages_in(model, inputs, layers)
        example = outputs_in(run_once(model, runner(model), inputs.few(2), lambda *_: None))[:1]
        goal, targets = goal_of(example, inputs.train, labels, cotangent, seed)
        for first in range(0, inputs.train, batch_size):
            end = min(first + batch_size, inputs.train)
            values = inputs.part(first, end)
            found = _of_batch(model, values, stages, goal, targets[first:end], seen)
            for number, slope in enumerate(found):
                take(number, stages[number].samples(slope))
    return stages


@torch.enable_grad()
def _of_batch(
    model: nn.Module,
    values: Any,
    stages: list[Stage],
    goal: Goal,
    targets: Tensor,
    seen: Callable[[int, Tensor], None] | None,
) -> list[Tensor]:
    """The gradients with respect to the tensors that the stages' layers returned."""
    values = tree_map(_followed, values)
    edges: dict[int, GradientEdge] = {}
    found: dict[int, Tensor] = {}

    def take(number: int, value: Tensor) -> None:
        found[number] = torch.zeros_like(value)
        if seen is not None:
            seen(number, stages[number].samples(value.detach()))
        if value.requires_grad:  # the edge is that of now: a later layer may write into the tensor
            edges[number] = get_gradient_edge(value)

    result = visit_whole(model, values, dict(enumerate(stages)), take)
    total = goal(outputs_in(result), targets)
    if edges and total.requires_grad:
        gradients = torch.autograd.grad(total, list(edges.values()), allow_unused=True)
        for number, gradient in zip(edges, gradients, strict=True):
            if gradient is not None:
                found[number] = gradient
    return [found[number] for number in range(len(stages))]


def _followed(value: Tensor) -> Tensor:
    """A tensor that gradients are followed to, and that a model may write into."""
    return value.requires_grad_().clone() if value.is_floating_point() else value
