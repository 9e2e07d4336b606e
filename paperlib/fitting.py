"""Two ways to fit inverses: in closed form ("ridge"), and by Adam as published.

The gradient never crosses stages, so every inverse is a problem of its own. Both solvers walk down
the network once: they hold the activations of all samples at two levels (Adam on a GPU: at a few
more) and fit the inverse between them, so memory does not grow with depth and, on a CPU, one
inverse with its optimiser state stays in the cache for all of its steps.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from paperlib.config import RESOLUTION
from paperlib.inverses import has_unit
from paperlib.regression import CHUNK, Moments

EXACT_BELOW = 1e-4  # a finer resolution than this needs float64 moments
OVERFLOW = 1e15  # activations whose squares can still be summed in float32
STACK_ON_GPU = 32  # equal stages trained in one program
STACK_ON_CPU = 1  # there the cache holds just one inverse and its optimiser state

Progress = Callable[[int], None]  # told how many stages have been finished since the last call


def fit_ridge(
    stages: Sequence[nn.Module],
    inverses: Sequence[Any],
    images: Tensor,
    *,
    resolution: float = RESOLUTION["mlp"],
    arithmetic: str = "auto",
    progress: Progress | None = None,
) -> None:
    """Nothing; solves every inverse in closed form, in place: ridge regression of input on output.

    The penalty is `resolution` per sample: components of a stage's output that vary by less than
    its square root count as lost. Its unit is 1 for bounded activations, the squared range of a
    tanh, and in residual blocks of them; an unbounded activation has no unit of its own, so there
    it is the output's mean square, and rescaling a layer of a ReLU network changes no picture.

    Args:
        stages: the network's stages, L of them.
        inverses: one per stage; see `linear.Inverse.solve`.
        images: (n, *image_shape), floating point; float64 images are solved in float64.
        resolution: λ > 0.
        arithmetic: of the second moments: "float32", "float64", "int8" (activations rounded to
            1/127 of their range where that adds less than a twentieth of the resolution, products
            exact; float32 otherwise), or "auto": float64 for fine resolutions, int8 on CPUs with
            instructions for it, float32 elsewhere. On MNIST, R² by int8 and by float32 differ by
            less than 0.0005.
        progress: called after each stage.

    Raises:
        ValueError: activations that overflow, with the stage's number; an unknown arithmetic.
    """
    unit = True  # of the images, whose values lie in [0, 1]
    for stage, problem in zip(stages, _walk(stages, inverses, images), strict=True):
        inputs, outputs, inverse = problem
        unit = has_unit(stage, before=unit)
        moments = _moments_for(images, resolution, arithmetic, bounded=unit)
        scale = 1.0 if unit else _mean_square(outputs)
        inverse.solve(outputs, inputs, moments, resolution=resolution * scale)
        if progress:
            progress(1)


def _mean_square(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2 / values.numel()


def default_resolution(stages: Iterable[nn.Module]) -> float:
    """λ for a network: that of a CNN where it has convolutions, else that of an MLP."""
    layers = (layer for stage in stages for layer in stage.modules())
    convolutional = any(isinstance(layer, nn.Conv2d) for layer in layers)
    return RESOLUTION["cnn" if convolutional else "mlp"]


def arithmetic_of(images: Tensor, resolution: float) -> str:
    """The arithmetic that "auto" stands for: float64, int8 or float32, see `fit_ridge`."""
    if images.dtype == torch.float64 or resolution < EXACT_BELOW:
        return "float64"
    fast = images.device.type == "cpu" and torch.cpu._is_vnni_supported()
    return "int8" if fast else "float32"


def _moments_for(images: Tensor, resolution: float, arithmetic: str, *, bounded: bool) -> Moments:
    """Empty moments in the arithmetic asked for; only bounded activations are ever rounded."""
    if arithmetic == "auto":
        arithmetic = arithmetic_of(images, resolution)
    if arithmetic not in ("float64", "float32", "int8"):
        raise ValueError(f"arithmetic must be auto, float64, float32 or int8; got {arithmetic!r}")
    rounding = resolution / 20 if arithmetic == "int8" and bounded else 0.0
    dtype = torch.float64 if arithmetic == "float64" else torch.float32
    return Moments(dtype, rounding=rounding)


def fit_adam(
    stages: Iterable[nn.Module],
    inverses: Sequence[nn.Module],
    images: Tensor,
    *,
    steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Nothing; trains every inverse as published, in place: mean squared error, Adam's defaults.

    Every inverse sees the same batches in the same order, as if each batch went through the whole
    network. Runs of equal inverses are stacked on a GPU and trained in one program.

    Args:
        stages: the network's stages, L of them.
        inverses: one module per stage, from its output to its input.
        images: (n, *image_shape), floating point.
        steps: batches; None is one epoch.
        batch_size: samples per batch.
        seed: of the order of the batches.
        progress: called after each stage or stack of stages.

    Raises:
        ValueError: activations that are not finite; names the stage.

    Source: arXiv:2406.12916.
    """
    batches = _batches(len(images), batch_size, steps, seed)
    used, where = torch.unique(torch.cat(batches), return_inverse=True)
    batches = list(where.to(images.device).split([len(batch) for batch in batches]))
    stack = STACK_ON_GPU if images.is_cuda else STACK_ON_CPU
    for group in _stacks(_walk(stages, inverses, images[used.to(images.device)]), stack):
        if not any(True for _ in group[0][2].parameters()):
            pass  # it only reshapes
        elif len(group) == 1:
            _train_alone(group[0], batches)
        else:
            _train_stack(group, batches)
        if progress:
            progress(len(group))


def _batches(samples: int, size: int, steps: int | None, seed: int) -> list[Tensor]:
    """The indices of every batch: epoch after epoch, each in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    per_epoch = math.ceil(samples / size)
    steps = per_epoch if steps is None else steps
    batches: list[Tensor] = []
    while len(batches) < steps:
        batches += torch.randperm(samples, generator=generator).split(size)
    return batches[:steps]


_Problem = tuple[Tensor, Tensor, Any]  # a stage's inputs, its outputs, and its inverse


@torch.no_grad()
def _walk(
    stages: Iterable[nn.Module], inverses: Sequence[Any], images: Tensor
) -> Iterator[_Problem]:
    """Each stage's problem, from the images on; checks that no activation overflows."""
    inputs = images
    for level, (stage, inverse) in enumerate(zip(stages, inverses, strict=True), start=1):
        outputs = torch.cat([stage(chunk) for chunk in inputs.split(CHUNK)])
        low, high = outputs.aminmax()
        if not (low > -OVERFLOW and high < OVERFLOW):  # NaN compares false
            raise ValueError(
                f"the activations after stage {level} overflow (beyond {OVERFLOW:g}, or NaN); "
                "use a smaller sigma_w2, fewer stages or a bounded activation"
            )
        yield inputs, outputs, inverse
        inputs = outputs


def _stacks(problems: Iterable[_Problem], size: int) -> Iterator[list[_Problem]]:
    """Runs of up to `size` successive problems of equal shape."""
    numbered = enumerate(problems)
    if size == 1:
        yield from ([problem] for _, problem in numbered)
        return

    def kind(item: tuple[int, _Problem]) -> tuple[Any, ...]:
        number, (inputs, outputs, inverse) = item
        return number // size, inputs.shape, outputs.shape, repr(inverse)

    for _, run in groupby(numbered, kind):
        yield [problem for _, problem in run]


def _train_stack(group: list[_Problem], batches: list[Tensor]) -> None:
    """Nothing; takes every inverse of the group through all batches, together."""
    inverses = [inverse for _, _, inverse in group]
    targets = torch.stack([inputs for inputs, _, _ in group])
    codes = torch.stack([outputs for _, outputs, _ in group])
    parameters, buffers = stack_module_state(inverses)

    def invert(parameters: dict[str, Tensor], buffers: dict[str, Tensor], codes: Tensor) -> Tensor:
        return functional_call(inverses[0], (parameters, buffers), (codes,))

    with torch.enable_grad():
        optimiser = torch.optim.Adam(parameters.values(), fused=True)
        for batch in batches:
            optimiser.zero_grad()
            outputs = torch.vmap(invert)(parameters, buffers, codes[:, batch])
            errors = (outputs - targets[:, batch]).square()
            # each inverse's own mean, summed: the gradients are those of separate losses
            errors.flatten(1).mean(1).sum().backward()
            optimiser.step()
    for index, inverse in enumerate(inverses):
        inverse.load_state_dict({name: value[index].detach() for name, value in parameters.items()})


def _train_alone(problem: _Problem, batches: list[Tensor]) -> None:
    """Nothing; takes one inverse through all batches: a stack of one costs a CPU a third more."""
    targets, codes, inverse = problem
    with torch.enable_grad():
        optimiser = torch.optim.Adam(inverse.parameters(), fused=True)
        for batch in batches:
            inverse.differentiate(codes[batch], targets[batch])
            optimiser.step()
    inverse.zero_grad()  # a gradient is as large as the inverse, and there are many inverses
