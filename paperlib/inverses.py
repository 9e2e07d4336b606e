"""What a stage is: its layers, what bounds its output, and which inverse it has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paperlib.convolutions import Chain, CircularInverse, ConvolutionInverse
from paperlib.linear import Inverse, LinearInverse, Reshape
from paperlib.networks import Erf, Normalise, ResidualBlock
from paperlib.windows import ADAPTIVE_POOLS, POOLS, window_of

_BOUNDED = (nn.Tanh, Erf, nn.Sigmoid)
_ACTIVATIONS = (*_BOUNDED, nn.ReLU, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, Normalise)  # affine at each position, in evaluation mode
_RESHAPING = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Sequential)  # an empty one
SHIFT_TOLERANCE = 1e-3  # of what a stage makes of a shifted input, relative to its variation


def layers_of(stage: nn.Module) -> list[nn.Module]:
    """The modules without parts of their own, in order."""
    return [module for module in stage.modules() if not any(module.children())]


def _weighted(stage: nn.Module) -> list[nn.Module]:
    """The layers that are neither pointwise nor only arrange anew."""
    passive = (*_RESHAPING, *_ACTIVATIONS, *_NORMS)
    return [layer for layer in layers_of(stage) if not isinstance(layer, passive)]


def activation_of(stage: nn.Module) -> nn.Module | None:
    """The activation that a stage ends in, None where another layer follows its last one."""
    working = [layer for layer in layers_of(stage) if not isinstance(layer, _RESHAPING)]
    block = _residual(stage)
    if not working or (block is not None and working[-1] in layers_of(block)):
        return None  # x + body(x) does not end in what its body ends in
    return working[-1] if isinstance(working[-1], _ACTIVATIONS) else None


def bounds_of(stages: Sequence[nn.Module]) -> list[nn.Module | None]:
    """What bounds the values at every level, None where nothing does.

    A stage's activation bounds its output; a stage that only pools or reshapes passes on what
    bounds its input. The images count as bounded by the first stage's activation, as published.
    """
    found = [activation_of(stage) for stage in stages if not _passes_on(stage)]
    bounds = found[:1] or [None]
    for stage in stages:
        bounds.append(bounds[-1] if _passes_on(stage) else activation_of(stage))
    return bounds


def has_unit(stage: nn.Module, *, before: bool) -> bool:
    """Whether a stage's output has a natural unit: its last activation, or the one inside a
    residual block, is tanh, erf or sigmoid. Pooling and reshaping keep the unit `before`."""
    if _passes_on(stage):
        return before
    if _residual(stage):
        return any(isinstance(layer, _BOUNDED) for layer in layers_of(stage))
    return isinstance(activation_of(stage), _BOUNDED)


def _passes_on(stage: nn.Module) -> bool:
    return all(
        isinstance(layer, (*_RESHAPING, *POOLS, *ADAPTIVE_POOLS)) for layer in layers_of(stage)
    )


def _residual(stage: nn.Module) -> ResidualBlock | None:
    return next((part for part in stage.modules() if isinstance(part, ResidualBlock)), None)


@dataclass(frozen=True)
class _Case:
    """A stage that waits for its inverse, and what is known of it."""

    stage: nn.Module
    output_shape: tuple[int, ...]  # of one sample, as the input's
    input_shape: tuple[int, ...]
    activation: nn.Module | None
    published: bool

    @property
    def layers(self) -> list[nn.Module]:
        return layers_of(self.stage)

    @property
    def weighted(self) -> list[nn.Module]:
        return _weighted(self.stage)


def inverse_of(
    stage: nn.Module,
    name: str,
    *,
    output_shape: Sequence[int],
    input_shape: Sequence[int],
    activation: nn.Module | None,
    published: bool = False,
) -> Inverse:
    """An untrained inverse of one stage: what the first of RULES makes that knows the stage.

    Args:
        stage: the module to invert.
        name: what the error calls it.
        output_shape, input_shape: of one sample, without the batch.
        activation: what bounded the stage's input; None makes the inverse affine.
        published: the form that was published, to be trained by Adam; otherwise the one for the
            closed form.

    Raises:
        ValueError: no inverse is known for this kind of stage; names the stage and the module.
    """
    case = _Case(stage, tuple(output_shape), tuple(input_shape), activation, published)
    for rule in RULES:
        found = rule(case)
        if found is not None:
            return found
    kinds = ", ".join(type(layer).__name__ for layer in case.weighted) or "no layer with weights"
    raise ValueError(
        f"no inverse is known for {name}, which holds {kinds} and maps the shape "
        f"{case.input_shape} to {case.output_shape}; a stage must hold one Linear, or "
        "convolutions, poolings and paddings one after the other, beside activations, or commute "
        "with cyclic shifts of the image; pooling and Flatten are stages of their own"
    )


@torch.no_grad()
def _reshape(case: _Case) -> Inverse | None:
    """For a stage that only arranges its input anew, as a pooling to the size there is does too."""
    arranging = (*_RESHAPING, *ADAPTIVE_POOLS)
    if not all(isinstance(layer, arranging) for layer in case.layers):
        return None
    example = _example(case.stage, case.input_shape)
    same = torch.equal(case.stage(example).flatten(), example.flatten())
    return Reshape(case.output_shape, case.input_shape) if same else None


def _linear(case: _Case) -> Inverse | None:
    """For a stage with one Linear layer."""
    if len(case.weighted) == 1 and isinstance(case.weighted[0], nn.Linear):
        return LinearInverse(case.output_shape, case.input_shape, case.activation)
    return None


def _published_block(case: _Case) -> Inverse | None:
    """For a residual block: as published, the inverses of its convolutions without the skip."""
    block = _residual(case.stage) if case.published else None
    if block is None:
        return None
    inner = next((layer for layer in layers_of(block) if isinstance(layer, _BOUNDED)), None)
    shape, inverses = case.input_shape, []
    for part in _by_convolution(block):
        after = tuple(part(_example(part, shape)).shape[1:])
        window = window_of(_weighted(part), output_shape=after, input_shape=shape)
        if window is None:
            return None
        inverses.append(ConvolutionInverse(window, after, shape, inner, published=True))
        shape = after
    return Chain(inverses[::-1])


def _by_convolution(block: nn.Module) -> list[nn.Sequential]:
    """The layers of a block, cut before every convolution but the first."""
    parts: list[list[nn.Module]] = [[]]
    for layer in layers_of(block):
        if isinstance(layer, nn.Conv2d) and any(isinstance(x, nn.Conv2d) for x in parts[-1]):
            parts.append([])
        parts[-1].append(layer)
    return [nn.Sequential(*part) for part in parts]


def _circular(case: _Case) -> Inverse | None:
    """For a stage that commutes with cyclic shifts, whatever it holds; closed form only."""
    if case.published or len(case.input_shape) != 3:
        return None
    if case.output_shape[1:] != case.input_shape[1:] or not _commutes_with_shifts(case):
        return None
    return CircularInverse(case.output_shape, case.input_shape, case.activation)


@torch.no_grad()
def _commutes_with_shifts(case: _Case) -> bool:
    """Whether an example that is shifted cyclically gives the shifted output."""
    example = _example(case.stage, case.input_shape)
    shifted = case.stage(example.roll((1, 1), (2, 3)))
    expected = case.stage(example).roll((1, 1), (2, 3))
    variation = (expected - expected.mean((2, 3), keepdim=True)).abs().max()
    return bool((shifted - expected).abs().max() <= SHIFT_TOLERANCE * variation)


def _example(stage: nn.Module, shape: Sequence[int]) -> Tensor:
    """One random input (1, *shape) where the stage's weights are."""
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(1, *shape, generator=generator, device="cpu")
    return example.to(next(stage.parameters(), example))


def _convolution(case: _Case) -> Inverse | None:
    """For a stage with one convolution or pooling, or several one after the other."""
    inner = [part for part in case.stage.modules() if any(part.children())][1:]
    in_order = all(isinstance(part, nn.Sequential | ResidualBlock) for part in inner)
    if {len(case.input_shape), len(case.output_shape)} != {3}:
        return None
    if not in_order and len(case.weighted) > 1:
        return None
    window = window_of(case.weighted, output_shape=case.output_shape, input_shape=case.input_shape)
    if window is None:
        return None
    return ConvolutionInverse(
        window, case.output_shape, case.input_shape, case.activation, published=case.published
    )


# Asked in this order; a new kind of stage needs one more.
RULES: list[Callable[[_Case], Inverse | None]] = [
    _reshape,
    _linear,
    _published_block,
    _circular,
    _convolution,
]
