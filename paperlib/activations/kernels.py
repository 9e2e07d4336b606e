"""The empirical tangent kernel, parameter by parameter, in bounded memory."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.activations.goals import outputs_in
from paperlib.activations.gradients import Differentiated
from paperlib.activations.guard import plain_module, take_statistics, untouched
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.looking import samples_that_fit

MEMORY = 2**30  # bytes, about


def sample_grams(
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    cotangent: Tensor | None = None,
    memory: float = MEMORY,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return all products of two samples' gradients, for every parameter that learns.

        grams = sample_grams(model, images)
        sum(grams.values())  # (n, n), the empirical neural tangent kernel

    One forward and one backward pass of all samples, and as many again for each further group of
    parameters whose gradients do not fit into memory together.

    Args:
        model, images, labels, cotangent, seed: as for `per_sample_gradients`.
        memory: bytes that gradients of samples may take.

    Returns:
        by the parameter's name, (n, n) in float64.

    Raises:
        ProbeError: as `per_sample_gradients`.
    """
    return grams_by_goal(model, images, [(labels, cotangent)], memory=memory, seed=seed)[0]


def grams_by_goal(
    model: nn.Module,
    images: Any,
    goals: Sequence[tuple[Tensor | None, Tensor | None]],
    *,
    memory: float = MEMORY,
    seed: int = 0,
    least: int | None = None,
) -> list[dict[str, Tensor]]:
    """Do as `sample_grams` for several goals by the same forward passes.

    Args:
        goals: labels and a cotangent for each, as for `per_sample_gradients`.
        memory: bytes that gradients of samples for one goal may take.
        least: take so many samples, and more of the first ones as long as the gradients of all
            fit into memory together; None is all samples.
    """
    work = Differentiated(model, images, goals, seed=seed)
    inputs = Inputs.in_order(images, work.model)
    with untouched(work.model, seed):
        chunk = samples_that_fit(work.model, inputs, memory)
    fitting = memory / 4 / sum(work.held.values())
    count = inputs.train if least is None else int(min(max(fitting, least), inputs.train))
    found: list[dict[str, Tensor]] = [{} for _ in goals]
    for group in _groups(work.held, memory / 4 / count):
        some = work.gradients(chunk=chunk, only=group, count=count)
        for grams, each in zip(found, some, strict=True):
            grams |= each.grams()
    return [{name: grams[name] for name in work.held} for grams in found]


def trace_gram(
    model: nn.Module,
    images: Any,
    outputs: Sequence[int],
    *,
    memory: float = MEMORY,
    seed: int = 0,
) -> Tensor | None:
    """Return the empirical tangent kernel (n, n) of a model's outputs, as their mean, in float64.

    None where the model has no such outputs, or where they or their gradients are no finite
    numbers. Batch norms that never saw a batch have the statistics of the images.

    Args:
        model, images, memory, seed: as for `sample_grams`.
        outputs: which of the model's outputs count; each takes a forward and a backward pass.

    Raises:
        ProbeError: as `sample_grams`.
    """
    model = plain_module(model)
    with untouched(model, seed):
        inputs, run = Inputs.in_order(images, model), runner(model)
        take_statistics(model, run, inputs.batches(inputs.train), "auto")
        said = outputs_in(run(inputs.part(0, inputs.train)))
        if said.ndim != 2 or said.shape[1] <= max(outputs) or not said.isfinite().all():
            return None
        total = torch.zeros(inputs.train, inputs.train, dtype=torch.float64, device=said.device)
        for each in outputs:
            cotangent = torch.eye(said.shape[1])[each]
            grams = sample_grams(model, images, cotangent=cotangent, memory=memory, seed=seed)
            total += sum(grams.values())
    return total / len(outputs) if total.isfinite().all() else None


def _groups(held: dict[str, float], most: float) -> Iterator[set[str]]:
    """Names of parameters whose gradients fit into memory together; a module's stay together."""
    by_module: dict[str, list[str]] = {}
    for name in held:
        by_module.setdefault(name.rpartition(".")[0], []).append(name)
    group, numbers = set[str](), 0.0
    for names in by_module.values():
        own = sum(held[name] for name in names)
        if group and numbers + own > most:
            yield group
            group, numbers = set(), 0.0
        group |= set(names)
        numbers += own
    yield group
