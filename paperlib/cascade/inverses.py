"""What a stage is: its layers, what bounds its output, and which inverse it has."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paperlib.cascade.convolutions import Chain, CircularInverse, ConvolutionInverse
from paperlib.cascade.foreign import ForeignBlock
from paperlib.cascade.linear import FixedPReLU, Inverse, LinearInverse, Reshape
from paperlib.cascade.transposed import TransposedInverse
from paperlib.cascade.windows import (
    ADAPTIVE_POOLS,
    CONVOLUTIONS,
    FEATURES,
    POOLS,
    Window,
    neighbourhood,
    transposed_window_of,
    window_of,
)
from paperlib.networks import Erf, Normalise, ResidualBlock

_BOUNDED = (nn.Tanh, Erf, nn.Sigmoid)
_ACTIVATIONS = (*_BOUNDED, nn.ReLU, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.PReLU)
# affine at each position, in evaluation mode
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, Normalise)
_RESHAPING = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Sequential)  # an empty one
LARGEST_DENSE = 2**26  # weights of a regression of all numbers on all numbers
SHIFT_TOLERANCE = 1e-3  # of what a stage makes of a shifted input, relative to its variation


def layers_of(stage: nn.Module) -> list[nn.Module]:
    """Return the modules without parts of their own, in order."""
    return [module for module in stage.modules() if not any(module.children())]


def _weighted(stage: nn.Module) -> list[nn.Module]:
    """The layers that are neither pointwise nor only arrange anew."""
    passive = (*_RESHAPING, *_ACTIVATIONS, *_NORMS)
    return [layer for layer in layers_of(stage) if not isinstance(layer, passive)]


def activation_of(stage: nn.Module) -> nn.Module | None:
    """The activation that a stage ends in, None where another layer or a skip follows its last
    one."""
    block = _residual(stage)
    if isinstance(block, ForeignBlock):
        return block.ends_in
    working = [layer for layer in layers_of(stage) if not isinstance(layer, _RESHAPING)]
    ends_in = working[-1] if working else None
    bodies = [part for part in stage.modules() if isinstance(part, ResidualBlock)]
    if any(ends_in is layer for body in bodies for layer in layers_of(body)):
        return None
    return ends_in if isinstance(ends_in, _ACTIVATIONS) else None


def bounds_of(stages: Sequence[nn.Module]) -> list[nn.Module | None]:
    """Return what bounds the values at every level, None where nothing does.

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
    block = _residual(stage)
    if isinstance(block, ForeignBlock):
        return block.has_unit
    if block:
        return any(isinstance(layer, _BOUNDED) for layer in layers_of(stage))
    return isinstance(activation_of(stage), _BOUNDED)


def _passes_on(stage: nn.Module) -> bool:
    return all(
        isinstance(layer, (*_RESHAPING, *POOLS, *ADAPTIVE_POOLS)) for layer in layers_of(stage)
    )


def _residual(stage: nn.Module) -> ResidualBlock | ForeignBlock | None:
    kinds = (ResidualBlock, ForeignBlock)
    return next((part for part in stage.modules() if isinstance(part, kinds)), None)


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
    """Return an untrained inverse of one stage: what the first of RULES makes that knows the stage.

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
    fixed = _fixed(activation, tuple(input_shape))
    case = _Case(stage, tuple(output_shape), tuple(input_shape), fixed, published)
    for rule in RULES:
        found = rule(case)
        if found is not None:
            return found
    kinds = ", ".join(type(layer).__name__ for layer in case.weighted) or "no layer with weights"
    raise ValueError(
        f"no inverse is known for {name}, which holds {kinds} and maps the shape "
        f"{case.input_shape} to {case.output_shape}; a stage must hold one Linear, or "
        "convolutions, poolings and paddings one after the other, or transposed convolutions, "
        "beside activations, or be a residual block, or commute with cyclic shifts of the image; "
        "pooling and Flatten are stages of their own"
    )


def _fixed(activation: nn.Module | None, shape: tuple[int, ...]) -> nn.Module | None:
    """The activation for values (batch, *shape), without weights: those of a PReLU are the
    network's, and an inverse must neither train nor move them."""
    if not isinstance(activation, nn.PReLU):
        return activation
    slopes = activation.weight.detach().clone()
    if len(slopes) > 1 and shape[0] != len(slopes):  # flattened since, or the images
        evenly = shape[0] % len(slopes) == 0
        each = shape[0] // len(slopes)
        slopes = slopes.repeat_interleave(each) if evenly else slopes.mean().view(1)
    return FixedPReLU(slopes)


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
    """For a residual block: as published, the inverses of its layers without the skip.

    Those of a block of ours end in its inner activation, as published; those of a foreign one in
    what bounded the input of the layer that they invert. Where a foreign block's convolutions do
    not run one after the other, `_block` has one transposed convolution for it.
    """
    block = _residual(case.stage) if case.published else None
    if block is None:
        return None
    if isinstance(block, ForeignBlock):
        parts = [(layer, kind() if kind else None) for layer, kind in block.path]
        parts = [(layer, inner or case.activation) for layer, inner in parts[:1]] + parts[1:]
    else:
        bounded = [layer for layer in layers_of(block) if isinstance(layer, _BOUNDED)]
        parts = [(part, next(iter(bounded), None)) for part in _by_weights(block)]
    shape, inverses = case.input_shape, []
    for part, inner in parts:
        after = tuple(part(_example(part, shape)).shape[1:])
        single = _Case(nn.Sequential(part), after, shape, inner, published=True)
        found = next(filter(None, (rule(single) for rule in LAYER_RULES)), None)
        if found is None:
            return None
        inverses.append(found)
        shape = after
    return Chain(inverses[::-1]) if inverses and shape == case.output_shape else None


def _by_weights(block: nn.Module) -> list[nn.Sequential]:
    """The layers of a block, cut before every convolution or Linear but the first."""
    kinds = (nn.Linear, *CONVOLUTIONS)
    parts: list[list[nn.Module]] = [[]]
    for layer in layers_of(block):
        if isinstance(layer, kinds) and any(isinstance(x, kinds) for x in parts[-1]):
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
    with torch.device(example.device):  # of what its forward makes, wherever the inverse is made
        shifted = case.stage(example.roll((1, 1), (2, 3)))
        expected = case.stage(example).roll((1, 1), (2, 3))
    variation = (expected - expected.mean((2, 3), keepdim=True)).abs().max()
    return bool((shifted - expected).abs().max() <= SHIFT_TOLERANCE * variation)


def _example(stage: nn.Module, shape: Sequence[int]) -> Tensor:
    """One random input (1, *shape) where the stage's weights are."""
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(1, *shape, generator=generator, device="cpu")
    return example.to(next(stage.parameters(), example))


def _windowed(case: _Case) -> Inverse | None:
    """For a stage with one convolution or pooling, or several one after the other, or one or
    several transposed convolutions."""
    if not _in_order(case):
        return None
    kind: type[ConvolutionInverse] | type[TransposedInverse] = ConvolutionInverse
    above, below = case.output_shape, case.input_shape
    window = window_of(case.weighted, output_shape=above, input_shape=below)
    if window is None:
        kind, window = TransposedInverse, transposed_window_of(case.weighted, input_shape=below)
    return window and kind(window, above, below, case.activation, published=case.published)


def _in_order(case: _Case) -> bool:
    """Whether a stage has one layer with weights, or several in the order of its modules, between
    shapes with equally many axes, two at least."""
    inner = [part for part in case.stage.modules() if any(part.children())][1:]
    in_order = all(isinstance(part, nn.Sequential | ResidualBlock) for part in inner)
    return len(case.input_shape) == len(case.output_shape) > 1 and (
        in_order or len(case.weighted) == 1
    )


def _block(case: _Case) -> Inverse | None:
    """For a residual block that the other rules leave: from and to vectors, and for sequences of
    tokens, all numbers are predicted from all; in fields, every position from the 3 nearest ones
    along each axis, times the stride, or from one where 3 would be too many numbers."""
    block = _residual(case.stage)
    above, below = case.output_shape, case.input_shape
    tokens = len(below) == 2 and not any(
        isinstance(layer, nn.Conv1d | nn.ConvTranspose1d) for layer in case.layers
    )
    if block is None or len(above) != len(below):
        return None
    if len(below) == 1 or (tokens and math.prod(above) * math.prod(below) <= LARGEST_DENSE):
        return LinearInverse(above, below, case.activation)
    if tokens or len(below) > 4 or not isinstance(block, ForeignBlock):
        return None
    most = math.inf if case.published else FEATURES
    sizes = list(zip(above[1:], below[1:], strict=True))
    kind: type[ConvolutionInverse] | type[TransposedInverse]
    if all(high <= low for high, low in sizes):
        kind, window = ConvolutionInverse, neighbourhood(above[0], above[1:], below[1:], most=most)
    elif all(high >= low for high, low in sizes):
        read = above[0] * math.prod(above[1:]) // math.prod(below[1:])
        kind, window = TransposedInverse, neighbourhood(read, below[1:], above[1:], most=most)
    else:
        return None
    return kind(_centred(window, sizes), above, below, case.activation, published=case.published)


def _centred(window: Window, sizes: Sequence[tuple[int, int]]) -> Window:
    """A window between fields of these sizes, moved by whole strides until it is as far from one
    border as from the other: a block whose convolutions are not padded cuts its input's borders."""
    missing = [max(pair) - s * min(pair) for pair, s in zip(sizes, window.stride, strict=True)]
    moved = [s * int(lost / (2 * s)) for lost, s in zip(missing, window.stride, strict=True)]
    offset = tuple(o - m for o, m in zip(window.offset, moved, strict=True))
    return window._replace(offset=offset)


# Those for one layer; a residual block is a chain of these.
LAYER_RULES: list[Callable[[_Case], Inverse | None]] = [_linear, _windowed]
# Asked in this order; a new kind of stage needs one more.
RULES: list[Callable[[_Case], Inverse | None]] = [
    _reshape,
    _linear,
    _published_block,
    _circular,
    _windowed,
    _block,
]
