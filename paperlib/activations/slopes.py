"""The lesson on its way back: gradients of a model's outputs with respect to its activations."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_map

from paperlib.activations.arguments import arguments_of
from paperlib.activations.goals import goal_of, outputs_in
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
    operations: bool = False,
    cotangent: Tensor | None = None,
    seed: int = 0,
    batch_size: int = BATCH,
) -> list[Stage]:
    """Do as `slopes` with less memory: call `take(number, slopes)` for each stage of each batch.

    Args:
        take: is given the number of a stage and the gradients (samples, *shape) of a batch.
        seen: is given the number of a stage and its activations (samples, *shape), on the way.
        operations: also between the operations of stages that hold many weights, as a probe does.

    Returns:
        the stages.
    """
    model = plain_module(model)
    seed = checked("seed", seed, int, low=0, high=LARGEST_SEED)
    batch_size = checked("batch_size", batch_size, int, low=1)
    with untouched(model, seed):
        inputs = Inputs.for_looking(images, model)
        stages = stages_in(model, inputs, layers, operations=operations)
        example = outputs_in(run_once(model, runner(model), inputs.few(2), lambda *_: None))[:1]
        goal, targets = goal_of(example, inputs.train, labels, cotangent, seed)
        for first, end in inputs.runs(batch_size):
            values = inputs.part(first, end)

            def wanted(outputs: Tensor, some: Tensor = targets[first:end]) -> Tensor:
                return goal(outputs, some)

            _, found = _differentiated(model, values, stages, wanted, seen)
            for number, slope in enumerate(found):
                take(number, stages[number].samples(slope))
    return stages


@dataclass(frozen=True)
class Slopes:
    """The gradients of one number.

    Attributes:
        value: that number, divided by the samples.
        activations: of every stage, (n, *shape).
        stages: the gradient at every stage, (n, *shape), each sample's own.
        parameters: by name, of the mean over the samples; zero where nothing arrives.
    """

    value: float
    activations: list[Tensor]
    stages: list[Tensor]
    parameters: dict[str, Tensor]


def one_gradient(
    model: nn.Module,
    values: Any,
    stages: Sequence[Stage],
    goal: Callable[[Tensor], Tensor],
) -> Slopes:
    """Return the gradients of `goal(outputs)`, summed over samples, by one backward pass.

    No `.grad` is touched.

    Args:
        model: in the mode in which it is to run, see `guard.untouched`.
        values: its arguments for n samples.
        stages: where the gradient with respect to activations is wanted.
        goal: from the model's first floating-point output to one number.

    Raises:
        ProbeError: the model stopped.
        RuntimeError: torch cannot differentiate it.
    """
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    seen: dict[int, Tensor] = {}

    def keep(number: int, value: Tensor) -> None:
        seen[number] = value.clone()

    total, found = _differentiated(model, values, stages, goal, keep, list(learning.values()))
    count = len(next(iter(arguments_of(values).tensors.values())))
    rest = zip(learning, found[len(stages) :], strict=True)
    return Slopes(
        float(total) / count,
        [seen[number] for number in range(len(stages))],
        [stage.samples(slope) for stage, slope in zip(stages, found, strict=False)],
        {name: slope / count for name, slope in rest},
    )


@torch.enable_grad()
def _differentiated(
    model: nn.Module,
    values: Any,
    stages: Sequence[Stage],
    goal: Callable[[Tensor], Tensor],
    seen: Callable[[int, Tensor], None] | None,
    parameters: Sequence[Tensor] = (),
) -> tuple[Tensor, list[Tensor]]:
    """A number, and its gradients with respect to what the stages' layers returned and to some
    parameters; zero where it does not depend on them."""
    edges: dict[int, GradientEdge] = {}
    zeros: dict[int, Tensor] = {}

    def take(number: int, value: Tensor) -> Callable[[], None]:
        zeros[number] = torch.zeros_like(value)
        if seen is not None:
            seen(number, stages[number].samples(value.detach()))

        def settled() -> None:
            if value.requires_grad:  # the edge is that of now: a later layer may write into it
                edges[number] = get_gradient_edge(value)

        return settled

    with torch.backends.cudnn.flags(enabled=False):  # whose recurrent layers need train()
        result = visit_whole(model, tree_map(_followed, values), dict(enumerate(stages)), take)
        total = goal(outputs_in(result))
        wanted = [edges.get(number) for number in range(len(stages))] + list(parameters)
        able = [each for each in wanted if each is not None]
        slopes: Iterator[Tensor | None] = iter(())
        if able and total.requires_grad:
            slopes = iter(torch.autograd.grad(total, able, allow_unused=True))  # type: ignore[arg-type]
    found = [None if each is None else next(slopes, None) for each in wanted]
    like = [zeros[number] for number in range(len(stages))] + list(parameters)
    filled = [
        torch.zeros_like(one) if slope is None else slope
        for one, slope in zip(like, found, strict=True)
    ]
    return total.detach(), filled


def _followed(value: Tensor) -> Tensor:
    """A tensor that gradients are followed to, and that a model may write into."""
    if not value.is_floating_point():
        return value.clone()
    return value.detach().requires_grad_().clone()
