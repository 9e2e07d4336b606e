"""Convolutions along one, two and three axes, and transposed ones: their inverses against dense
least squares, and stages that lose nothing."""

import math
from functools import reduce

import pytest
import torch
from test_convolutions import check_adjoint, solved
from test_windows import normal
from torch import Tensor, nn

from paperlib import r_squared
from paperlib.cascade.convolutions import ConvolutionInverse
from paperlib.cascade.inverses import inverse_of
from paperlib.cascade.linear import Inverse
from paperlib.cascade.transposed import TransposedInverse

CONVOLVED = {
    "1d": (nn.Conv1d(2, 3, 3, padding=1), (2, 9)),
    "1d strided": (nn.Conv1d(2, 3, 4, stride=3, padding=2), (2, 11)),
    "1d dilated": (nn.Conv1d(2, 3, 3, dilation=3), (2, 12)),
    "1d max-pool": (nn.MaxPool1d(2), (2, 9)),
    "3d": (nn.Conv3d(1, 2, 3, padding=1), (1, 4, 3, 5)),
    "3d oblong": (nn.Conv3d(2, 1, (1, 3, 2), stride=(2, 1, 2), padding=(0, 2, 1)), (2, 4, 4, 5)),
    "3d average": (nn.AvgPool3d(2, stride=1), (2, 3, 4, 3)),
}
SPREAD = {
    "1d": (nn.ConvTranspose1d(3, 2, 3), (3, 5)),
    "1d apart": (nn.ConvTranspose1d(3, 4, 2, stride=3, output_padding=2), (3, 6)),
    "2d": (nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1), (2, 5, 3)),
    "2d odd": (
        nn.ConvTranspose2d(2, 3, 3, stride=(2, 3), padding=(1, 0), output_padding=(1, 2)),
        (2, 4, 3),
    ),
    "2d dilated": (
        nn.ConvTranspose2d(1, 2, 3, dilation=2, stride=2, padding=2, output_padding=1),
        (1, 5, 4),
    ),
    "2d padded by more": (nn.ConvTranspose2d(2, 2, 2, padding=1), (2, 5, 6)),
    "3d": (nn.ConvTranspose3d(2, 1, 2, stride=2), (2, 2, 3, 2)),
    "3d odd": (
        nn.ConvTranspose3d(1, 2, 3, stride=(1, 2, 2), output_padding=(0, 1, 0)),
        (1, 3, 2, 3),
    ),
}  # fmt: skip
ALL = [*CONVOLVED.values(), *SPREAD.values()]
NAMES = [*CONVOLVED, *(f"transposed {name}" for name in SPREAD)]


def inverse_for(
    layer: nn.Module, shape: tuple[int, ...], *, published: bool = False
) -> tuple[nn.Sequential, Inverse]:
    """A stage with the layer, and its inverse."""
    torch.manual_seed(0)
    stage = nn.Sequential(layer).double().requires_grad_(False)
    for parameter in stage.parameters():
        nn.init.normal_(parameter)
    after = tuple(stage(normal(1, *shape)).shape[1:])
    inverse = inverse_of(
        stage, "it", output_shape=after, input_shape=shape, activation=None, published=published
    )
    return stage, inverse.double()


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize(("layer", "shape"), ALL, ids=NAMES)
def test_an_inverse_gives_back_the_inputs_shape_and_has_an_adjoint(
    layer: nn.Module, shape: tuple[int, ...], published: bool
) -> None:
    stage, inverse = inverse_for(layer, shape, published=published)
    spread = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    assert isinstance(inverse, TransposedInverse if spread else ConvolutionInverse)
    codes = stage(normal(3, *shape))
    assert inverse(codes).shape == (3, *shape)
    check_adjoint(inverse, codes, normal(4, *shape))


@pytest.mark.parametrize(("layer", "shape"), SPREAD.values(), ids=SPREAD)
def test_the_published_inverse_of_a_transposed_convolution_is_the_convolution_of_its_geometry(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    """With the stage's own weights it is the stage's adjoint: every number meets those it made."""
    stage, inverse = inverse_for(layer, shape, published=True)
    for name in ("kernel_size", "stride", "dilation"):
        assert getattr(inverse.convolution, name) == getattr(layer, name)
    with torch.no_grad():
        inverse.convolution.weight.copy_(layer.weight)
        inverse.convolution.bias.zero_()
        inputs, codes = normal(1, *shape), normal(*stage(normal(1, *shape)).shape, seed=1)
        spread = stage(inputs) - stage(torch.zeros_like(inputs))
        torch.testing.assert_close((inverse(codes) * inputs).sum(), (codes * spread).sum())


def along(inverse: Inverse, sizes: tuple[int, ...]) -> Tensor:
    """Which positions the regression is made of: those in whole blocks, or all."""
    if isinstance(inverse, TransposedInverse):
        return torch.ones(sizes, dtype=torch.bool)
    sides = []
    for size, stride, offset in zip(
        sizes, inverse.window.stride, inverse.window.offset, strict=True
    ):
        first = [pixel - (pixel + offset) % stride for pixel in range(size)]
        sides.append(torch.tensor([0 <= start <= size - stride for start in first]))
    return reduce(lambda a, b: a[..., None] & b, sides)


@pytest.mark.parametrize(("layer", "shape"), ALL, ids=NAMES)
def test_the_closed_form_is_the_dense_least_squares_solution(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    """The same kernel, fitted entry by entry without neighbourhoods or phases."""
    stage, inverse = inverse_for(layer, shape)
    inputs = normal(40, *shape) + normal(*shape, seed=1)  # every position has its own mean
    outputs, resolution = stage(inputs), 0.05
    solved(inverse, outputs, inputs, resolution)
    spread = isinstance(inverse, TransposedInverse)
    kernel = (inverse.convolution if spread else inverse.transposed).weight
    codes, pixels = outputs - outputs.mean(0), inputs - inputs.mean(0)
    inside, found = along(inverse, shape[1:]), kernel.detach().clone()
    block = 1 if spread else math.prod(inverse.window.stride)
    samples = len(inputs) * int(inside.sum()) / block
    columns = []
    with torch.no_grad():
        inverse.bias.zero_()
        for unit in torch.eye(kernel.numel(), dtype=torch.float64).view(-1, *kernel.shape):
            kernel.copy_(unit)
            columns.append(inverse(codes)[:, :, inside].flatten())
    features = torch.stack(columns, 1)
    covariance = features.T @ features / samples + resolution * torch.eye(len(columns)).double()
    expected = torch.linalg.solve(covariance, features.T @ pixels[:, :, inside].flatten() / samples)
    torch.testing.assert_close(found.flatten(), expected, rtol=0, atol=1e-9)
    solved(inverse, outputs, inputs, resolution)
    mean = inverse(outputs.mean(0, keepdim=True))[0]
    torch.testing.assert_close(mean.detach(), inputs.mean(0), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("layer", "shape"), [
    (nn.Conv1d(2, 6, 3, stride=3), (2, 12)),
    (nn.Conv3d(1, 9, 2, stride=2), (1, 4, 6, 4)),
    (nn.ConvTranspose1d(3, 2, 2, stride=2), (3, 7)),
    (nn.ConvTranspose1d(3, 4, 3, stride=4, padding=0, output_padding=3), (3, 7)),
    (nn.ConvTranspose2d(6, 2, 2, stride=2), (6, 5, 4)),
    (nn.ConvTranspose3d(4, 1, 2, stride=3), (4, 3, 2, 4)),
], ids=str)  # fmt: skip
def test_a_stage_that_loses_nothing_is_inverted_on_images_that_were_not_seen(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    """A kernel no wider than its stride: every block is one vector, times a matrix of full rank."""
    stage, inverse = inverse_for(layer, shape)
    inputs = normal(300, *shape)
    solved(inverse, stage(inputs), inputs, 1e-10)
    unseen = normal(20, *shape, seed=1)
    torch.testing.assert_close(inverse(stage(unseen)), unseen, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("layer", "shape"), [
    (nn.Conv1d(2, 8, 3, padding=1), (2, 16)),
    (nn.Conv3d(1, 27, 3, padding=1), (1, 4, 4, 4)),
    (nn.ConvTranspose1d(2, 8, 3, stride=2, padding=1, output_padding=1), (2, 9)),
    (nn.ConvTranspose2d(2, 18, 3, padding=1), (2, 6, 6)),
], ids=str)  # fmt: skip
def test_as_many_channels_as_an_output_reads_numbers_let_a_padded_stage_come_back(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    stage, inverse = inverse_for(layer, shape)
    inputs, unseen = normal(600, *shape), normal(30, *shape, seed=1)
    solved(inverse, stage(inputs), inputs, 1e-8)
    assert float(r_squared(unseen, inverse(stage(unseen)))) >= 0.99


def test_transposed_convolutions_one_after_the_other_are_inverted_at_once() -> None:
    stage = nn.Sequential(
        nn.ConvTranspose1d(2, 3, 2, stride=2), nn.Tanh(), nn.ConvTranspose1d(3, 2, 3, stride=3)
    )
    after = tuple(stage(torch.rand(1, 2, 4)).shape[1:])
    found = inverse_of(stage, "it", output_shape=after, input_shape=(2, 4), activation=None)
    assert isinstance(found, TransposedInverse)
    assert found.convolution.stride == (6,)
    assert found.convolution.kernel_size == (6,)
    assert found.margins == (0, 0)


@pytest.mark.parametrize("stage", [
    nn.Sequential(nn.Conv1d(2, 2, 3), nn.ConvTranspose1d(2, 2, 3)),
    nn.Sequential(nn.ConvTranspose1d(2, 2, 3), nn.Upsample(scale_factor=2)),
])  # fmt: skip
def test_a_mixture_that_has_no_inverse_is_named(stage: nn.Sequential) -> None:
    after = stage(torch.rand(1, 2, 9)).shape[1:]
    with pytest.raises(ValueError, match=r"for stage 2, which holds Conv\w+, \w+ and maps"):
        inverse_of(stage, "stage 2", output_shape=after, input_shape=(2, 9), activation=None)
