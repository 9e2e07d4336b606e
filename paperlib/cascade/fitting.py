"""Two ways to fit inverses: in closed form ("ridge"), and by Adam as published.

The gradient never crosses stages, so every inverse is fitted on its own. Both solvers walk down the
network once. They hold the activations of all samples at two levels (Adam on a GPU: at a few more)
and fit the inverse between them, so memory does not grow with depth. On a CPU one inverse and its
optimiser state stay in the cache for all of its steps. A level too large for memory, as those of
photographs are, is recomputed in chunks from the last level that is held.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import stack_module_state

from paperlib.activations.stages import output_of, walk
from paperlib.cascade.inverses import has_unit
from paperlib.cascade.regression import CHUNK, Moments, Samples
from paperlib.cascade.windows import CONVOLUTIONS, TRANSPOSED
from paperlib.core.checks import checked
from paperlib.core.replay import Replayed
from paperlib.networks.kinds import PRECISIONS as PRECISIONS
from paperlib.networks.kinds import RESOLUTION
from paperlib.networks.kinds import SOLVERS as SOLVERS

ENDS = ("deepest", "lost", "r_squared")  # where a cascade stops, see `Cascade.fit`
ARITHMETICS = ("auto", "float64", "float32")  # of second moments
EXACT_BELOW = 1e-4  # a finer resolution than this needs float64 moments
HELD = 2**29  # numbers at a level that are held at once: 2 GiB in float32
AT_ONCE = 2**26  # numbers at a level that is made anew, of the samples of one chunk: 256 MiB
OVERFLOW = 1e15  # activations whose squares can still be summed in float32
STACK_ON_GPU = 32  # equal stages trained in one program
STACK_ON_CPU = 1  # there the cache holds just one inverse and its optimiser state

CHANNELS_LAST = torch.channels_last  # in which a CPU trains convolutions a third faster

LOSS_SAMPLES = 100  # of the fit, on which the loss that is kept of each inverse is taken

Stop = Callable[[int], bool]  # whether a fit that has come to this level may end there
ProgressCallback = Callable[[int], None]  # told of stages finished since its last call


def fit_ridge(
    stages: Sequence[nn.Module],
    inverses: Sequence[Any],
    images: Tensor,
    *,
    resolution: float = RESOLUTION["mlp"],
    arithmetic: str = "auto",
    progress: ProgressCallback | None = None,
    fitted: int = 0,
    stop: Stop | None = None,
) -> list[float]:
    """Solve every inverse in closed form, in place: ridge regression of input on output.

    The penalty is `resolution` per sample: components of a stage's output that vary by less than
    its square root count as lost. Its unit is 1 for bounded activations, the squared range of a
    tanh, and in residual blocks of them; an unbounded activation has no unit of its own, so there
    it is the output's mean square, and rescaling a layer of a ReLU network changes no picture.

    Args:
        stages: the network's stages, L of them.
        inverses: one per stage; see `linear.Inverse.solve`.
        images: (n, *image_shape), floating point; float64 images are solved in float64.
        resolution: λ > 0.
        arithmetic: of the second moments: "float32", "float64", or "auto": float64 for fine
            resolutions, float32 elsewhere.
        progress: called after each stage.
        fitted: inverses of so many first stages stay as they are.
        stop: called with the level of each inverse that is fitted; true ends the fit there.

    Returns:
        the mean squared error of each inverse, see `_loss`.

    Raises:
        ValueError: activations that overflow, with the stage's number; an unknown arithmetic.
    """
    arithmetic = checked("arithmetic", arithmetic, str, choices=ARITHMETICS)
    if arithmetic == "auto":
        arithmetic = arithmetic_of(images, resolution)
    losses: list[float] = []
    unit = True  # of the images, whose values lie in [0, 1]
    for stage, problem in zip(stages, _walk(stages, inverses, images), strict=True):
        unit = has_unit(stage, before=unit)
        samples = Samples(problem.chunks(), len(images), resolution=resolution, relative=not unit)
        if problem.level <= fitted:
            _make(samples)
        else:
            problem.inverse.solve(samples, Moments(getattr(torch, arithmetic)))
            if progress:
                progress(1)
        losses.append(_loss(problem))
        if stop and stop(problem.level):
            break
    return losses


def default_resolution(stages: Iterable[nn.Module]) -> float:
    """λ for a network: the CNN's where bounded activations follow convolutions, else the MLP's."""
    fine = any(
        has_unit(stage, before=False)
        and any(isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED)) for layer in stage.modules())
        for stage in stages
    )
    return RESOLUTION["cnn" if fine else "mlp"]


def arithmetic_of(images: Tensor, resolution: float) -> str:
    """Return the arithmetic that "auto" stands for: float64 or float32, see `fit_ridge`."""
    fine = images.dtype == torch.float64 or resolution < EXACT_BELOW
    return "float64" if fine else "float32"


def fit_adam(
    stages: Iterable[nn.Module],
    inverses: Sequence[nn.Module],
    images: Tensor,
    *,
    steps: int | None = None,
    batch_size: int = 64,
    precision: str = "float32",
    weight_decay: float = 0.0,
    seed: int = 0,
    progress: ProgressCallback | None = None,
    fitted: int = 0,
    stop: Stop | None = None,
) -> list[float]:
    """Train every inverse as published, in place: mean squared error, Adam's defaults.

    Every inverse sees the same batches in the same order, as if each batch went through the whole
    network. Runs of equal inverses are stacked on a GPU and trained in one program.

    Args:
        stages: the network's stages, L of them.
        inverses: one module per stage, from its output to its input.
        images: (n, *image_shape), floating point.
        steps: batches; None is one epoch.
        batch_size: samples per batch.
        precision: of the products of a step; "bfloat16" rounds codes, weights and gradients to 8
            bits where they are multiplied, and is faster on CPUs with instructions for it.
        weight_decay: times an inverse's parameters, added to their gradient.
        seed: of the order of the batches.
        progress: called after each stage or stack of stages.
        fitted: inverses of so many first stages stay as they are.
        stop: called with the level of the last inverse that is fitted; true ends the fit there.

    Returns:
        the mean squared error of each inverse, see `_loss`.

    Raises:
        ValueError: activations that are not finite; names the stage.

    Source: arXiv:2406.12916.
    """
    batches = _batches(len(images), batch_size, steps, seed)
    used, where = torch.unique(torch.cat(batches), return_inverse=True)
    batches = list(where.to(images.device).split([len(batch) for batch in batches]))
    stack = STACK_ON_GPU if images.is_cuda and precision == "float32" else STACK_ON_CPU
    images = images[used.to(images.device)]
    images = channels_last(images)
    losses: list[float] = []
    for group in _stacks(_walk(stages, inverses, images), stack, fitted):
        if group[0].outputs is not None:  # fitted before or not; circular padding undoes it
            group[0].outputs = channels_last(group[0].outputs)
        if group[0].level > fitted:
            if len(group) > 1:
                _train_stack(group, batches, weight_decay)
            elif any(True for _ in group[0].inverse.parameters()):  # else it only reshapes
                _train_alone(group[0], batches, precision, weight_decay)
            if progress:
                progress(len(group))
        losses += [_loss(problem) for problem in group]
        if stop and stop(group[-1].level):
            break
    return losses


@torch.no_grad()
def _loss(problem: "_Problem") -> float:
    """The mean squared error of one inverse's estimates of its stage's input, over the first few
    samples that it was fitted to."""
    outputs, inputs = problem.few
    return float(nn.functional.mse_loss(problem.inverse(outputs), inputs))


def channels_last(values: Tensor) -> Tensor:
    """Return the same values, images as a CPU convolves them fastest."""
    if values.ndim != 4 or values.is_cuda:
        return values
    return values.contiguous(memory_format=CHANNELS_LAST)


def _batches(samples: int, size: int, steps: int | None, seed: int) -> list[Tensor]:
    """The indices of every batch: epoch after epoch, each in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    per_epoch = math.ceil(samples / size)
    steps = per_epoch if steps is None else steps
    batches: list[Tensor] = []
    while len(batches) < steps:
        batches += torch.randperm(samples, generator=generator).split(size)
    return batches[:steps]


@dataclass
class _Problem:
    """A stage's inverse, and its inputs and outputs as what makes them.

    Attributes:
        level: of the outputs, from 1.
        inverse: to be fitted.
        base: the activations of all samples at the last level that is held.
        stages: from there to the outputs.
        outputs: of all samples, as soon as they have been made and if they can be held.
        few: outputs and inputs of the first samples, as soon as they have been made.
    """

    level: int
    inverse: Any
    base: Tensor
    stages: list[nn.Module]
    outputs: Tensor | None = None
    few: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))

    @torch.no_grad()
    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All outputs and inputs, in order; one chunk if they can be held.

        Raises:
            ValueError: outputs that overflow.
        """
        first, largest = 0, self._largest()
        whole = largest * len(self.base) <= HELD
        for part in self.base.split(len(self.base) if whole else max(1, AT_ONCE // largest)):
            inputs = self._inputs(part)
            made = [output_of(self.stages[-1:], piece) for piece in inputs.split(CHUNK)]
            outputs = made[0] if len(made) == 1 else torch.cat(made)
            self._check(outputs)
            if not first:
                self.few = (outputs[:LOSS_SAMPLES].clone(), inputs[:LOSS_SAMPLES].clone())
            yield outputs, inputs
            first += len(part)
            if whole:
                self.outputs = outputs
            elif outputs[0].numel() * len(self.base) <= HELD:
                if self.outputs is None:
                    self.outputs = outputs.new_empty(len(self.base), *outputs.shape[1:])
                self.outputs[first - len(part) : first] = outputs

    @torch.no_grad()
    def batch(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs and the inputs of these samples."""
        inputs = self._inputs(self.base[which])
        if self.outputs is None:
            return output_of(self.stages[-1:], inputs), inputs
        return self.outputs[which], inputs

    @property
    def held(self) -> bool:
        """Whether inputs and outputs are both in memory."""
        return self.outputs is not None and len(self.stages) == 1

    def _inputs(self, activations: Tensor) -> Tensor:
        return output_of(self.stages[:-1], activations)

    def _largest(self) -> int:
        """The most numbers that one sample has at any level from the base to the outputs."""
        sample = self.base[:1]
        return max(made.numel() for made in (sample, *walk(self.stages, sample)))

    def _check(self, outputs: Tensor) -> None:
        low, high = outputs.aminmax()
        if not (low > -OVERFLOW and high < OVERFLOW):  # NaN compares false
            raise ValueError(
                f"the activations after stage {self.level} overflow (beyond {OVERFLOW:g}, or NaN); "
                "use a smaller sigma_w2, fewer stages or a bounded activation"
            )


def _walk(
    stages: Iterable[nn.Module], inverses: Sequence[Any], images: Tensor
) -> Iterator[_Problem]:
    """Each stage's problem, from the images on."""
    base = images
    since: list[nn.Module] = []
    for level, (stage, inverse) in enumerate(zip(stages, inverses, strict=True), start=1):
        since = [*since, stage]
        problem = _Problem(level, inverse, base, since)
        yield problem
        if problem.outputs is not None:
            base, since = problem.outputs, []


def _make(chunks: Iterable[Any]) -> None:
    """Read all chunks once, so that those that fit into memory are cached."""
    for _ in chunks:
        pass


def _stacks(problems: Iterable[_Problem], size: int, fitted: int) -> Iterator[list[_Problem]]:
    """Runs of up to `size` successive problems of equal shape whose activations are held; fitted
    ones, and those that are not held, alone."""

    def kind(problem: _Problem) -> tuple[Any, ...]:
        _make(problem.chunks())
        if problem.level <= fitted or not problem.held:
            return (problem.level,)
        outputs, inputs = problem.batch(torch.zeros(1, dtype=torch.int64))
        number = (problem.level - 1) // size
        return number, inputs.shape, outputs.shape, repr(problem.inverse)

    for _, run in groupby(problems, kind):
        if size == 1:
            yield from ([problem] for problem in run)  # before the next one is made
        else:
            yield list(run)


def _train_stack(group: list[_Problem], batches: list[Tensor], weight_decay: float) -> None:
    """Train every inverse of the group on all batches, together."""
    inverses = [problem.inverse for problem in group]
    outputs = [problem.outputs for problem in group if problem.outputs is not None]
    activations = [group[0].base, *outputs]  # each stage's outputs are the next one's inputs
    parameters, _ = stack_module_state(inverses)
    optimiser = _adam(parameters.values(), weight_decay, on_gpu=outputs[0].is_cuda)

    def step(batch: Tensor) -> None:
        levels = torch.stack([values[batch] for values in activations])
        optimiser.zero_grad()
        errors = (inverses[0].together(parameters, levels[1:]) - levels[:-1]).square()
        # each inverse's own mean, summed: the gradients are those of separate losses
        errors.flatten(1).mean(1).sum().backward()
        optimiser.step()

    _take(step, batches)
    for index, inverse in enumerate(inverses):
        inverse.load_state_dict({name: value[index].detach() for name, value in parameters.items()})


def _train_alone(
    problem: _Problem, batches: list[Tensor], precision: str, weight_decay: float
) -> None:
    """Take one inverse through all batches: a stack of one costs a CPU a third more."""
    dtype = torch.bfloat16 if precision == "bfloat16" else problem.base.dtype
    inverse, on_gpu = problem.inverse, problem.base.is_cuda
    if problem.base.ndim == 4 and not on_gpu:
        inverse.to(memory_format=CHANNELS_LAST)
    optimiser = _adam(inverse.parameters(), weight_decay, on_gpu=on_gpu)

    def step(batch: Tensor) -> None:
        outputs, inputs = problem.batch(batch)
        inverse.differentiate(outputs.to(dtype), inputs)
        optimiser.step()

    _take(step, batches)
    inverse.to(memory_format=torch.contiguous_format)
    inverse.zero_grad()  # a gradient is as large as the inverse, and there are many inverses


def _adam(parameters: Iterable[Tensor], weight_decay: float, *, on_gpu: bool) -> torch.optim.Adam:
    """Adam with its defaults."""
    return torch.optim.Adam(parameters, weight_decay=weight_decay, fused=True, capturable=on_gpu)


def _take(step: Callable[[Tensor], None], batches: list[Tensor]) -> None:
    """Take a step with every batch."""
    replayed = Replayed(step)
    with torch.enable_grad():
        for batch in batches:
            replayed(batch)
